"""Shells, home folders and terminals as people have them: none of them changes what is made, or ends a job."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def run_code(code: str, *arguments: str | Path, cwd: Path, **settings: str | None) -> subprocess.CompletedProcess:
    """Run a script with variables of its environment set, or, where they are None, not set."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])} | settings
    env = {name: value for name, value in env.items() if value is not None}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


# Figures.

DRAW = """
import sys
from pathlib import Path
import icl_transience.__main__
from factories import RISES_AND_FALLS, make_curves, make_record
from icl_transience.report.figures import experiment
record = make_record({"none": {"optimizer.l2.strength": 0.0}})
folder, curves = Path(sys.argv[1]), make_curves(record, {"none": RISES_AND_FALLS})
experiment.draw_experiment("curves", record, curves, curves, folder / "curves.svg", folder / "curves.png")
"""
SETTINGS = (
    "text.usetex: True\nfont.family: serif\nfont.size: 20\naxes.prop_cycle: cycler('color', ['r'])\n"
    "savefig.bbox: tight\nsavefig.facecolor: black\nlines.linewidth: 9\nbackend: qtagg\n"
)


def drawn(folder: Path, **settings: str) -> list[bytes]:
    folder.mkdir(exist_ok=True)
    done = run_code(DRAW, folder, cwd=folder, **settings)
    assert done.returncode == 0, done.stderr
    return [(folder / name).read_bytes() for name in ("curves.svg", "curves.png")]


def test_a_figure_is_the_same_whatever_matplotlib_is_told_elsewhere(tmp_path):
    usual = drawn(tmp_path / "usual")
    # As every shell has it that Jupyter or Colab starts.
    assert drawn(tmp_path / "notebook", MPLBACKEND="module://matplotlib_inline.backend_inline") == usual
    for name in ("in the working folder", "named", "of the user"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "matplotlibrc").write_text(SETTINGS)
    assert drawn(tmp_path / "in the working folder") == usual
    # In bytes that are no text, too, which Matplotlib does not forgive.
    (tmp_path / "named/matplotlibrc").write_bytes(b"font.family: \xff\n")
    assert drawn(tmp_path / "third", MATPLOTLIBRC=str(tmp_path / "named")) == usual
    assert drawn(tmp_path / "fourth", MPLCONFIGDIR=str(tmp_path / "of the user")) == usual

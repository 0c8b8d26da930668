"""Shells, home folders and terminals as people have them: none of them changes what is made, or ends a job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from icl_transience.system import interpreter

TESTS = Path(__file__).parent


def run_code(code: str, *arguments: str | Path, cwd: Path, **settings: str | None) -> subprocess.CompletedProcess:
    """Run a script with variables of its environment set, or, where they are None, not set."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])} | settings
    env = {name: value for name, value in env.items() if value is not None}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", timeout=300)


# Figures.

DRAW = """
import sys
from pathlib import Path
import icl_transience.__main__
from factories import RISES_AND_FALLS, make_curves, make_record
from icl_transience.analysis import summaries
from icl_transience.report.figures import experiment
from icl_transience.store.tables_file import Tables, read_csv
record = make_record({"none": {"optimizer.l2.strength": 0.0}})
folder, curves = Path(sys.argv[1]), make_curves(record, {"none": RISES_AND_FALLS})
summaries.write_summaries(folder, record, curves, ())
tables = Tables(curves, read_csv(folder / "transience.csv"), read_csv(folder / "runs.csv"))
experiment.draw_figure("curves", record, tables, folder / "curves.svg", folder / "curves.png")
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


# Terminals.

LETTERS = "icl \u2013 \u03c4 \u2265 \u00bd \u2026 gr\u00f6\u00dfe \u96ea"
SAY = """
from icl_transience.system import terminal
import sys
terminal.never_fail()
print(sys.argv[1])
print(sys.argv[1], file=sys.stderr)
"""
SHOWN = {
    "utf-8": LETTERS,
    "latin-1": "icl - \\u03c4 >= \u00bd ... gr\u00f6\u00dfe \\u96ea",
    "ascii": "icl - \\u03c4 >= 1/2 ... gr\\xf6\\xdfe \\u96ea",
}


@pytest.mark.parametrize(("encoding", "expected"), SHOWN.items())
def test_what_a_terminal_cannot_show_is_written_as_it_can_be(tmp_path, encoding, expected):
    # As they are by default where they are told apart: an error on standard output, none on standard error.
    env = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", SAY, LETTERS], env=env, capture_output=True, cwd=tmp_path, check=True)
    for stream in (done.stdout, done.stderr):
        assert stream.decode(encoding) == f"{expected}\n"


@pytest.mark.parametrize("locale", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_every_subcommand_and_snakemake_itself_say_so_before_they_print(tmp_path, locale):
    """The help of a subcommand is printed by the same stream as what it says at its end."""
    code = "import sys; from icl_transience.__main__ import main; main(['writers']); print(sys.argv[1])"
    (tmp_path / "config.yaml").write_text("results: results")
    done = run_code(code, LETTERS, cwd=tmp_path, **locale)
    assert done.returncode == 0, done.stderr
    snakefile = (TESTS.parent / "workflow/Snakefile").read_text(encoding="utf-8")
    assert snakefile.index("terminal.never_fail()") < snakefile.index("logger.warning(")


# The Python of jobs.


def test_python_is_that_of_snakemake_unless_it_is_found_already(monkeypatch, tmp_path):
    folder = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    interpreter.put_on_path()
    assert os.environ["PATH"] == f"{folder}:/usr/bin:/bin"
    # Activated, or called by make; what somebody has put in front stays in front.
    monkeypatch.setenv("PATH", f"/mine:{folder}:/bin")
    interpreter.put_on_path()
    assert os.environ["PATH"] == f"/mine:{folder}:/bin"
    # Unless that is another Python, which has none of this installed.
    other = tmp_path / "python"
    other.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{folder}:/bin")
    interpreter.put_on_path()
    assert os.environ["PATH"] == f"{folder}:{tmp_path}:{folder}:/bin"
    monkeypatch.delenv("PATH")
    interpreter.put_on_path()
    assert os.environ["PATH"].startswith(f"{folder}:")

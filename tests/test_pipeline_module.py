"""This workflow as a module of another one, which lies in another folder."""

import subprocess
from pathlib import Path

from pipeline import ROOT, TINY, environment, python

# As docs/other-workflows.md has it; the study and the results are named as from the outer workflow's folder.
OUTER = """
configfile: "{root}/config.yaml"
config |= {{"study": "{study}", "results": "made/by another"}}

module icl:
    snakefile: "{root}/Snakefile"
    config: config

use rule * from icl as icl_*

onstart:
    icl.onstart()

onsuccess:
    icl.onsuccess()
"""


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = python("snakemake", *arguments) | {"cwd": folder, "env": environment()}
    return subprocess.run(**command, capture_output=True, text=True, timeout=900)


def outer(folder: Path, study: str) -> Path:
    (folder / "Snakefile").write_text(OUTER.format(root=ROOT, study=study), encoding="utf-8")
    return folder


def test_studies_are_looked_for_beside_this_workflow_and_not_beside_the_outer_one(tmp_path):
    done = call(outer(tmp_path, "synthetic"), "-n", "icl_all")
    assert done.returncode == 0, done.stderr
    assert "icl_train" in done.stdout + done.stderr
    done = call(outer(tmp_path, "nowhere"), "-n", "icl_all")
    assert f"`study` is 'nowhere', which is not in {ROOT / 'workflow/studies'}" in done.stdout + done.stderr


def test_a_study_is_made_from_another_workflow(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY.replace("seeds: [0, 1]", "seeds: [0]"), encoding="utf-8")
    done = call(outer(tmp_path, "tiny.yaml"), "-c2", "icl_transience")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made/by another/studies/tiny/transience/curves.svg").is_file()
    again = call(tmp_path, "-n", "icl_transience")
    assert "Nothing to be done" in again.stdout + again.stderr

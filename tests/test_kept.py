"""What comes back when Snakemake is told to make it again: said on the terminal, with what does make it again."""

from pathlib import Path

import pytest

from icl_transience.results import kept
from icl_transience.store import layout

AGAIN = ["-R train", "-Rtrain", "--forcerun evaluate tables", "--forcerun=train", "-F", "-nF", "--forceall"]
AGAIN += [
    "--delete-all-output -n",
    "-R results/packs/p/segment-000000000000-000000002048.h5",
    "-R icl_train -n",
    "-R circuits grafts",
]
AGAIN += ["-Fn", "-nFp", "-nR train", "-R bank", "-R sequences", "-fn train", "-naF", "-R results/banks/x.h5"]
AGAIN += ["-f results/packs/p/segment-000000000000-000000002048.h5", "-nf train", "--force results/packs/p/x.h5"]
NOT_AGAIN = [
    "",
    "-R tables",
    "-n train",
    "-R tables -n --until train",
    "--forcerun=figures",
    "-p",
    "-f results/studies/s/a/curves.svg",
    "--config study=train",
    "-RFigures",
]


def packs(folder: Path) -> Path:
    path = folder / "packs/p" / layout.segment_name(0, 2048)
    layout.kept_name(path).parent.mkdir(parents=True)
    layout.kept_name(path).touch()
    return folder / "packs"


@pytest.mark.parametrize("call", AGAIN)
def test_a_call_that_asks_for_training_again_is_told_what_happens_and_what_to_do(tmp_path, call):
    assert kept.comes_back(tmp_path, call.split()) == ""
    said = kept.comes_back(packs(tmp_path), call.split())
    assert f"trains nothing again: finished segments and metrics are kept under a second name, in {tmp_path}" in said
    assert "To train lanes again, say `python -m icl_transience delete EXPERIMENT/RUN`" in said


@pytest.mark.parametrize("call", NOT_AGAIN)
def test_other_calls_are_told_nothing(tmp_path, call):
    assert kept.comes_back(packs(tmp_path), call.split()) == ""

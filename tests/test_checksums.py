"""SHA-256 of a folder's tables, in a file beside them."""

import subprocess
from pathlib import Path

import pytest

from icl_transience.specs.errors import StudyError
from icl_transience.store import checksums


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def tables(tmp_path) -> Path:
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text(f"{name}\n1\n")
    checksums.write_checksums(tmp_path, ("one.csv", "two.csv"))
    return tmp_path


def test_whole_files_pass_and_sha256sum_agrees(tables):
    checksums.check_checksums(tables, ("one.csv", "two.csv"))
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tables, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("damage", "moved"),
    [
        (lambda folder: (folder / "two.csv").write_text("two.csv\n"), "two.csv"),
        (lambda folder: (folder / "two.csv").write_text("two.csv\n2\n"), "two.csv"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), "SHA256SUMS"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff" * 100), "SHA256SUMS"),
    ],
    ids=["truncated", "a bit flipped", "no checksums", "damaged checksums"],
)
def test_a_damaged_file_is_named_and_moved_aside(damage, moved, tables):
    damage(tables)
    with pytest.raises(StudyError, match=f"{moved}: .* moved to .*{moved}.damaged: run the same snakemake command"):
        checksums.check_checksums(tables, ("one.csv", "two.csv"))
    assert names(tables) == {"one.csv", "two.csv", "SHA256SUMS"} - {moved} | {f"{moved}.damaged"}


def test_a_missing_file_is_named(tables):
    (tables / "one.csv").unlink()
    with pytest.raises(StudyError, match=r"one.csv: cannot be read .No such file.*: run the same snakemake command"):
        checksums.check_checksums(tables, ("one.csv", "two.csv"))

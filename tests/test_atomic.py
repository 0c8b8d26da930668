"""Files that are whole or absent."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from icl_transience.specs.errors import StudyError
from icl_transience.store import atomic, faults


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def raise_error(error: Exception):
    def fail(*_, **__):
        raise error

    return fail


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "curves.csv"
    atomic.write(path, lambda temporary: temporary.write_text("1,2\n"))
    assert path.read_text() == "1,2\n"

    def fail(temporary: Path) -> None:
        temporary.write_text("1,")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        atomic.write(path, fail)
    assert path.read_text() == "1,2\n"
    assert names(path.parent) == {"curves.csv"}


def test_a_text_that_stands_there_is_not_written_again(tmp_path):
    path = tmp_path / "experiment.json"
    atomic.write_text(path, "{}")
    os.utime(path, (0, 0))
    atomic.write_text(path, "{}")
    assert path.stat().st_mtime == 0
    atomic.write_text(path, "[]")
    assert path.read_text() == "[]"


WRITER = """
import os, signal, sys
from pathlib import Path
from icl_transience.store import atomic
with atomic.replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    sys.stdin.readline()
"""


def writer(path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_what_a_killed_writer_left_is_removed_by_the_next_one_and_a_living_ones_is_not(tmp_path):
    path = tmp_path / "curves.csv"
    killed, living = writer(path), writer(path)
    left, used = (process.stdout.readline().strip() for process in (killed, living))
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert {left, used} == names(tmp_path)
    atomic.write(path, lambda temporary: temporary.write_text("whole"))
    assert names(tmp_path) == {path.name, used}
    living.communicate("\n", timeout=30)
    assert living.returncode == 0
    assert names(tmp_path) == {path.name}


def test_other_files_temporaries_are_left_alone(tmp_path):
    for name in (".curves.csv.tmp", ".curves.csv.bak.tmp.old", ".other.csv.1.tmp", "notes.tmp"):
        (tmp_path / name).touch()
    before = names(tmp_path)
    atomic.clear_temporaries(tmp_path / "curves.csv")
    assert names(tmp_path) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_cannot_be_written_to_is_named_with_the_file(number, tmp_path):
    # HDF5 raises OSError without a number, or RuntimeError, with the number in its text.
    hdf5 = RuntimeError(f"Can't write data (errno = {number}, error message = '{os.strerror(number)}')")
    for error in (OSError(number, os.strerror(number)), hdf5):
        remedy = "make the disk writable" if number == errno.EROFS else "make room"
        with pytest.raises(StudyError, match=f"curves.csv: cannot be written .{os.strerror(number)}.: {remedy}"):
            atomic.write(tmp_path / "curves.csv", raise_error(error))
    assert names(tmp_path) == set()


def test_a_right_that_is_missing_elsewhere_is_not_blamed_on_the_file(tmp_path):
    for elsewhere in ("/somewhere/else", f"{tmp_path}-beside/it"):
        error = PermissionError(errno.EACCES, "Permission denied", elsewhere)
        with pytest.raises(PermissionError):
            atomic.write(tmp_path / "curves.csv", raise_error(error))


def test_a_disk_that_is_read_only_needs_no_room():
    said = faults.said(OSError(errno.EROFS, "Read-only file system", "results/log"))
    assert said is not None
    assert "results/log: cannot be written (Read-only file system): make the disk writable, and run" in said


def test_a_file_that_does_not_fit_is_refused_before_it_is_begun(tmp_path):
    atomic.check_room(tmp_path / "segment.h5", 1)
    with pytest.raises(StudyError, match=r"segment.h5: takes about .* MiB, but its disk has .* MiB left: make room"):
        atomic.check_room(tmp_path / "segment.h5", 2**60)

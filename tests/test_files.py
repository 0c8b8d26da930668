"""Files that are whole or absent, and locks that die with their holder."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from icl_transience.specs.errors import StudyError
from icl_transience.store import atomic, checksums, locks


def names(folder: Path) -> set[str]:
    return {found.name for found in folder.iterdir()}


def raise_error(error: Exception):
    def fail(*_, **__):
        raise error

    return fail


# Writing.


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
from icl_transience.store import atomic as files
with files.replacing(Path(sys.argv[1])) as temporary:
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
        with pytest.raises(StudyError, match=f"curves.csv: cannot be written .{os.strerror(number)}.: make room"):
            atomic.write(tmp_path / "curves.csv", raise_error(error))
    assert names(tmp_path) == set()


def test_a_right_that_is_missing_elsewhere_is_not_blamed_on_the_file(tmp_path):
    error = PermissionError(errno.EACCES, "Permission denied", "/somewhere/else")
    with pytest.raises(PermissionError):
        atomic.write(tmp_path / "curves.csv", raise_error(error))


def test_a_file_that_does_not_fit_is_refused_before_it_is_begun(tmp_path):
    atomic.check_room(tmp_path / "segment.h5", 1)
    with pytest.raises(StudyError, match=r"segment.h5: takes about .* MiB, but its disk has .* MiB left: make room"):
        atomic.check_room(tmp_path / "segment.h5", 2**60)


# Checksums beside the files.


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


# Who is writing.


def test_a_lock_is_exclusive_and_ends_with_its_block(tmp_path):
    lock = tmp_path / ".lock"
    writing = f"{tmp_path}: another process is writing here"
    with locks.locked(lock), pytest.raises(StudyError, match=writing), locks.locked(lock):
        pass
    with locks.locked(lock):
        pass


def test_who_waits_for_a_lock_says_so_once_and_gets_it(tmp_path):
    lock, said = tmp_path / ".lock", []
    with locks.locked(lock, wait=True, on_wait=lambda: said.append("never")):
        pass

    def wait() -> None:
        with locks.locked(lock, wait=True, on_wait=lambda: said.append("waits")):
            said.append("has it")

    waiting = threading.Thread(target=wait)
    with locks.locked(lock):
        waiting.start()
        waiting.join(timeout=0.2)
        assert said == ["waits"]
    waiting.join()
    assert said == ["waits", "has it"]


def test_live_writers_are_the_packs_that_train_and_the_files_that_jobs_make(tmp_path):
    for name in ("idle", "training", "never"):
        (tmp_path / "packs" / name).mkdir(parents=True)
    with locks.locked(tmp_path / "packs/idle/.lock"):
        pass
    # As a killed writer leaves it.
    (tmp_path / "packs/idle/.segment-1-2.h5.0a1b.tmp").touch()
    assert locks.live_writers(tmp_path) == []
    bank = tmp_path / "banks" / "bank.h5"
    with locks.locked(tmp_path / "packs/training/.lock"), locks.announced(bank):
        assert locks.live_writers(tmp_path) == [bank, tmp_path / "packs" / "training"]
        with atomic.replacing(bank) as temporary:
            temporary.write_text("whole")
    assert locks.live_writers(tmp_path) == []
    assert locks.live_writers(tmp_path / "nowhere") == []
    assert names(bank.parent) == {bank.name}

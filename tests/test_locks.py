"""Locks that die with their holder: who is writing."""

import errno
import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest
from users import as_user

from icl_transience.specs.errors import StudyError
from icl_transience.store import atomic, locks


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


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


def test_live_writers_are_seen_behind_links_too(tmp_path):
    """As where results/banks is a link to a larger disk."""
    results, disk = tmp_path / "results", tmp_path / "disk"
    (disk / "banks").mkdir(parents=True)
    results.mkdir()
    (results / "banks").symlink_to(disk / "banks")
    # Links that lead in a circle end somewhere.
    (disk / "banks/again").symlink_to(results)
    with locks.announced(results / "banks/bank.h5"):
        assert locks.live_writers(results) == [results / "banks/bank.h5"]
    assert locks.live_writers(results) == []


# File systems without locks.


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch):
    """As Lustre without `-o flock` has it, and NFS without its lock daemon."""

    def refuse(file, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_where_nothing_can_be_locked_it_is_said_of_which_file_and_what_to_do(no_locks, tmp_path):
    path = tmp_path / "banks/bank.h5"
    said = (
        r"cannot be locked \(flock: .*mount the file system with locks.*ICL_LOCKS=none and run one snakemake at a time"
    )
    for writing in (lambda: atomic.write(path, Path.touch), lambda: locks.locked(path).__enter__()):
        with pytest.raises(StudyError, match=f"bank.h5.*{said}"):
            writing()
    assert not [name for name in names(path.parent) if name.endswith(".tmp")]


def test_without_locks_everything_is_written_and_nobody_is_said_to_be_idle(no_locks, tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_LOCKS", "none")
    path = tmp_path / "banks/bank.h5"
    path.parent.mkdir()
    (path.parent / ".bank.h5.0a1b.tmp").touch()
    with locks.announced(path), locks.locked(path.with_name(".lock"), wait=True):
        atomic.write_text(path, "whole")
    assert names(path.parent) == {path.name, ".lock"}
    with pytest.raises(StudyError, match=r"ICL_LOCKS=none: jobs at work lock nothing.*look for `icl_transience`"):
        locks.live_writers(tmp_path)


def test_what_icl_locks_may_be_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_LOCKS", "off")
    with pytest.raises(StudyError, match="ICL_LOCKS is 'off', expected `flock`, `none`"), locks.locked(tmp_path / "a"):
        pass


# A folder of a group.

MINE, COLLEAGUES, GROUP = 54321, 54322, 54300


@pytest.fixture
def shared(tmp_path) -> Path:
    """A folder as a group shares it: of the group, with the setgid bit, and the group may write."""
    if os.geteuid():
        pytest.skip("only root can act as another user")
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    folder = tmp_path / "results"
    folder.mkdir()
    os.chown(folder, COLLEAGUES, GROUP)
    folder.chmod(0o2775)
    return folder


def test_what_a_killed_job_of_a_colleague_left_is_in_nobodys_way(shared):
    """Of mode 0644, as their umask had it."""
    path, lock = shared / "curves.csv", shared / ".lock"
    for name in (".curves.csv.0a1b.tmp", lock.name):
        (shared / name).touch()
        os.chown(shared / name, COLLEAGUES, GROUP)
        (shared / name).chmod(0o644)
    with as_user(MINE, GROUP):
        with locks.locked(lock):
            assert locks.is_held(lock)
        assert not locks.is_held(lock)
        atomic.write_text(path, "whole")
    assert names(shared) == {path.name, lock.name}


def test_a_living_job_of_a_colleague_is_seen(shared):
    with as_user(COLLEAGUES, GROUP):
        held = locks.announced(shared / "bank.h5")
        held.__enter__()
    (marker,) = shared.iterdir()
    marker.chmod(0o644)
    with as_user(MINE, GROUP):
        assert locks.live_writers(shared) == [shared / "bank.h5"]
        # Of one that may not even be opened nobody can say that it is idle.
        os.seteuid(0)
        marker.chmod(0o600)
        os.seteuid(MINE)
        assert locks.live_writers(shared) == [shared / "bank.h5"]
    held.__exit__(None, None, None)


def test_in_a_folder_of_a_group_new_files_and_folders_are_the_groups_whatever_the_umask(shared, tmp_path):
    before = os.umask(0o077)
    try:
        with as_user(MINE, GROUP), locks.locked(shared / ".lock"):
            atomic.write_text(shared / "packs/one/pack.json", "{}")
        # Elsewhere the umask holds.
        atomic.write_text(tmp_path / "own/pack.json", "{}")
    finally:
        os.umask(before)
    modes = {str(path.relative_to(shared)): stat.S_IMODE(path.stat().st_mode) for path in shared.rglob("*")}
    assert modes == {".lock": 0o660, "packs": 0o2770, "packs/one": 0o2770, "packs/one/pack.json": 0o660}
    assert {path.stat().st_gid for path in shared.rglob("*")} == {GROUP}
    assert stat.S_IMODE((tmp_path / "own/pack.json").stat().st_mode) == 0o600


def test_a_folder_that_we_may_not_write_to_is_named_with_its_owner(shared):
    shared.chmod(0o2755)
    with as_user(MINE, GROUP), pytest.raises(StudyError) as error:
        atomic.write_text(shared / "curves.csv", "whole")
    whose = f"{shared}: it belongs to user {COLLEAGUES} (group {GROUP}) and has mode 2755: ask them to make it writable"
    assert whose in str(error.value)
    assert "make room" not in str(error.value)


def test_a_lock_that_we_may_not_open_is_named_with_its_owner(shared):
    lock = shared / ".lock"
    lock.touch()
    os.chown(lock, COLLEAGUES, GROUP)
    lock.chmod(0o600)
    with as_user(MINE, GROUP), pytest.raises(StudyError) as error, locks.locked(lock):
        pass
    assert f"{lock}: it belongs to user {COLLEAGUES} (group {GROUP}) and has mode 0600" in str(error.value)

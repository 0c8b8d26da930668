"""Locks that die with their holder: who is writing."""

import threading
from pathlib import Path

import pytest

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

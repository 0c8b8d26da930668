"""Where the cache folder is, and that both who keep something in it ask for it at one place."""

import os
from pathlib import Path

import pytest

from icl_transience.engines.native import compiler
from icl_transience.specs.model import Model
from icl_transience.store import cache, checksums


def set_or_delete(monkeypatch, variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("named", "users", "expected"),
    [
        ("{tmp}/big", "{tmp}/users", "{tmp}/big"),
        ("~/big", "{tmp}/users", "{tmp}/me/big"),
        (None, "{tmp}/users", "{tmp}/users/icl-transience"),
        ("", "{tmp}/users", "{tmp}/users/icl-transience"),
        (None, None, "{tmp}/me/.cache/icl-transience"),
        (None, "", "{tmp}/me/.cache/icl-transience"),
        (None, "users", "{tmp}/me/.cache/icl-transience"),
    ],
)
def test_the_cache_folder_is_the_one_named_else_the_users(named, users, expected, tmp_path, monkeypatch):
    variables = {"HOME": "{tmp}/me", "ICL_CACHE": named, "XDG_CACHE_HOME": users}
    here = {name: value and value.format(tmp=tmp_path) for name, value in variables.items()}
    set_or_delete(monkeypatch, here)
    assert cache.cache_folder() == Path(expected.format(tmp=tmp_path))


@pytest.mark.parametrize("unset", [None, "", "relative", "/proc/nowhere"])
def test_without_a_home_or_a_name_the_cache_is_private_and_never_in_the_working_folder(unset, tmp_path, monkeypatch):
    """As in a container that runs under any user number."""
    work, temporary = tmp_path / "work", tmp_path / "tmp"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    set_or_delete(monkeypatch, dict.fromkeys(("ICL_CACHE", "XDG_CACHE_HOME", "HOME"), unset))
    monkeypatch.delenv("ICL_CACHE", raising=False)
    monkeypatch.setattr(cache.pwd, "getpwuid", raise_unknown)
    monkeypatch.setattr(cache.tempfile, "tempdir", str(temporary))
    found = cache.cache_folder()
    assert found == temporary / f"icl-transience-{os.getuid()}"
    assert found.stat().st_mode & 0o777 == 0o700
    assert list(work.iterdir()) == []
    # Where others could put a library that jobs would run, none is kept.
    found.chmod(0o777)
    assert cache.cache_folder() != found
    monkeypatch.setattr(cache.tempfile, "tempdir", str(work))
    assert not cache.cache_folder().is_relative_to(work)
    assert list(work.iterdir()) == []


def raise_unknown(number: int) -> None:
    raise KeyError(f"uid not found: {number}")


@pytest.mark.parametrize("value", [None, "", "  ", '""', "g++ -D'", '"c++'])
def test_a_compiler_that_is_not_said_is_the_usual_one(value, monkeypatch):
    set_or_delete(monkeypatch, {"CXX": value})
    assert cache.compiler_words() == ["c++"]


def test_digests_of_large_files_are_remembered_in_the_named_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "_REMEMBERED_BYTES", 1)
    source = tmp_path / "source"
    source.write_bytes(b"large")
    checksums.file_digest.cache_clear()
    digest = checksums.file_digest(source)
    (note,) = (tmp_path / "cache").iterdir()
    assert note.read_text() == digest == checksums.sha256(source)


def test_kernels_are_kept_in_the_named_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_CACHE", str(tmp_path / "cache"))
    compiler.library.cache_clear()
    try:
        compiler.library(Model(depth=1, width=8, heads=2, mlp_ratio=0), 1)
    except compiler.UnavailableError as error:
        pytest.skip(str(error))
    finally:
        compiler.library.cache_clear()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".so"]

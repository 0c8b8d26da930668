"""Where the cache folder is, and that both who keep something in it ask for it at one place."""

from pathlib import Path

import pytest

from icl_transience.engines.native import compiler
from icl_transience.specs.model import Model
from icl_transience.store import cache, checksums


@pytest.mark.parametrize(
    ("named", "users", "expected"),
    [
        ("/big/cache", "/users", "/big/cache"),
        (None, "/users", "/users/icl-transience"),
        ("", "/users", "/users/icl-transience"),
        (None, None, "/home/me/.cache/icl-transience"),
        (None, "", "/home/me/.cache/icl-transience"),
    ],
)
def test_the_cache_folder_is_the_one_named_else_the_users(named, users, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("ICL_CACHE", named), ("XDG_CACHE_HOME", users)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache.cache_folder() == Path(expected)


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

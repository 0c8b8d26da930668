"""Files that are whole or absent, and refused when they are anything but what their name promises."""

import errno
import os
import struct
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from icl_transience.specs.errors import StudyError
from icl_transience.store import atomic, hdf5, layout

KIND, IDENTITY = "segment", "pack/0-4"
NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)
WORDS = ["aleph", "beth", ""]


def write(path: Path, **attributes) -> Path:
    with hdf5.writing(path, KIND, IDENTITY) as file:
        file["group/numbers"] = NUMBERS
        file["words"] = WORDS
        file["none"] = np.zeros((0, 3))
        file["scalar"] = np.int64(7)
        file["group"].attrs["unit"] = "sequences"
        file.attrs.update({"from": 0, "made_by": "a test"} | attributes)
    return path


@pytest.fixture
def path(tmp_path) -> Path:
    return write(tmp_path / "segment.h5")


def names(folder: Path) -> set[str]:
    return {found.name for found in folder.iterdir()}


def refusal(path: Path, identity: str | None = IDENTITY) -> str:
    """What reading says of the file; the message names it and the way to get it back, whatever is wrong."""
    with pytest.raises(hdf5.StoreError) as caught, hdf5.reading(path, KIND, identity):
        pass
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(f": moved to {path}.damaged: run the same snakemake command again to rebuild it")
    assert not path.exists()
    assert Path(f"{path}.damaged").exists()
    return message


def is_valid(path: Path) -> bool:
    with hdf5.reading(path, KIND, IDENTITY):
        return True


# Writing.


def test_what_was_written_is_read_back(path):
    with hdf5.reading(path, KIND, IDENTITY) as file:
        assert np.array_equal(file["group/numbers"][()], NUMBERS)
        assert file["words"].asstr()[()].tolist() == WORDS
        assert file["none"].shape == (0, 3)
        assert file["scalar"][()] == 7
        assert file.attrs["from"] == 0
    assert is_valid(path)
    assert hdf5.read_attribute(path, "identity") == IDENTITY


def test_a_file_has_its_name_only_once_it_is_whole(tmp_path):
    path = tmp_path / "new" / "segment.h5"
    with hdf5.writing(path, KIND, IDENTITY):
        (temporary,) = names(path.parent)
        assert temporary.startswith(".segment.h5.")
        assert temporary.endswith(".tmp")
    assert names(path.parent) == {"segment.h5"}


def fail_in_mid_file(path: Path, error: type[BaseException]) -> None:
    with hdf5.writing(path, KIND, IDENTITY) as file:
        file["numbers"] = NUMBERS
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_neither_a_file_nor_a_temporary(error, tmp_path):
    with pytest.raises(error):
        fail_in_mid_file(tmp_path / "segment.h5", error)
    assert names(tmp_path) == set()


def test_a_failure_leaves_an_earlier_file_as_it_was(path):
    before = path.read_bytes()
    with pytest.raises(ValueError):  # noqa: PT011
        fail_in_mid_file(path, ValueError)
    assert path.read_bytes() == before
    assert names(path.parent) == {path.name}


@pytest.mark.parametrize("writes", range(16))
def test_a_disk_that_is_full_at_any_write_leaves_the_earlier_file_and_no_temporary(writes, path, monkeypatch):
    """HDF5 reads some of what it has written back, and crashes where it finds something else."""
    before, full = path.read_bytes(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Disk(hdf5._Disk):
        left = writes

        def write(self, data: memoryview) -> int:
            self.left -= 1
            self.failure = self.failure or (full if self.left < 0 else None)
            return super().write(data)

    monkeypatch.setattr(hdf5, "_Disk", Disk)
    with pytest.raises(StudyError, match=f"{path}: cannot be written .No space left on device"):
        write(path)
    assert path.read_bytes() == before
    assert names(path.parent) == {path.name}


def test_what_a_full_disk_did_not_take_is_read_back(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with hdf5._Disk(tmp_path / "file") as disk:
        disk.failure = OSError(errno.ENOSPC, "full")
        disk.seek(8)
        assert disk.write(b"abcd") == 4
        disk.seek(2)
        assert disk.write(b"xy") == 2
        assert disk.seek(0, 2) == 12
        disk.seek(0)
        buffer = bytearray(14)
        assert disk.readinto(buffer) == 14
    assert bytes(buffer) == b"01xy4567abcd\0\0"
    assert (tmp_path / "file").read_bytes() == b"0123456789"


# Reading.


def test_a_dataset_is_read_as_an_array_and_a_group_is_not(path):
    with h5py.File(path, "r+") as file:
        file["folder/numbers"] = np.arange(3)
        file["folder/one"] = 2.5
        np.testing.assert_array_equal(hdf5.array(file, "folder/numbers"), np.arange(3))
        assert hdf5.array(file["folder"], "one").shape == ()
        with pytest.raises(TypeError, match="folder is a Group, expected a dataset"):
            hdf5.array(file, "folder")


def test_a_missing_file_is_refused(tmp_path):
    missing = tmp_path / "segment.h5"
    with pytest.raises(hdf5.StoreError, match=r"cannot be read .*No such file.*run the same snakemake command again"):
        is_valid(missing)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_file_that_cannot_be_read_just_now_stays_where_it_is(number, path, monkeypatch):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(h5py, "File", fail)
    with pytest.raises(hdf5.StoreError, match=f"cannot be read .*{os.strerror(number)}"):
        is_valid(path)
    assert names(path.parent) == {path.name}


def test_a_damaged_file_in_a_folder_that_is_not_ours_is_named_and_stays(path, monkeypatch):
    path.write_bytes(b"")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only")))
    with pytest.raises(hdf5.StoreError, match=r"damaged .*: move this file away .Read-only, from here., and run"):
        is_valid(path)
    assert names(path.parent) == {path.name}


@pytest.mark.parametrize(("kind", "identity"), [("metrics", IDENTITY), (KIND, "pack/0-8")])
def test_another_file_of_this_name_is_refused_and_stays(kind, identity, path):
    found = "its kind is 'segment', expected 'metrics'" if kind != KIND else "its identity is 'pack/0-4', expected"
    message = f"{path}: {found}.*: another file has got this name: move it away, and run the same snakemake command"
    with pytest.raises(hdf5.StoreError, match=message), hdf5.reading(path, kind, identity):
        pass
    assert path.exists()


def test_a_file_of_an_older_schema_version_is_refused(path, monkeypatch):
    monkeypatch.setitem(hdf5.SCHEMA_VERSIONS, KIND, 999)
    assert "its schema version is 1, expected 999" in refusal(path)


def test_a_file_of_a_newer_schema_version_is_refused_and_stays_for_the_software_that_made_it(path, monkeypatch):
    monkeypatch.setitem(hdf5.SCHEMA_VERSIONS, KIND, 0)
    with pytest.raises(hdf5.StoreError, match="its schema version is 1, this software knows 0: use the software"):
        is_valid(path)
    assert path.exists()


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(kept, path):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refusal(path)


def test_a_file_that_is_no_hdf5_is_refused(path):
    path.write_bytes(b"<html>" * 1000)
    refusal(path)


def test_a_file_without_checksum_is_refused(path):
    with h5py.File(path, "r+") as file:
        del file.attrs["checksum"]
    assert "checksum" in refusal(path)


@pytest.mark.parametrize("byte", range(NUMBERS.nbytes))
def test_one_flipped_bit_in_a_number_is_noticed(byte, path):
    with h5py.File(path) as file:
        start = file["group/numbers"].id.get_offset()
    flip(path, start + byte, bit=byte % 8)
    assert "its content does not match its checksum" in refusal(path)


@pytest.mark.parametrize("letter", range(len("aleph")))
def test_one_flipped_bit_in_a_word_is_noticed(letter, path):
    flip(path, path.read_bytes().index(b"aleph") + letter, bit=0)
    assert "its content does not match its checksum" in refusal(path)


def flip(path: Path, byte: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


# h5py raises OSError where the heap of strings is damaged, and KeyError where the description of a dataset is.
@pytest.mark.parametrize(
    "part", [pytest.param(b"GCOL", id="strings"), pytest.param(struct.pack("<QQ", *NUMBERS.shape), id="shape")]
)
def test_damage_to_the_structure_of_a_file_is_refused_in_the_same_words(part, path):
    flip(path, path.read_bytes().index(part), bit=7)
    refusal(path)


def test_an_attribute_that_is_not_there_is_an_error_with_a_remedy(path):
    with pytest.raises(hdf5.StoreError, match=r"its attribute 'spec' cannot be read .*: move this file away, and run"):
        hdf5.read_attribute(path, "spec", aside=False)
    assert path.exists()
    with pytest.raises(hdf5.StoreError, match=r"damaged .*moved to .*: run the same snakemake command again"):
        hdf5.read_attribute(path, "spec")
    assert not path.exists()


# The checksum.


def checksum_after(path: Path, change) -> str:
    with h5py.File(path, "r+") as file:
        change(file)
        return hdf5.checksum(file)


def replace_dataset(name: str, value):
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


CONTENT_CHANGES = {
    "value": replace_dataset("group/numbers", NUMBERS + 1),
    "sign of zero": replace_dataset("group/numbers", np.where(NUMBERS == 0, np.float32(-0.0), NUMBERS)),
    "type": replace_dataset("group/numbers", NUMBERS.astype(np.float64)),
    "type of the same bytes": replace_dataset("group/numbers", NUMBERS.view(np.int32)),
    "shape": replace_dataset("group/numbers", NUMBERS.reshape(3, 2)),
    "shape of nothing": replace_dataset("none", np.zeros((0, 4))),
    "word": replace_dataset("words", ["aleph", "beth", "gimel"]),
    "boundary between words": replace_dataset("words", ["alephb", "eth", ""]),
    "scalar": replace_dataset("scalar", np.int64(8)),
    "name": lambda file: file.move("scalar", "number"),
    "dataset removed": lambda file: file.__delitem__("none"),
    "empty group added": lambda file: file.create_group("more"),
    "attribute": lambda file: file.attrs.modify("from", 1),
    "type of an attribute": lambda file: file.attrs.create("from", "0"),
    "attribute of a group": lambda file: file["group"].attrs.modify("unit", "steps"),
    "attribute added": lambda file: file["words"].attrs.create("alphabet", "hebrew"),
    "attribute removed": lambda file: file.attrs.__delitem__("from"),
    "identity": lambda file: file.attrs.modify("identity", "pack/0-8"),
}


@pytest.mark.parametrize("change", CONTENT_CHANGES.values(), ids=CONTENT_CHANGES.keys())
def test_every_change_of_content_changes_the_checksum(change, path):
    before = hdf5.read_attribute(path, "checksum")
    assert checksum_after(path, change) != before
    assert "its content does not match its checksum" in refusal(path, identity=None)


def test_how_a_file_was_made_is_no_content(tmp_path):
    one, other = write(tmp_path / "1.h5"), write(tmp_path / "2.h5", made_by="another", made_in_seconds=1.5)
    assert hdf5.read_attribute(one, "checksum") == hdf5.read_attribute(other, "checksum")
    assert checksum_after(one, lambda file: file.attrs.__delitem__("made_at")) == hdf5.read_attribute(one, "checksum")
    assert is_valid(one)


def test_the_checksum_does_not_depend_on_the_pieces_it_reads(tmp_path, monkeypatch):
    with hdf5.writing(tmp_path / "numbers.h5", KIND, IDENTITY) as file:
        file["numbers"] = NUMBERS
        expected = hdf5.checksum(file)
        monkeypatch.setattr(hdf5, "_HASH_BYTES", NUMBERS[0].nbytes)
        assert hdf5.checksum(file) == expected
        file["numbers"][1, 2] += 1
        assert hdf5.checksum(file) != expected


def test_groups_that_share_letters_differ(tmp_path):
    checksums = []
    for number, groups in enumerate([("a", "ab"), ("aa", "b")]):
        with hdf5.writing(tmp_path / f"{number}.h5", KIND, IDENTITY) as file:
            for name in groups:
                file.create_group(name)
        checksums.append(hdf5.read_attribute(tmp_path / f"{number}.h5", "checksum"))
    assert checksums[0] != checksums[1]


# Finished files are kept.


def keep(path: Path) -> None:
    atomic.link(path, layout.kept_name(path))


def test_a_file_that_is_to_be_kept_has_both_names_once_it_is_whole(tmp_path):
    path = tmp_path / "segment.h5"
    with hdf5.writing(path, KIND, IDENTITY, kept=True) as file:
        file["numbers"] = NUMBERS
        assert not layout.kept_name(path).exists()
    assert layout.kept_name(path).samefile(path)


def test_a_kept_file_is_the_same_file_under_a_name_of_its_own(path):
    keep(path)
    kept = layout.kept_name(path)
    assert kept.parent == path.parent / ".kept"
    assert kept.samefile(path)
    keep(path)
    assert kept.samefile(path)


def test_keeping_replaces_what_was_kept_before(path):
    keep(path)
    write(path, **{"from": 1})
    keep(path)
    assert layout.kept_name(path).samefile(path)


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_deleted_file_comes_back_whole_and_new(hard_links, path, monkeypatch):
    if not hard_links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links here")))
    content = path.read_bytes()
    keep(path)
    os.utime(layout.kept_name(path), (0, 0))
    path.unlink()
    begun = time.time()
    assert hdf5.restore(path, KIND, IDENTITY)
    assert path.read_bytes() == content
    assert is_valid(layout.kept_name(path))
    # The file system's clock may be a tick behind.
    assert path.stat().st_mtime > begun - 1
    assert names(path.parent) == {path.name, ".kept"}


def test_a_file_that_is_still_there_can_be_restored(path):
    keep(path)
    assert hdf5.restore(path, KIND, IDENTITY)
    assert is_valid(path)
    assert names(path.parent) == {path.name, ".kept"}


def test_nothing_is_restored_where_nothing_was_kept(path):
    path.unlink()
    assert not hdf5.restore(path, KIND, IDENTITY)
    assert not path.exists()


@pytest.mark.parametrize("reason", ["identity", "kind", "damage"])
def test_a_kept_file_that_is_not_what_is_wanted_is_not_restored(reason, path):
    keep(path)
    path.unlink()
    if reason == "damage":
        kept = layout.kept_name(path)
        flip(kept, kept.read_bytes().index(b"aleph"), bit=0)
    wanted = ("metrics" if reason == "kind" else KIND, "pack/0-8" if reason == "identity" else IDENTITY)
    assert not hdf5.restore(path, *wanted)
    assert not path.exists()


def test_a_kept_file_made_of_other_things_is_not_restored(path):
    write(path, made_of="one")
    keep(path)
    path.unlink()
    assert not hdf5.restore(path, KIND, IDENTITY, made_of="another")
    assert not path.exists()
    assert hdf5.restore(path, KIND, IDENTITY, made_of="one")

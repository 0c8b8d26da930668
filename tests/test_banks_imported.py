"""Exemplars from an HDF5 file and one-hot classes, and what is refused."""

import errno
import fcntl
import os
import pickle
import re
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from pipeline import ROOT
from users import as_user

from icl_transience.banks import bank as banks_bank
from icl_transience.banks.bank import Bank
from icl_transience.planning.plan import Plan
from icl_transience.specs.banks import BankSpec, Imported, OneHot
from icl_transience.specs.errors import StudyError
from icl_transience.study.sources import resolve

SECTION = Imported(
    file="features.h5",
    path="resnet18/224/feat",
    classes=6,
    holdout_classes=2,
    exemplars=3,
    holdout_exemplars=1,
    scale="raw",
    dim=5,
)


def numbers() -> np.ndarray:
    return np.random.default_rng(0).normal(3, 2, (9, 5, 5))


def write(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    with h5py.File(folder / SECTION.file, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return folder / SECTION.file


@pytest.fixture
def path(tmp_path) -> Path:
    return write(tmp_path, {SECTION.path: numbers(), "resnet18/224/last": np.zeros((9, 5, 7)), "labels": np.arange(9)})


def build(source: Path, **changes) -> Bank:
    return banks_bank.build(BankSpec(seed=0, parameters=replace(SECTION, **changes)), [source])


def test_classes_and_exemplars_are_those_of_the_file_in_its_order(path):
    bank = build(path)
    assert bank.embeddings.dtype == np.float32
    np.testing.assert_array_equal(bank.embeddings, numbers()[:8, :4].astype(np.float32))
    assert (bank.n_train_classes, bank.n_train_exemplars) == (6, 3)


def test_the_standard_scale_is_that_of_the_training_exemplars(path):
    embeddings = build(path, scale="standard").embeddings.astype(np.float64)
    trained, array = embeddings[:6, :3].reshape(-1, 5), numbers()[:8, :4]
    np.testing.assert_allclose(trained.mean(axis=0), 0, atol=1e-5)
    assert np.mean(trained**2) == pytest.approx(1, rel=1e-5)
    of_file = array[:6, :3].reshape(-1, 5)
    expected = (array - of_file.mean(axis=0)) / np.sqrt(of_file.var(axis=0).mean())
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_an_entry_that_is_no_float32_number_is_refused_with_its_place(tmp_path, value):
    array = numbers()
    array[4, 2, 1] = value
    path = write(tmp_path, {SECTION.path: array})
    with pytest.raises(StudyError, match=r"has 1 entries that are no finite float32 numbers, the first at \(4, 2, 1\)"):
        build(path)
    build(path, classes=3, holdout_classes=1)  # which does not touch it


def test_points_that_are_all_one_have_no_scale(tmp_path):
    path = write(tmp_path, {SECTION.path: np.ones((9, 5, 5))})
    with pytest.raises(StudyError, match="one and the same point"):
        build(path, scale="standard")


REFUSED = {
    "a path that is not there": (
        {"path": "resnet18/224/feats"},
        ["`bank.imported.path` is 'resnet18/224/feats'", "did you mean `resnet18/224/feat`", "labels [9]", "[9, 5, 7]"],
    ),
    "a group": ({"path": "resnet18"}, ["'resnet18', which is not an array"]),
    "an array of one dimension": ({"path": "labels"}, ["labels is [9], expected [class, exemplar, dim]"]),
    "too many classes": ({"classes": 8}, ["`bank.imported.classes` + `holdout_classes` is 10", "has 9: ask for fewer"]),
    "too many exemplars": ({"exemplars": 5}, ["`bank.imported.exemplars` + `holdout_exemplars` is 6", "has 5"]),
    "another width": ({"dim": 64}, ["`bank.imported.dim` is 64", "has 5 coordinates: say 5"]),
    "a file that is not there": ({"file": "feature.h5"}, ["did you mean `features.h5`"]),
}


@pytest.mark.parametrize(("changes", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_feed_the_bank_is_refused_before_anything_runs(path, changes, expected):
    with pytest.raises(StudyError) as error:
        resolve.resolve("imported", asdict(SECTION) | changes, path.parent)
    for fragment in expected:
        assert fragment in str(error.value)


def test_a_file_that_is_no_hdf5_is_refused(path):
    path.write_bytes(b"no HDF5")
    with pytest.raises(StudyError, match=r"features\.h5: not an HDF5 file"):
        resolve.resolve("imported", asdict(SECTION), path.parent)


REFUSED_BY_THE_SYSTEM = {
    errno.EACCES: "Permission denied.: it belongs to .*: ask for the right to read it",
    errno.EAGAIN: "Resource temporarily unavailable.: another program has it open to write: close it there",
    errno.EIO: "Input/output error.: the disk or the file server fails",
    errno.EMFILE: "Too many open files.: raise the limit",
}


@pytest.mark.parametrize("suffix", [".h5", ".npy", ".npz"])
@pytest.mark.parametrize(("number", "said"), REFUSED_BY_THE_SYSTEM.items(), ids=errno.errorcode.get)
def test_a_file_that_the_system_refuses_is_not_said_to_be_damaged(path, number, said, suffix, monkeypatch):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    file = path.with_suffix(suffix)
    file.touch()
    monkeypatch.setattr(h5py, "File", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    with pytest.raises(StudyError, match=rf"features\{suffix}: cannot be read .{said}"):
        resolve.resolve("imported", asdict(SECTION) | {"file": file.name}, path.parent)


def test_a_file_that_is_open_elsewhere_is_said_to_be(path):
    """HDF5 itself says it, with the number in its text alone."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for reading in (lambda: resolve.resolve("imported", asdict(SECTION), path.parent), lambda: build(path)):
            with pytest.raises(StudyError, match=r"another program has it open to write: close it there"):
                reading()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_on_a_disk_without_locks_is_read_all_the_same(path, number, monkeypatch):
    opened = h5py.File

    def refuse_to_lock(name, mode="r", locking=None, **settings):
        if locking is not False:
            raise OSError(f"Unable to open file (unable to lock file, errno = {number}, error message = '...')")
        return opened(name, mode, locking=locking, **settings)

    monkeypatch.setattr(h5py, "File", refuse_to_lock)
    resolve.resolve("imported", asdict(SECTION), path.parent)
    assert build(path).embeddings.shape == (8, 4, 5)


def test_a_folder_that_may_not_be_read_is_named(path):
    folder = path.parent
    folder.chmod(0o700)
    with as_user(54321, 54321), pytest.raises(StudyError, match=r"cannot be read .Permission denied.*belongs to "):
        resolve.resolve("imported", asdict(SECTION), folder)


def test_a_good_file_is_the_one_source_file_and_a_slash_in_front_says_nothing(path):
    for name in (SECTION.path, f"/{SECTION.path}"):
        _, paths = resolve.resolve("imported", asdict(SECTION) | {"path": name}, path.parent)
        assert paths == [path]


def create(folder: Path, **settings) -> h5py.File:
    file = h5py.File(folder / SECTION.file, "w")
    file.create_dataset(SECTION.path, **settings)
    return file


def refusal(folder: Path, **changes) -> str:
    with pytest.raises(StudyError) as error:
        resolve.resolve("imported", asdict(SECTION) | changes, folder)
    return str(error.value)


NO_NUMBERS = {
    "booleans": bool,
    "complex numbers": np.complex64,
    "strings": h5py.string_dtype(),
    "bytes": "S4",
    "opaque bytes": np.dtype("V1"),
    "a compound": [("re", "f4"), ("scale", "f4")],
    "an enumeration": h5py.enum_dtype({"A": 0, "B": 1}, basetype="i1"),
    "references": h5py.ref_dtype,
    "arrays of numbers": np.dtype(("f4", (2,))),
}


@pytest.mark.parametrize("dtype", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_real_number_is_refused_before_anything_runs(tmp_path, dtype):
    create(tmp_path, shape=(9, 5, 5), dtype=dtype).close()
    assert "expected numbers that are real (floating-point, or integers such as pixels)" in refusal(tmp_path)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i4", "i8", "f2", "f4", "f8"])
def test_integers_and_floating_point_numbers_are_coordinates(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, 100, (9, 5, 5)).astype(dtype)
    path = write(tmp_path, {SECTION.path: array})
    assert resolve.resolve("imported", asdict(SECTION), tmp_path)[1] == [path]
    np.testing.assert_array_equal(build(path).embeddings, array[:8, :4].astype(np.float32))


def test_codes_with_a_scale_beside_them_are_refused(tmp_path):
    for dtype in ("u1", "f2"):
        with create(tmp_path, data=np.ones((9, 5, 5), dtype)) as file:
            file[f"{SECTION.path}_scale"] = np.ones(9)
        assert f"holds {np.dtype(dtype)} and has {SECTION.path}_scale beside it" in refusal(tmp_path)


@pytest.mark.parametrize("dtype", ["u2", "i2"])
def test_integers_of_16_bits_are_refused_with_how_to_read_them(tmp_path, dtype):
    array = np.random.default_rng(0).standard_normal((9, 5, 5)).astype("f2")
    path = write(tmp_path, {SECTION.path: array.view(dtype)})
    said = refusal(tmp_path)
    assert "the bits of float16 or bfloat16" in said
    path = write(tmp_path, {SECTION.path: eval(re.search("`(array.view.*?)`", said)[1], {"array": array.view(dtype)})})
    np.testing.assert_array_equal(build(path).embeddings, array[:8, :4].astype(np.float32))
    bits = (array.astype("f4").view("u4") >> 16).astype("u2").view(dtype)
    values = eval(re.findall("`(.*?)`", said)[1], {"array": bits})
    np.testing.assert_allclose(values, array, rtol=2**-7)
    assert values.dtype == np.float32


@pytest.mark.parametrize("dtype", ["i1", "i2", "f2", "f4"])
@pytest.mark.parametrize(
    "attribute",
    ["scale", "Scale", "scales", "scale_factor", "scaling_factor", "offset", "zeropoint", "absmax", "codebook"],
)
def test_an_array_whose_attributes_unpack_it_is_refused(tmp_path, dtype, attribute):
    with create(tmp_path, data=np.ones((9, 5, 5), dtype)) as file:
        file[SECTION.path].attrs[attribute] = [0.01, 3]
    assert f"has attribute {attribute} beside it" in refusal(tmp_path)


@pytest.mark.parametrize("where", ["/", "resnet18", "resnet18/224"])
@pytest.mark.parametrize("beside", ["scales", "zero_points", "Codebook"])
def test_integers_that_a_group_unpacks_are_refused(tmp_path, where, beside):
    for kind in ("attribute", "array"):
        with create(tmp_path, data=np.ones((9, 5, 5), "i1")) as file:
            if kind == "attribute":
                file[where].attrs[beside] = 0.5
            else:
                file[where][beside] = np.ones(9)
        said = refusal(tmp_path)
        assert (
            f"attribute {beside} of {where.replace('/', 'the file', where == '/')}" if kind == "attribute" else beside
        ) in said
        assert "these are codes" in said


def test_attributes_that_describe_or_change_nothing_are_no_reason_to_refuse(tmp_path):
    array = numbers()
    for dtype in ("i1", "f4"):
        with create(tmp_path, data=(10 * array).astype(dtype)) as file:
            attributes = file[SECTION.path].attrs
            attributes["scale"], attributes["scale_factor"], attributes["add_offset"] = "standard", 1.0, 0
            attributes["Scale"], attributes["offset"] = np.bytes_(b"raw"), h5py.Empty("f4")
            file["resnet18/224/meta_data"], file["resnet18/labels"] = np.arange(3), np.arange(9)
        resolve.resolve("imported", asdict(SECTION), tmp_path)


def test_an_array_is_found_through_links_within_the_file(tmp_path):
    with create(tmp_path, data=numbers()) as file:
        file["hard"] = file[SECTION.path]
        file["soft"] = h5py.SoftLink("/resnet18/224")
        file["resnet18/relative"] = h5py.SoftLink("224/feat")
        file["circle"] = h5py.SoftLink("circle")
    path = tmp_path / SECTION.file
    for name in (f"./{SECTION.path}", "hard", "soft/feat", "resnet18/relative", "resnet18//224/./feat"):
        found, paths = resolve.resolve("imported", asdict(SECTION) | {"path": name}, tmp_path)
        assert paths == [path]
        np.testing.assert_array_equal(build(path, path=found["path"]).embeddings, build(path).embeddings)
    assert "which is not an array in" in refusal(tmp_path, path="circle")


def test_an_array_without_a_shape_is_refused_or_left_alone(tmp_path):
    with create(tmp_path, data=numbers()) as file:
        file["empty"] = h5py.Empty("f4")
    resolve.resolve("imported", asdict(SECTION), tmp_path)
    assert "empty is empty, without a shape" in refusal(tmp_path, path="empty")
    assert "empty []" in refusal(tmp_path, path="labels")


def test_a_filter_that_is_not_there_is_named_before_anything_runs(tmp_path):
    with h5py.File(tmp_path / SECTION.file, "w") as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((9, 5, 5))
        # Optional: HDF5 writes such an array without the filter, and here as it is.
        layout.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        group = file.create_group("resnet18/224")
        created = h5py.h5d.create(group.id, b"feat", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((9, 5, 5)), layout)
        h5py.Dataset(created)[...] = numbers()
    said = refusal(tmp_path)
    assert "compressed by HDF5 filter 32015 (Zstandard)" in said
    assert "which the package `hdf5plugin` brings: write it again with gzip" in said
    # What it says to type is Python, and reads what is there.
    program = compile(said[said.index("import h5py, hdf5plugin") :], "said", "exec")
    assert {"features.h5", "features-gzip.h5", SECTION.path} <= set(program.co_consts)


def squeezed_by_an_unknown_method(path: Path) -> None:
    """Say so in the entries of a zip's directory, as a program has it that packs with Zstandard."""
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 10] = 93
        at = content.find(b"PK\x01\x02", at + 4)
    path.write_bytes(content)


def test_a_method_of_compression_that_python_does_not_have_is_named_before_anything_runs(tmp_path):
    np.savez(tmp_path / "packed.npz", feat=numbers())
    squeezed_by_an_unknown_method(tmp_path / "packed.npz")
    assert "method 93 (Zstandard)" in refusal(tmp_path, file="packed.npz", path="feat")


SWAPPED = {"exemplars first": (1, 0, 2), "coordinates first": (2, 0, 1), "coordinates in the middle": (0, 2, 1)}


@pytest.mark.parametrize("order", SWAPPED.values(), ids=SWAPPED)
def test_an_array_whose_axes_are_swapped_is_not_advised_to_be_cut(tmp_path, order):
    array = np.random.default_rng(0).normal(size=(48, 20, 64)).transpose(order)
    write(tmp_path, {SECTION.path: array})
    asked = {"classes": 40, "holdout_classes": 8, "exemplars": 16, "holdout_exemplars": 4, "dim": 64}
    said = refusal(tmp_path, **asked)
    back = re.search(r"write it again as array.transpose(\(.*?\))", said)
    assert back, said
    assert array.transpose(eval(back[1])).shape == (48, 20, 64)
    write(tmp_path, {SECTION.path: np.zeros((40, 20, 64))})
    assert refusal(tmp_path, **asked).endswith("has 40: ask for fewer")


@pytest.mark.parametrize("how", [{"compression": "gzip"}, {"fletcher32": True}])
def test_a_damaged_chunk_is_a_refusal_in_words(tmp_path, how):
    with create(tmp_path, data=numbers(), chunks=(9, 5, 5), **how) as file:
        chunk = file[SECTION.path].id.get_chunk_info(0)
    path = tmp_path / SECTION.file
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"features\.h5: resnet18/224/feat cannot be read .*get the file again"):
        build(path)


# NumPy's files.


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_numpys_is_read_like_one_of_hdf5(tmp_path, order):
    array = np.array(numbers(), order=order)
    expected = build(write(tmp_path, {SECTION.path: numbers()})).embeddings
    np.save(tmp_path / "one.npy", array)
    np.savez(tmp_path / "many.npz", feat=array, labels=np.arange(9))
    np.savez_compressed(tmp_path / "packed.npz", feat=array)
    for file, path in (("one.npy", "whatever"), ("many.npz", "feat"), ("packed.npz", "feat")):
        found, paths = resolve.resolve("imported", asdict(SECTION) | {"file": file, "path": path}, tmp_path)
        assert found["path"] == ("" if file == "one.npy" else "feat")
        np.testing.assert_array_equal(build(paths[0], file=file, path=found["path"]).embeddings, expected)


def test_an_array_of_numpys_that_cannot_feed_the_bank_is_refused(tmp_path):
    np.save(tmp_path / "pickled.npy", np.array([object()]), allow_pickle=True)
    assert "the array holds object, expected numbers" in refusal(tmp_path, file="pickled.npy")
    np.save(tmp_path / "flat.npy", np.ones((9, 5)))
    assert "the array is [9, 5], expected [class, exemplar, dim]" in refusal(tmp_path, file="flat.npy")
    np.save(tmp_path / "bits.npy", np.ones((9, 5, 5), "u2"))
    assert "the bits of float16" in refusal(tmp_path, file="bits.npy")
    np.savez(tmp_path / "codes.npz", feat=np.ones((9, 5, 5), "i1"), scales=np.ones(9))
    assert "feat holds int8 and has scales beside it" in refusal(tmp_path, file="codes.npz", path="feat")
    said = refusal(tmp_path, file="codes.npz", path="feats")
    assert "did you mean `feat`" in said
    assert "scales [9]" in said
    for name in ("none.npy", "none.npz"):
        (tmp_path / name).write_bytes(pickle.dumps([1]))
        assert "not a file of NumPy's arrays" in refusal(tmp_path, file=name)
    np.save(tmp_path / "cut.npy", numbers())
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-8])
    assert "not a file of NumPy's arrays (1,920 of 1,928 bytes)" in refusal(tmp_path, file="cut.npy")


def test_the_scale_is_to_be_said(tmp_path):
    write(tmp_path, {SECTION.path: numbers()})
    parameters = asdict(SECTION)
    del parameters["scale"]
    with pytest.raises(StudyError) as error:
        resolve.resolve("imported", parameters, tmp_path)
    for fragment in ("`bank.imported.scale` is not said", "say `raw` for", "or `standard` to"):
        assert fragment in str(error.value)


def test_a_study_has_no_scale_by_default(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((14, 5, 5)))
    sizes = {
        key: getattr(SECTION, key) for key in ("classes", "holdout_classes", "exemplars", "holdout_exemplars", "dim")
    }
    for scale in ({}, {"scale": "raw"}, {"scale": "standard"}):
        bank = {"source": "imported", "imported": {"file": "a.npy"} | sizes | {"classes": 12} | scale}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"experiments": {"a": {"bank": bank}}}))
        if scale:
            assert Plan({"study": str(tmp_path / "mine.yaml"), "imported": str(tmp_path)}, ROOT).banks
        else:
            with pytest.raises(StudyError, match=r"`bank\.imported\.scale` is not said.*`raw`.*`standard`"):
                Plan({"study": str(tmp_path / "mine.yaml"), "imported": str(tmp_path)}, ROOT)


def test_the_scale_can_be_an_axis_though_it_has_no_default(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((14, 5, 5)))
    sizes = {"classes": 12, "holdout_classes": 2, "exemplars": 3, "holdout_exemplars": 1, "dim": 5}
    settings = {"bank": {"source": "imported", "imported": {"file": "a.npy"} | sizes}}
    study = {"defaults": settings, "experiments": {"a": {"axes": {"bank.imported.scale": ["raw", "standard"]}}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
    plan = Plan({"study": str(tmp_path / "mine.yaml"), "imported": str(tmp_path)}, ROOT)
    assert len(plan.banks) == 2
    study["experiments"]["a"] = {"axes": {"bank.imported.scales": ["raw"]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(StudyError, match=r"unknown run key `bank\.imported\.scales`"):
        Plan({"study": str(tmp_path / "mine.yaml"), "imported": str(tmp_path)}, ROOT)


def test_a_file_of_pytorchs_is_refused_with_the_lines_that_convert_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(torch.as_tensor(numbers()).bfloat16(), tmp_path / "features.pt")
    _, *lines = refusal(tmp_path, file="features.pt").split("\n")
    assert len(lines) == 3
    exec("\n".join(lines))
    _, paths = resolve.resolve("imported", asdict(SECTION) | {"file": "features.npy"}, tmp_path)
    np.testing.assert_allclose(build(*paths, file="features.npy", path="").embeddings, numbers()[:8, :4], rtol=2**-7)


# Never written, or half of it.


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, 5, 5)}])
def test_an_array_that_was_never_written_is_refused_before_anything_runs(tmp_path, storage):
    create(tmp_path, shape=(9, 5, 5), dtype="f4", fillvalue=3, **storage).close()
    assert "feat: was never written, and HDF5 gives 3.0 in place of what is missing" in refusal(tmp_path)


def test_an_array_that_was_half_written_is_refused_with_how_much_is_missing(tmp_path):
    with create(tmp_path, shape=(9, 5, 5), dtype="f4", chunks=(2, 5, 3), compression="gzip") as file:
        file[SECTION.path][:6] = numbers()[:6]
    # Of 8 classes, 4 x 2 chunks, two are missing; a fifth pair is not asked for.
    assert "2 of its 8 chunks (25%) were never written" in refusal(tmp_path)
    resolve.resolve("imported", asdict(SECTION) | {"classes": 4}, tmp_path)


def refused(array: np.ndarray, folder: Path, **changes) -> str:
    with pytest.raises(StudyError) as error:
        build(write(folder, {SECTION.path: array}), **changes)
    return str(error.value)


@pytest.mark.parametrize("scale", ["raw", "standard"])
@pytest.mark.parametrize("value", [0, 0.1, 1e-30])
def test_half_of_the_classes_at_one_point_are_refused(tmp_path, scale, value):
    array = numbers()
    array[3:] = value
    message = refused(array, tmp_path, scale=scale)
    assert "features.h5: 9 of 18 training exemplars of training classes (50.0%) are equal to an exemplar of" in message
    assert "such as exemplar 0 of class 3 to exemplar 0 of class 4" in message
    assert "write the source's file whole" in message


def test_held_out_exemplars_that_were_never_filled_in_are_refused(tmp_path):
    array = numbers()
    array[:, 3] = 0
    message = refused(array, tmp_path)
    assert "6 of 6 held-out exemplars of training classes (100.0%)" in message
    assert "6 are all zeros" in message


@pytest.mark.parametrize("scale", ["raw", "standard"])
def test_a_few_equal_exemplars_and_constant_coordinates_are_warned_of_with_counts(tmp_path, scale):
    array = np.random.default_rng(0).standard_normal((30, 8, 5))
    array[:, :, 2] = 7
    array[3, 1], array[5, 0] = array[3, 0], array[4, 0]
    sizes = {"classes": 28, "exemplars": 7}
    spec = BankSpec(seed=0, parameters=replace(SECTION, **sizes, scale=scale))
    with (tmp_path / "log").open("w") as log:
        bank = banks_bank.build(spec, [write(tmp_path, {SECTION.path: array})], log)
    said = "\n".join(bank.warnings)
    assert "2 of 196 training exemplars of training classes (1.0%) are equal to an exemplar of another class" in said
    assert "exemplar 0 of class 4 to exemplar 0 of class 5" in said
    assert "1 of 240 exemplars repeat another exemplar of their class (in 1 of 30 classes)" in said
    assert "1 of 5 coordinates are the same in all exemplars" in said
    assert (tmp_path / "log").read_text() == "".join(f"warning: {warning}\n" for warning in bank.warnings)
    banks_bank.save(bank, tmp_path / "bank.h5", spec)
    with h5py.File(tmp_path / "bank.h5") as file:
        assert file["quality"].attrs["warnings"] == said


@pytest.mark.parametrize("scale", ["raw", "standard"])
def test_rows_of_which_a_part_was_never_written_are_warned_of(tmp_path, scale):
    array = numbers()
    array[3:, :, 1:] = 0
    (warning,) = build(write(tmp_path, {SECTION.path: array}), scale=scale).warnings
    assert "features.h5: in 4 coordinates more than 20% of the exemplars have the same value, up to 20 of 32" in warning
    array = np.random.default_rng(0).standard_normal((900, 20, 5))
    sizes = {"classes": 800, "exemplars": 19, "holdout_classes": 100}
    assert build(write(tmp_path, {SECTION.path: array}), scale=scale, **sizes).warnings == ()
    array[:, 15:, 4] = 0
    (warning,) = build(write(tmp_path, {SECTION.path: array}), scale=scale, **sizes).warnings
    assert "in 1 coordinates more than 20% of the exemplars have the same value, up to 4,500 of 18,000" in warning


def test_pixels_may_often_be_the_same(tmp_path):
    array = np.random.default_rng(0).integers(0, 3, (9, 5, 50))
    assert build(write(tmp_path, {SECTION.path: array}), dim=50).warnings == ()


@pytest.mark.parametrize("scale", ["raw", "standard"])
@pytest.mark.parametrize(("value", "attribute"), [(9.969209968386869e36, None), (-3.4e38, None), (-9999, "_FillValue")])
def test_values_that_stand_for_what_is_missing_are_refused_with_their_number(tmp_path, scale, value, attribute):
    array = numbers()
    array[7, 1:3] = value
    path = write(tmp_path, {SECTION.path: array.astype("f4")})
    if attribute:
        with h5py.File(path, "a") as file:
            file[SECTION.path].attrs[attribute] = np.float32(value)
    with pytest.raises(StudyError, match=r"10 of 160 entries of .*feat are fill values, .* the first at \(7, 1, 0\)"):
        build(path, scale=scale)


# One-hot.


@pytest.mark.parametrize("value", [1.0, 3.5])
def test_one_hot_classes_are_a_coordinate_each_and_equally_far_apart(value):
    spec = BankSpec(seed=0, parameters=OneHot(classes=5, holdout_classes=2, value=value))
    bank = banks_bank.build(spec)
    assert bank.shape == spec.shape
    assert bank.embeddings.dtype == np.float32
    np.testing.assert_array_equal(bank.embeddings[:, 0], value * np.eye(7))
    assert not bank.warnings

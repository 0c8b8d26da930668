"""Exemplars from an HDF5 file and one-hot classes, and what is refused."""

from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from icl_transience import banks, sources
from icl_transience.banks import Bank
from icl_transience.spec import BankSpec, Imported, OneHot, StudyError

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


def build(path: Path, **changes) -> Bank:
    return banks.build(BankSpec(source="imported", seed=0, imported=replace(SECTION, **changes)), [path])


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
        sources.resolve("imported", asdict(SECTION) | changes, path.parent)
    for fragment in expected:
        assert fragment in str(error.value)


def test_a_file_that_is_no_hdf5_is_refused(path):
    path.write_bytes(b"no HDF5")
    with pytest.raises(StudyError, match=r"features\.h5: not an HDF5 file"):
        sources.resolve("imported", asdict(SECTION), path.parent)


def test_a_good_file_is_the_one_source_file_and_a_slash_in_front_says_nothing(path):
    for name in (SECTION.path, f"/{SECTION.path}"):
        _, paths = sources.resolve("imported", asdict(SECTION) | {"path": name}, path.parent)
        assert paths == [path]


# One-hot.


@pytest.mark.parametrize("value", [1.0, 3.5])
def test_one_hot_classes_are_a_coordinate_each_and_equally_far_apart(value):
    spec = BankSpec(source="onehot", seed=0, onehot=OneHot(classes=5, holdout_classes=2, value=value))
    bank = banks.build(spec)
    assert bank.shape == spec.shape
    assert bank.embeddings.dtype == np.float32
    np.testing.assert_array_equal(bank.embeddings[:, 0], value * np.eye(7))

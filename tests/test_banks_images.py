"""Banks of images: views made where they are looked up, images in folders or zips, and what is refused of them."""

import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from builders import TINY_RUN, changed
from PIL import Image
from pipeline import ROOT

from icl_transience.access.result_files import ResultFiles
from icl_transience.banks import bank as banks_bank
from icl_transience.banks import trained
from icl_transience.banks.bank import Bank, ImageBank
from icl_transience.planning import resources
from icl_transience.planning.plan import Plan
from icl_transience.report.export import write_export
from icl_transience.report.figures.bank_card import draw_bank_card
from icl_transience.sequences import draw, frozen, views
from icl_transience.specs.banks import BankSpec, Gaussian, Images, Omniglot
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.image_sources import Trained
from icl_transience.specs.runs import Export, Seed
from icl_transience.store import bank_file, checksums, hdf5, image_files
from icl_transience.store.layout import Paths
from icl_transience.study.sources import resolve

SECTION = Images(
    file="animals",
    classes=4,
    holdout_classes=2,
    exemplars=3,
    holdout_exemplars=1,
    small_classes="refused",
    variants=8,
    side=12,
    channels=1,
    mixed_sizes="resized",
    encoder="none",
    dim=144,
    scale="standard",
)
CLASSES = [f"class {letter}" for letter in "abcdefg"]


def picture(seed: int, side: int = 24, channels: int = 3) -> np.ndarray:
    """Uint8 [side, side, channels]: blocks of colour, unlike any other seed's and without any symmetry."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, channels), dtype=np.uint8)
    return coarse.repeat(side // 6, axis=0).repeat(side // 6, axis=1)


def write(folder: Path, per_class: int = 5, classes: list[str] = CLASSES) -> Path:
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            Image.fromarray(picture(100 * number + index)).save(folder / name / f"{index}.png")
    return folder


def zipped(folder: Path, path: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, f"{prefix}{file.relative_to(folder)}")
    return path


def encoded(path: Path, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(7)).save(file, **options)
    path.write_bytes(file.getvalue())
    return file.getvalue()


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_CACHE", str(tmp_path / "cache"))
    image_files.checked.cache_clear()


@pytest.fixture
def folder(tmp_path) -> Path:
    return write(tmp_path / "data" / "animals")


def spec_of(folder: Path, **changes) -> BankSpec:
    """What a study of the images in `folder` asks for."""
    image_files.checked.cache_clear()
    checksums.file_digest.cache_clear()
    asked = asdict(replace(SECTION, **changes)) | {"file": changes.get("file", folder.name)}
    parameters, paths = resolve.resolve("images", asked, folder.parent)
    if isinstance(parameters.get("trained"), dict):
        parameters["trained"] = Trained(**parameters["trained"])
    return BankSpec(parameters=Images(**parameters), seed=0, files=tuple(map(resolve.digest, paths)))


def build(folder: Path, **changes) -> Bank | ImageBank:
    return banks_bank.build(spec_of(folder, **changes), [folder])


# --- Views


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_is_its_quarter_turns_then_its_mirror_image(channels):
    images = torch.from_numpy(np.stack([picture(seed, 6, channels) for seed in range(6)]).reshape(3, 2, 6, 6, channels))
    classes = torch.arange(24).repeat_interleave(2).reshape(4, 12)
    exemplars = torch.arange(48).reshape(4, 12) % 2
    found = views.gather(images, 8, classes, exemplars)
    assert (found.dtype, found.shape) == (torch.float32, (4, 12, 6, 6, channels))
    for place in np.ndindex(4, 12):
        number, view = divmod(int(classes[place]), 8)
        expected = np.rot90(images[number, int(exemplars[place])].numpy(), view // 2)
        expected = np.fliplr(expected) if view % 2 else expected
        np.testing.assert_array_equal(found[place], expected / np.float32(255))


def test_without_views_a_class_is_as_it_is_stored():
    images = torch.from_numpy(np.stack([picture(seed, 6, 1) for seed in range(6)]).reshape(3, 2, 6, 6, 1))
    found = views.gather(images, 1, torch.tensor([2, 0]), torch.tensor([1, 0]))
    np.testing.assert_array_equal(found, torch.stack([images[2, 1], images[0, 0]]) / 255)


def every_image(bank: np.ndarray, spec: BankSpec) -> np.ndarray:
    """All classes and exemplars of a bank of images, float32 [classes, exemplars, width]."""
    assert spec.images
    classes, exemplars = torch.meshgrid(
        torch.arange(spec.shape.n_classes), torch.arange(spec.shape.n_exemplars), indexing="ij"
    )
    return views.gather(torch.from_numpy(bank), spec.images.views, classes, exemplars).flatten(2).numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_bank_of_pixels_is_what_is_looked_up_in_the_bank_of_images(folder, tmp_path, channels):
    pixels = build(folder, encoder="pixels", dim=144 * channels, channels=channels, scale="raw")
    spec = spec_of(folder, channels=channels)
    bank = banks_bank.build(spec, [folder])
    assert isinstance(bank, ImageBank)
    assert bank.images.shape == (6, 4, 12, 12, channels)
    banks_bank.save(bank, tmp_path / "bank.h5", spec)
    loaded = bank_file.load(tmp_path / "bank.h5", spec)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(every_image(loaded, spec), pixels.embeddings)
    for name, column in pixels.class_table.items():
        np.testing.assert_array_equal(bank.class_table[name], column)
    with h5py.File(tmp_path / "bank.h5") as file:
        assert set(file) == {"images", "quality", "contact", "classes", "exemplars"}


@pytest.mark.parametrize(("side", "apart"), [(105, 0), (28, 0.5 / 255)])
def test_omniglots_pixels_are_what_is_looked_up_in_its_images(omniglot_folder, side, apart):
    """Shares of ink are rounded to a level of 255; whole drawings are all ink or paper."""
    zips = ("images_background_small1.zip",)
    sizes = {"characters": 5, "holdout_characters": 2, "exemplars": 3, "holdout_exemplars": 1, "side": side}
    asked = Omniglot(zips=zips, **sizes, encoder="pixels", dim=side**2, scale="raw")
    files = [omniglot_folder / name for name in zips]
    pixels = banks_bank.build(BankSpec(parameters=asked, seed=1, files=("0",)), files)
    spec = BankSpec(parameters=replace(asked, encoder="none", scale="standard"), seed=1, files=("0",))
    bank = banks_bank.build(spec, files)
    assert isinstance(bank, ImageBank)
    assert bank.images.nbytes == 7 * 4 * side**2
    # A rounding of float32 more, where half a level is exact.
    np.testing.assert_allclose(every_image(bank.images, spec), pixels.embeddings, rtol=0, atol=apart * (1 + 1e-4))
    np.testing.assert_array_equal(bank.contact, pixels.contact)


# --- Images of a folder


def test_a_class_is_one_folder_and_none_is_on_both_sides(folder):
    bank = build(folder)
    names, files = bank.class_table["folder"], bank.exemplar_table["file"]
    assert len(set(names)) == 6
    assert not set(names[: bank.n_train_classes]) & set(names[bank.n_train_classes :])
    for name, of_class in zip(names, files, strict=True):
        assert {Path(file).parent.name for file in of_class} == {name}
        assert len(set(of_class)) == 4
    # Each image is the box average of the file that the table names.
    for number, place in [(0, 0), (5, 3), (3, 2)]:
        grey = np.asarray(Image.open(folder / files[8 * number, place]).convert("L")).astype(float)
        np.testing.assert_allclose(
            bank.images[number, place, ..., 0], grey.reshape(12, 2, 12, 2).mean(axis=(1, 3)), atol=0.5
        )


def test_another_seed_takes_other_images(folder):
    one, again, other = (
        banks_bank.build(replace(spec_of(folder), seed=seed), [folder]).exemplar_table["file"] for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_a_wide_image_is_its_largest_square_in_the_middle():
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = picture(3, 6)[0, 0]
    file = io.BytesIO()
    Image.fromarray(wide).save(file, "PNG")
    np.testing.assert_array_equal(image_files.pixels(file.getvalue(), "it", 4, 3), wide[:4, 6:10])


def test_a_camera_held_sideways_is_followed():
    """Orientation 6: the picture is to be turned by 90 degrees, clockwise, to be upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(picture(3)).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(image_files.pixels(file.getvalue(), "it", 24, 3), np.rot90(picture(3), -1))


def test_what_a_camera_said_and_nobody_can_read_says_nothing_of_the_pixels():
    file = io.BytesIO()
    Image.fromarray(picture(3)).save(file, "PNG", exif=b"Exif\x00\x00no such block")
    np.testing.assert_array_equal(image_files.pixels(file.getvalue(), "it", 24, 3), picture(3))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_fixed_encoder_takes_images(folder, tmp_path, channels):
    assert build(folder, encoder="pca", dim=5, channels=channels).embeddings.shape == (48, 4, 5)
    settings = Trained(epochs=1, batch_size=32, learning_rate=1e-3)
    spec = spec_of(folder, encoder="trained", dim=8, channels=channels, trained=settings)
    from icl_transience.banks import pictures

    model, accuracy = trained.train(pictures.training_images(spec, [folder]), 8, settings, 0)
    trained.save(model, accuracy, tmp_path / "encoder.h5", spec)
    bank = banks_bank.build(spec, [folder, tmp_path / "encoder.h5"])
    assert bank.embeddings.shape == (48, 4, 8)


def test_resnet18_sees_colours(folder, tmp_path, capsys):
    from icl_transience.banks import resnet

    torch.manual_seed(0)
    torch.save(resnet.resnet18().state_dict(), folder.parent / "weights.pth")
    asked = {"encoder": "resnet18", "dim": 512, "weights": "weights.pth", "variants": 1}
    grey, colour = (spec_of(folder, channels=channels, **asked) for channels in (1, 3))
    assert grey.pictures.side == colour.pictures.side == 224
    found = [banks_bank.build(spec, [folder, folder.parent / "weights.pth"]).embeddings for spec in (grey, colour)]
    assert found[0].shape == found[1].shape == (6, 4, 512)
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_larger_classes_are_cut_and_smaller_ones_left_out_where_the_study_says_so(folder):
    (folder / "class a" / "0.png").unlink()
    (folder / "class a" / "1.png").unlink()
    with pytest.raises(StudyError) as error:
        spec_of(folder)
    for fragment in ("1 of 7 folders have fewer than 4", "class a 3", "say `small_classes: left_out`"):
        assert fragment in str(error.value)
    bank = banks_bank.build(spec_of(folder, small_classes="left_out"), [folder])
    assert "class a" not in bank.class_table["folder"]
    with pytest.raises(StudyError, match=r"`holdout_classes` is 7, but .* has 6 folders with 4 images or more"):
        spec_of(folder, small_classes="left_out", classes=5)


# --- Identity


def test_moving_the_folder_or_what_else_lies_in_it_changes_nothing(folder, tmp_path):
    first = spec_of(folder).id
    moved = tmp_path / "elsewhere" / "animals"
    shutil.copytree(folder, moved)
    (moved / "README.txt").write_text("about these")
    (moved / ".hidden").mkdir()
    (moved / ".hidden" / "a.png").write_text("no image")
    (moved / "class a" / "._0.png").write_text("of macOS")
    (moved / "__MACOSX").mkdir()
    (moved / "__MACOSX" / "a.png").write_text("no image")
    (moved / "Thumbs.db").write_text("no image")
    assert spec_of(moved).id == first
    renamed = moved.rename(moved.parent / "beasts")
    assert spec_of(renamed).id == first
    (tmp_path / "link").symlink_to(renamed)
    assert spec_of(tmp_path / "link").id == first


def test_an_edited_renamed_or_added_image_makes_another_bank(folder):
    ids = [spec_of(folder).id]
    Image.fromarray(picture(999)).save(folder / "class b" / "0.png")
    ids.append(spec_of(folder).id)
    (folder / "class b" / "0.png").rename(folder / "class b" / "9.png")
    ids.append(spec_of(folder).id)
    shutil.copy(folder / "class b" / "9.png", folder / "class b" / "8.png")
    ids.append(spec_of(folder).id)
    assert len(set(ids)) == 4


def test_a_study_plans_another_bank_when_an_image_was_edited(folder, tmp_path):
    sizes = {"classes": 5, "holdout_classes": 2, "exemplars": 3, "holdout_exemplars": 1, "variants": 8}
    study = {"defaults": {"bank": {"source": "images", "images": {"file": "animals", **sizes}}}}
    study["experiments"] = {"a": {"question": "does it appear?"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))

    def planned() -> set[str]:
        image_files.checked.cache_clear()
        config = {"study": str(tmp_path / "mine.yaml"), "results": str(tmp_path / "results")}
        return set(Plan(config | {"images": str(folder.parent)}, ROOT).banks)

    first = planned()
    assert planned() == first
    Image.fromarray(picture(999)).save(folder / "class b" / "0.png")
    assert not planned() & first
    (folder / "class b" / "0.png").write_bytes(b"no image")
    with pytest.raises(StudyError, match=r"experiments\.a .*class b/0\.png is no readable PNG or JPEG image"):
        planned()


def test_a_zip_gives_the_images_of_the_folder_at_any_depth(folder):
    expected = build(folder).images
    for prefix in ("", "animals/", "./a/b/"):
        path = zipped(folder, folder.parent / "animals.zip", prefix)
        assert spec_of(path).files == (checksums.sha256(path),)
        np.testing.assert_array_equal(build(path).images, expected)


def test_images_are_read_once_while_nothing_changes(folder, monkeypatch):
    first = spec_of(folder)
    read = []
    monkeypatch.setattr(image_files._Folder, "read", lambda self, name: read.append(name))
    assert spec_of(folder) == first
    assert not read


def test_keys_of_other_encoders_make_no_other_bank(folder):
    assert spec_of(folder, dim=7, scale="raw", weights="a.pth").id == spec_of(folder).id


# --- What is refused


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says that it is `width` x `height`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def animated(path: Path) -> None:
    pictures = [Image.fromarray(picture(seed)) for seed in range(3)]
    pictures[0].save(path, "PNG", save_all=True, append_images=pictures[1:])


def of_16_bits(path: Path) -> None:
    Image.fromarray(picture(1)[..., 0].astype(np.uint16) * 256).save(path)


def of_16_bits_of_colour(path: Path) -> None:
    """Pillow would read it as 8 bits without a word."""
    content = bytearray(png_of(1, 1))
    content[24:26] = bytes([16, 2])
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def of_a_palette_with_alpha(path: Path) -> None:
    image = Image.fromarray(picture(1)).convert("P")
    image.save(path, transparency=image.getpixel((0, 0)))


def with_alpha(path: Path) -> None:
    image = Image.fromarray(picture(1)).convert("RGBA")
    image.putpixel((2, 2), (0, 0, 0, 0))
    image.save(path)


SPOILED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no image": ("0.png", lambda path: path.write_bytes(b"hello"), "no readable PNG or JPEG image"),
    "a GIF under another name": ("0.png", lambda path: encoded(path, format="GIF"), "no readable PNG or JPEG image"),
    "empty": ("0.png", lambda path: path.write_bytes(b""), "no readable PNG or JPEG image"),
    "half a PNG": ("0.png", lambda path: path.write_bytes(encoded(path, format="PNG")[:90]), "no readable PNG or JPEG"),
    "half a JPEG": (
        "9.jpg",
        lambda path: path.write_bytes(encoded(path, format="JPEG", quality=95)[:700]),
        "no readable PNG or JPEG",
    ),
    "animated": ("0.png", animated, "is animated: write one of its pictures as a PNG of its own"),
    "16 bits of grey": ("0.png", of_16_bits, "has 16 bits a channel, expected 8 at most: write it again"),
    "16 bits of colour": ("0.png", of_16_bits_of_colour, "has 16 bits a channel, expected 8 at most: write it again"),
    "a palette with alpha": (
        "0.png",
        of_a_palette_with_alpha,
        "is transparent in parts: write it again on a background",
    ),
    "alpha": ("0.png", with_alpha, "is transparent in parts: write it again on a background"),
    "CMYK": (
        "9.jpeg",
        lambda path: Image.fromarray(picture(1)).convert("CMYK").save(path),
        "has channels CMYK, expected shades of grey or RGB",
    ),
    "many pixels": (
        "0.png",
        lambda path: path.write_bytes(png_of(8000, 8000)),
        "too large to be decoded (8,000 x 8,000",
    ),
    "a bomb": ("0.png", lambda path: path.write_bytes(png_of(60_000, 60_000)), "too large to be decoded"),
}


@pytest.mark.parametrize(("name", "spoil", "message"), SPOILED.values(), ids=SPOILED)
@pytest.mark.parametrize("packed", [False, True])
def test_an_image_that_cannot_be_used_is_refused_while_planning_by_its_name(folder, packed, name, spoil, message):
    spoil(folder / "class c" / name)
    path = zipped(folder, folder.parent / "animals.zip") if packed else folder
    with pytest.raises(StudyError) as error:
        spec_of(path)
    assert f"{path}: class c/{name}" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_images_of_at_most_8_bits_that_hide_nothing_are_read(folder, mode):
    Image.fromarray(picture(1)).convert("RGBA").convert("L" if mode == "LA" else mode).convert(mode).save(
        folder / "class c" / "0.png"
    )
    spec_of(folder)


def in_one_folder(folder: Path) -> None:
    for name in CLASSES:
        for file in (folder / name).iterdir():
            file.rename(folder / f"{name} {file.name}")


def at_two_depths(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "class a").rename(folder / "more" / "class a")


def train_and_test(folder: Path) -> None:
    for part in ("train", "test"):
        write(folder / part, 4)
    for name in CLASSES:
        shutil.rmtree(folder / name)


LAYOUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder for a class": (in_one_folder, "do not lie in one folder for each class"),
    "at two depths": (at_two_depths, "do not lie in one folder for each class"),
    "training and test": (train_and_test, "do not lie in one folder for each class"),
    "no images": (
        lambda folder: [shutil.rmtree(folder / name) for name in CLASSES],
        "no images in it: expected a folder",
    ),
    "a link that leads nowhere": (
        lambda folder: (folder / "class a" / "x.png").symlink_to("gone.png"),
        "a link to a file that is not there",
    ),
    "a link to itself": (
        lambda folder: (folder / "class a" / "x.png").symlink_to("x.png"),
        "a link to a file that is not there (Too many levels of symbolic links)",
    ),
    "a name that is no text": (
        lambda folder: os.rename(folder / "class a" / "0.png", os.fsencode(folder) + b"/class a/\xff.png"),
        "is not UTF-8",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_folder_that_has_no_folder_for_each_class_is_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(StudyError) as error:
        spec_of(folder)
    assert str(folder) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["../class a/x.png", "/class a/x.png", "C:/class a/x.png", "class a/../../x.png"])
def test_a_zip_whose_files_lead_out_of_it_is_refused(folder, name):
    path = zipped(folder, folder.parent / "animals.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, (folder / "class a" / "0.png").read_bytes())
    with pytest.raises(StudyError, match=r"leads out of the zip .*: write the zip again from the folder itself"):
        spec_of(path)


def test_a_zip_that_says_a_file_twice_or_has_links_or_is_encrypted_is_refused(folder):
    path = zipped(folder, folder.parent / "animals.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("./class a/0.png", b"other")
    with pytest.raises(StudyError, match=r"has two files class a/0\.png"):
        spec_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("class a/0.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(StudyError, match="leads out of the zip"):
        spec_of(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StudyError, match="not a readable zip"):
        spec_of(path)


def test_a_zip_of_a_file_that_unpacks_to_gigabytes_is_refused_unread(folder, monkeypatch):
    monkeypatch.setattr(image_files, "_LARGEST_FILE", 5000)
    with zipfile.ZipFile(folder.parent / "animals.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/0.png", b"\0" * 1_000_000)
    with pytest.raises(StudyError, match=r"a/0\.png has 1,000,000 bytes, at most 5,000 are read"):
        spec_of(folder.parent / "animals.zip")


def test_mixed_sizes_are_refused_where_the_study_says_so_and_told_by_two_files(folder):
    Image.fromarray(picture(1, 36)).save(folder / "class b" / "2.png")
    spec_of(folder)
    with pytest.raises(StudyError) as error:
        spec_of(folder, mixed_sizes="refused")
    for fragment in ("class a/0.png 24 x 24", "class b/2.png 36 x 36", "say `resized`"):
        assert fragment in str(error.value)


def test_a_folder_that_is_not_there_is_told_with_what_is(folder):
    with pytest.raises(StudyError, match=r"names animal, which is not in .*did you mean `animals`"):
        spec_of(folder, file="animal")
    with pytest.raises(StudyError, match="leads out of"):
        spec_of(folder, file="../data/animals")


# --- Sequences, exports, cards, sizes


@pytest.fixture
def made(folder, tmp_path) -> tuple[SequenceSet, Paths]:
    """A bank of images and a set of sequences on it, in a results folder."""
    spec, paths = spec_of(folder, channels=3), Paths(str(tmp_path / "results"), "")
    bank = banks_bank.build(spec, [folder])
    banks_bank.save(bank, Path(paths.bank(spec.id)), spec)
    named = SequenceSet(bank=spec, recipe=TINY_RUN.recipe, evaluators=("train", "icl_holdout"), sequences=20, seed=0)
    frozen.write_sequences(Path(paths.sequences(named.id)), named, bank.images)
    return named, paths


def test_sequences_of_images_are_indices_and_the_same_as_of_embeddings_of_equal_sizes(made):
    named, paths = made
    shape = named.bank.shape
    twin = Gaussian(classes=32, holdout_classes=16, exemplars=3, holdout_exemplars=1, dim=shape.width, noise=0.5)
    assert replace(twin.shape) == shape
    with h5py.File(paths.sequences(named.id)) as file:
        for name in named.evaluators:
            assert set(file[name]) == {"classes", "exemplars", "labels"}
    with h5py.File(paths.sequences(named.id)) as file:
        recipe = named.recipe
        drawn = draw.draw(recipe, twin.shape, 0, "evaluator/train", torch.arange(20))
        for part in ("classes", "exemplars", "labels"):
            np.testing.assert_array_equal(file[f"train/{part}"][()], getattr(drawn, part))
    assert Path(paths.sequences(named.id)).stat().st_size < 100_000


def test_results_in_python_have_the_images_of_sequences(made):
    named, paths = made
    files = ResultFiles(Path(paths.root))
    bank, sequences = files.bank(named.bank), files.sequences(named.id, "icl_holdout")
    assert bank.dtype == np.uint8
    assert sequences.examples.shape == (20, 5, 12, 12, 3)
    number, view = divmod(int(sequences.classes[3, 2]), 8)
    expected = np.rot90(bank[number, sequences.exemplars[3, 2]], view // 2)
    expected = expected[:, ::-1] if view % 2 else expected
    np.testing.assert_array_equal(sequences.examples[3, 2], expected / np.float32(255))


def test_an_export_has_the_images_themselves(made, tmp_path):
    named, paths = made
    run = changed(TINY_RUN, {"bank": named.bank})
    export = Export(run=run, seed=Seed(init=0, data=0), sequence_set=named, training_sequences=9)
    write_export(
        tmp_path / "a.h5",
        tmp_path / "a.bank.h5",
        export,
        Path(paths.bank(named.bank.id)),
        Path(paths.sequences(named.id)),
    )
    sequences = ResultFiles(Path(paths.root)).sequences(named.id, "icl_holdout")
    with h5py.File(tmp_path / "a.h5") as file, h5py.File(tmp_path / "a.bank.h5") as bank:
        np.testing.assert_array_equal(file["icl_holdout/examples"], sequences.examples.reshape(20, 5, -1))
        assert set(file["icl_holdout"]) == {"examples", "labels"}
        assert file["train_sequences/examples"].shape == (9, 5, 432)
        array = bank["embeddings"][()]
        assert bank.attrs["image"].tolist() == [12, 12, 3]
        np.testing.assert_array_equal(file["icl_holdout/examples"][()], array[sequences.classes, sequences.exemplars])


def test_the_card_of_a_bank_of_images_measures_its_pixels_and_shows_them(made, folder, tmp_path):
    named, paths = made
    draw_bank_card(Path(paths.bank(named.bank.id)), None, tmp_path / "card.svg", tmp_path / "card.png")
    assert "12 × 12 × 3 pixels" in (tmp_path / "card.svg").read_text()
    # Of grey pixels the card is that of the bank of pixels.
    cards = []
    for encoder in ("none", "pixels"):
        spec = spec_of(folder, encoder=encoder)
        path = tmp_path / f"{encoder}.h5"
        banks_bank.save(banks_bank.build(spec, [folder]), path, spec)
        with hdf5.reading(path, "bank", spec.id) as file:
            cards.append(dict(file["quality"].attrs))
    for name in ("nearest_exemplar", "nearest_centroid", "within_over_between", "effective_dim"):
        assert cards[0][name] == pytest.approx(cards[1][name], rel=1e-4, nan_ok=True)


def test_all_of_omniglot_takes_less_than_0_4_gigabytes_in_the_file_and_in_memory():
    whole = Omniglot(
        zips=("images_background.zip", "images_evaluation.zip"),
        characters=1600,
        holdout_characters=23,
        exemplars=20,
        holdout_exemplars=0,
        side=105,
        encoder="none",
        dim=105**2,
    )
    spec = BankSpec(parameters=whole, seed=0)
    assert spec.shape.n_classes == 12_984
    assert resources.bank_bytes(spec) == 1623 * 20 * 105**2 < 4e8
    assert json.loads(spec.json)["omniglot"]["encoder"] == "none"
    named = SequenceSet(bank=spec, recipe=TINY_RUN.recipe, evaluators=("icl", "iwl"), sequences=1000, seed=0)
    assert resources.sequences_bytes(named) == 2 * 1000 * 5 * 12

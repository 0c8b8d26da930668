"""Residual networks and what they make of drawings; the layouts of classes, from the pixels."""

import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_banks import CHARACTERS, build, strokes
from torch.nn import functional

from icl_transience.banks import bank as banks_bank
from icl_transience.banks import omniglot, resnet, trained
from icl_transience.banks import pictures as banks_pictures
from icl_transience.banks.bank import contact_sheet
from icl_transience.specs.errors import StudyError
from icl_transience.specs.image_sources import Trained
from icl_transience.store import hdf5

# --- ResNet-18


def torchvision_shapes() -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of torchvision's resnet18, written out by its rules."""

    def norm(name: str, width: int) -> dict:
        return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}

    shapes = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    inner = 64
    for layer, width in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, inner, 3, 3)} | norm(f"{name}.bn1", width)
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3)} | norm(f"{name}.bn2", width)
            if inner != width:
                shapes |= {f"{name}.downsample.0.weight": (width, inner, 1, 1)} | norm(f"{name}.downsample.1", width)
            inner = width
    return shapes | {"fc.weight": (1000, 512), "fc.bias": (1000,)}


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in torchvision_shapes().items():
        drawn = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            drawn = drawn * math.sqrt(2 / math.prod(shape[1:]))
        weights[name] = 0.5 + drawn.abs() if name.endswith(("running_var", "bn1.weight")) else drawn
    return weights


def reference(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """ResNet-18 as its paper and torchvision's names have it, on its own, without a module."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    x = functional.conv2d(images, weights["conv1.weight"], stride=2, padding=3)
    x = functional.max_pool2d(functional.relu(norm(x, "bn1")), 3, 2, 1)
    for layer in range(1, 5):
        for block in (0, 1):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = functional.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = functional.relu(norm(y, f"{name}.bn1"))
            y = norm(functional.conv2d(y, weights[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if stride == 2:
                x = norm(functional.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=2), f"{name}.downsample.1")
            x = functional.relu(x + y)
    return x.flatten(2).mean(dim=2)


def test_resnet18_has_torchvisions_parameters():
    state = resnet.resnet18().state_dict()
    found = {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert found == torchvision_shapes()
    # As published: 11,689,512 parameters.
    assert sum(p.numel() for p in resnet.resnet18().parameters()) == 11_689_512


def test_resnet18_computes_what_its_paper_says(tmp_path):
    weights = random_weights()
    torch.save(weights, tmp_path / "weights.pth")
    model = resnet.load_resnet18(tmp_path / "weights.pth").double()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = reference({name: value.double() for name, value in weights.items()}, images)
    with torch.inference_mode():
        found = model(images)
    assert found.shape == (2, 512)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


class Malice:
    def __reduce__(self):
        return Path.touch, (Path("was-here"),)


def test_a_file_of_weights_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": Malice()}, path)
    with pytest.raises(StudyError, match=r"weights\.pth: not weights that PyTorch reads"):
        resnet.load_resnet18(path)
    assert not (tmp_path / "was-here").exists()
    with path.open("rb") as file:  # it would have, with less care
        assert file.read(2) == b"PK"
    pickle.loads(pickle.dumps(Malice()))
    assert (tmp_path / "was-here").exists()


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(random_weights() | {"layer4.1.conv2.weight": torch.zeros(512, 512, 1, 1)}, path)
    with pytest.raises(StudyError, match=r"1 of 102 tensors are missing .* layer4\.1\.conv2\.weight \[512, 512"):
        resnet.load_resnet18(path)
    torch.save([torch.zeros(3)], path)
    with pytest.raises(StudyError, match="102 of 102 tensors are missing"):
        resnet.load_resnet18(path)
    path.write_bytes(b"404: not found")
    with pytest.raises(StudyError, match="not weights that PyTorch reads"):
        resnet.load_resnet18(path)


# --- Banks


SIZES = {"characters": 2, "holdout_characters": 1, "exemplars": 3, "holdout_exemplars": 1}


@pytest.fixture(scope="module")
def zip_path(tmp_path_factory) -> Path:
    """Where `pixel_bank` writes the zip that it is made from."""
    return tmp_path_factory.mktemp("pixels") / "images.zip"


@pytest.fixture(scope="module")
def pixel_bank(zip_path):
    """The drawings themselves, at 105 x 105 as whole numbers: what other banks of these sizes are made from."""
    return build(zip_path.parent, strokes(CHARACTERS), **SIZES, side=105, encoder="pixels", dim=105 * 105, scale="raw")


def of_tables(built) -> np.ndarray:
    """bool [classes, exemplars, 105, 105]: the drawing that the bank's tables name for each exemplar, turned so."""
    table, numbers, pictures = built.bank.class_table, built.bank.exemplar_table["drawing"], []
    for name, rotation, flip in zip(table["character"], table["rotation"], table["flip"], strict=True):
        alphabet, number = name.split("/")
        turned = np.rot90(built.drawings[alphabet, int(number)][numbers - 1], rotation, axes=(1, 2))
        pictures.append(turned[..., ::-1] if flip else turned)
    return np.stack(pictures)


def test_class_is_character_rotation_and_flip_and_exemplar_is_drawing_to_the_pixel(pixel_bank):
    found = pixel_bank.bank.embeddings.reshape(24, 4, 105, 105)
    np.testing.assert_array_equal(found, of_tables(pixel_bank))
    # No two exemplars are one picture, so each can be in no other place.
    assert len(np.unique(found.reshape(96, -1), axis=0)) == 96
    table = pixel_bank.bank.class_table
    for number in range(24):
        assert (table["rotation"][number], table["flip"][number]) == (number % 8 // 2, number % 2)
        assert table["character"][number] == table["character"][number // 8 * 8]
    assert len(set(table["character"].tolist())) == 3


def test_with_one_variant_a_class_is_a_character_as_it_was_drawn(tmp_path, pixel_bank, zip_path):
    section = replace(pixel_bank.spec.parameters, variants=1)
    upright = banks_bank.build(replace(pixel_bank.spec, parameters=section), [zip_path])
    assert (section.shape.n_train_classes, section.shape.n_classes) == (2, 3)
    assert upright.n_train_classes == 2
    np.testing.assert_array_equal(upright.embeddings, pixel_bank.bank.embeddings[::8])
    np.testing.assert_array_equal(upright.class_table["character"], pixel_bank.bank.class_table["character"][::8])
    assert not upright.class_table["rotation"].any()
    assert not upright.class_table["flip"].any()
    images = banks_pictures.training_images(replace(pixel_bank.spec, parameters=section), [zip_path])
    np.testing.assert_array_equal(images.reshape(2, 3, -1), upright.embeddings[:2, :3])
    ours, of_all = (contact_sheet(shape)[0].tolist() for shape in (section.shape, pixel_bank.spec.shape))
    shown = [row for row in ours if 8 * row in of_all]
    assert shown
    for row in shown:
        of_row = pixel_bank.bank.contact[of_all.index(8 * row)]
        np.testing.assert_array_equal(upright.contact[ours.index(row)], of_row)


def test_pixels_at_the_standard_scale_are_centred_and_of_mean_square_1(tmp_path):
    built = build(tmp_path, strokes(CHARACTERS), **SIZES, side=7, encoder="pixels", dim=49)
    trained_on = built.bank.embeddings[:16, :3].reshape(-1, 49).astype(np.float64)
    np.testing.assert_allclose(trained_on.mean(axis=0), 0, atol=1e-5)
    assert np.mean(trained_on**2) == pytest.approx(1, rel=1e-5)


def released(folder: Path, **changes):
    sizes = {"characters": 5, "holdout_characters": 1, "exemplars": 20, "holdout_exemplars": 0}
    return build(
        folder,
        strokes(CHARACTERS),
        **(sizes | changes),
        side=105,
        encoder="pixels",
        dim=105 * 105,
        scale="raw",
        layout="released",
    )


def test_the_released_layout_is_the_released_codes_index_mix_up_to_the_pixel(tmp_path):
    built = released(tmp_path)
    corrected = build(
        tmp_path,
        strokes(CHARACTERS),
        characters=6,
        holdout_characters=0,
        exemplars=20,
        holdout_exemplars=0,
        side=105,
        encoder="pixels",
        dim=105 * 105,
        scale="raw",
    )
    # The released code's list of pictures: index // 8 is the picture of the data set, 20 a character, index % 8 the
    # orientation. Its "class" is every twentieth-to-twentieth of that list.
    by_character = corrected.bank.embeddings.reshape(6, 8, 20, -1)
    listed = by_character.transpose(0, 2, 1, 3).reshape(6 * 20 * 8, -1)
    classes = listed.reshape(48, 20, -1)
    # It takes class variant * 6 + character for character `character`: five to train on, one held out.
    train = [variant * 6 + character for variant in range(8) for character in range(5)]
    holdout = [variant * 6 + 5 for variant in range(8)]
    np.testing.assert_array_equal(built.bank.embeddings, classes[train + holdout])
    assert built.bank.n_train_classes == 40


def test_the_released_layout_trains_on_held_out_characters_and_ours_does_not(tmp_path, pixel_bank):
    names = released(tmp_path).bank.class_table["character"]
    assert set(names[40:]) & set(names[:40])
    ours = pixel_bank.bank.class_table["character"]
    assert not set(ours[16:]) & set(ours[:16])


def test_the_tables_of_the_released_layout_say_which_picture_an_exemplar_is(tmp_path):
    built = released(tmp_path, exemplars=7, holdout_exemplars=2)
    table, places = built.bank.class_table, built.bank.exemplar_table
    assert built.bank.embeddings.shape[:2] == places["drawing"].shape == (48, 9)
    for number, place in [(0, 0), (17, 4), (39, 8), (47, 2)]:
        alphabet, character = table["character"][number].split("/")
        drawing = built.drawings[alphabet, int(character)][places["drawing"][number, place] - 1]
        turned = np.rot90(drawing, places["rotation"][number, place])
        turned = turned[:, ::-1] if places["flip"][number, place] else turned
        np.testing.assert_array_equal(built.bank.embeddings[number, place].reshape(105, 105), turned)


def test_of_1623_characters_the_released_layouts_first_1623_classes_are_203():
    section = replace(released_section(), characters=1600, holdout_characters=23, exemplars=20, holdout_exemplars=0)
    placed = omniglot.layout(section)
    assert len(placed.stored) == 12_984
    # What the released code takes for the unturned characters: its first 1,623 classes, 23 of them held out.
    unturned = np.concatenate([placed.stored[:1600], placed.stored[12_800 : 12_800 + 23]])
    assert len(set(unturned.tolist())) == 203
    assert set(placed.stored[12_800:].tolist()) & set(placed.stored[:12_800].tolist())


def released_section():
    from builders import OMNIGLOT_BANK

    return replace(OMNIGLOT_BANK.parameters, layout="released")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_are_codes_are_refused(tmp_path, dtype):
    weights = random_weights()
    weights["conv1.weight"] = weights["conv1.weight"].to(dtype)
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(StudyError, match=rf"conv1\.weight and 0 more .* are not floating-point numbers \({dtype}\)"):
        resnet.load_resnet18(tmp_path / "weights.pth")


def test_resnet18_embeds_whole_drawings_at_224_with_imagenets_statistics(tmp_path, pixel_bank, zip_path, capsys):
    weights = random_weights()
    torch.save(weights, tmp_path / "weights.pth")
    section = replace(pixel_bank.spec.parameters, encoder="resnet18", dim=512, weights="weights.pth")
    spec = replace(pixel_bank.spec, parameters=section)
    bank = banks_bank.build(spec, [zip_path, tmp_path / "weights.pth"])
    assert bank.embeddings.shape == (24, 4, 512)
    assert "96 of 96 seen" in capsys.readouterr().err
    upright = banks_bank.build(
        replace(spec, parameters=replace(section, variants=1)), [zip_path, tmp_path / "weights.pth"]
    )
    assert "12 of 12 seen" in capsys.readouterr().err
    np.testing.assert_array_equal(upright.embeddings, bank.embeddings[::8])
    pictures = of_tables(pixel_bank)
    for number, place in [(0, 0), (11, 3), (23, 1)]:
        grey = Image.fromarray(np.where(pictures[number, place], 0, 255).astype(np.uint8))
        image = np.asarray(grey.resize((224, 224), Image.Resampling.BILINEAR)) / 255
        channels = [(image - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
        expected = reference(weights, torch.tensor(np.stack(channels)[None], dtype=torch.float32))[0]
        # float32 through 18 layers, whose order of sums differs.
        np.testing.assert_allclose(
            bank.embeddings[number, place], expected, rtol=1e-3, atol=1e-3 * expected.abs().max()
        )


# --- An encoder trained here

SETTINGS = Trained(epochs=12, batch_size=16, learning_rate=0.01)


def pictures(seed: int = 0, classes: int = 12) -> np.ndarray:
    """float32 [classes, 10, 8, 8, 1]: a pattern a class, each seen through noise."""
    generator = np.random.default_rng(seed)
    patterns = generator.random((classes, 1, 8, 8, 1)) < 0.3
    return np.abs(patterns - 0.3 * generator.random((classes, 10, 8, 8, 1))).astype(np.float32)


def test_a_trained_encoder_learns_to_tell_the_training_classes_apart():
    _, accuracy = trained.train(pictures(), 16, SETTINGS, seed=0)
    assert accuracy > 0.9
    # Labels that say nothing about the pictures: one epoch of these is chance, 1/12.
    shuffled = np.random.default_rng(1).permutation(pictures().reshape(120, 64)).reshape(12, 10, 8, 8, 1)
    _, chance = trained.train(shuffled, 16, replace(SETTINGS, epochs=1), seed=0)
    assert chance < 0.3


def test_its_embeddings_are_the_layer_before_the_logits():
    model, _ = trained.train(pictures(), 16, replace(SETTINGS, epochs=2), seed=0)
    embedded = trained.embed(model, pictures())
    assert embedded.shape == (12, 10, 16)
    assert embedded.dtype == np.float32
    one = torch.from_numpy(pictures()[3, 4]).reshape(1, 1, 8, 8)
    with torch.inference_mode():
        alone = model(trained.normalised(one))[0]
    np.testing.assert_allclose(embedded[3, 4], alone, atol=1e-5)
    assert model.fc.in_features == 16


def test_a_trained_encoder_is_a_function_of_its_seed():
    short = replace(SETTINGS, epochs=1)
    one, again, other = (trained.embed(trained.train(pictures(), 16, short, seed)[0], pictures()) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_what_an_encoder_learns_from_is_the_training_part_of_the_bank(pixel_bank, zip_path):
    images = banks_pictures.training_images(pixel_bank.spec, [zip_path])
    np.testing.assert_array_equal(images[..., 0], of_tables(pixel_bank)[:16, :3])


def test_a_bank_of_a_trained_encoder_is_what_its_file_embeds(pixel_bank, zip_path, tmp_path):
    section = replace(
        pixel_bank.spec.parameters, side=21, encoder="trained", dim=8, trained=replace(SETTINGS, epochs=1)
    )
    spec = replace(pixel_bank.spec, parameters=section)
    model, accuracy = trained.train(banks_pictures.training_images(spec, [zip_path]), 8, section.trained, spec.seed)
    trained.save(model, accuracy, tmp_path / "encoder.h5", spec)
    bank = banks_bank.build(spec, [zip_path, tmp_path / "encoder.h5"])
    small = of_tables(pixel_bank).reshape(24, 4, 21, 5, 21, 5).mean(axis=(3, 5)).astype(np.float32)
    np.testing.assert_allclose(bank.embeddings, trained.embed(model, small[..., None]), atol=1e-5)
    with pytest.raises(hdf5.StoreError, match="identity"):
        trained.load(tmp_path / "encoder.h5", replace(spec, seed=9))

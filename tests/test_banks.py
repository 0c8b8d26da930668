"""Where exemplars come from: Gaussian classes, and drawings of characters."""

import io
import math
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icl_transience.banks import bank as banks_bank
from icl_transience.banks import encoders
from icl_transience.banks import gaussian as gaussian_bank
from icl_transience.banks.bank import Bank, checked, equal_rows
from icl_transience.banks.drawings import Character, downsample, read_drawings, rotate_and_flip
from icl_transience.specs.banks import BankSpec, Gaussian, Manifold, Omniglot
from icl_transience.specs.errors import StudyError
from icl_transience.store import bank_file, hdf5
from icl_transience.study.sources import resolve

# --- Gaussian classes, straight and on a curved manifold

SIZES = {"classes": 300, "holdout_classes": 20, "exemplars": 20, "holdout_exemplars": 5, "dim": 16, "noise": 0.5}


def gaussian(seed: int = 0, **changes) -> tuple[BankSpec, Bank]:
    spec = BankSpec(seed=seed, parameters=Gaussian(**(SIZES | changes)))
    return spec, banks_bank.build(spec)


def manifold(seed: int = 0, **changes) -> tuple[BankSpec, Bank]:
    section = Manifold(**(SIZES | {"latent_dim": 16, "curvature": 1.0} | changes))
    spec = BankSpec(seed=seed, parameters=section)
    return spec, banks_bank.build(spec)


both = pytest.mark.parametrize("source", [gaussian, manifold])


@both
def test_a_bank_holds_as_many_classes_and_exemplars_as_declared_training_first(source):
    spec, bank = source()
    assert bank.embeddings.shape == (320, 25, 16)
    assert bank.embeddings.dtype == np.float32
    assert bank.shape == spec.shape
    assert (bank.shape.class_range("train"), bank.shape.class_range("holdout")) == ((0, 300), (300, 20))
    assert (bank.shape.exemplar_range("train"), bank.shape.exemplar_range("holdout")) == ((0, 20), (20, 5))


@both
def test_a_bank_is_a_function_of_its_seed(source):
    (_, one), (_, again), (_, other) = source(seed=3), source(seed=3), source(seed=4)
    np.testing.assert_array_equal(one.embeddings, again.embeddings)
    # What two seeds had in common would correlate to order 1; chance alone, over 320 classes, to about 0.02.
    assert abs(np.corrcoef(one.embeddings.ravel(), other.embeddings.ravel())[0, 1]) < 0.1


@both
def test_held_out_exemplars_are_other_exemplars_of_their_own_class(source):
    _, bank = source(noise=0.25, dim=64)
    centroids = bank.embeddings[:, :20].mean(axis=1)
    distances = np.linalg.norm(bank.embeddings[:, 20:, None] - centroids, axis=3)
    assert (distances.argmin(axis=2) == np.arange(320)[:, None]).mean() > 0.999
    assert len(np.unique(bank.embeddings.reshape(-1, 64), axis=0)) == 320 * 25


@both
def test_without_noise_a_class_is_one_point(source):
    _, bank = source(noise=0.0)
    assert (bank.embeddings == bank.embeddings[:, :1]).all()
    assert len(np.unique(bank.embeddings[:, 0], axis=0)) == 320


@pytest.mark.parametrize("noise", [0.0, 0.25, 1.0, 3.0])
def test_every_coordinate_has_zero_mean_and_unit_variance_and_is_uncorrelated_with_the_others(noise):
    n = 4000
    _, bank = gaussian(classes=n, holdout_classes=0, exemplars=2, holdout_exemplars=0, dim=8, noise=noise)
    # Exemplars of a class are dependent, so count n independent draws: five standard errors of a mean, of a
    # variance (sqrt(2 / n)) and of a correlation.
    flat = bank.embeddings.reshape(-1, 8).astype(np.float64)
    assert np.abs(flat.mean(axis=0)).max() < 5 / math.sqrt(n)
    assert np.abs(flat.var(axis=0) - 1).max() < 5 * math.sqrt(2 / n)
    assert np.abs(np.corrcoef(flat.T) - np.eye(8)).max() < 5 / math.sqrt(n)


@pytest.mark.parametrize("noise", [0.25, 0.5, 1.0])
def test_the_variance_within_classes_is_noise_squared_times_that_between(noise):
    n_classes, n_exemplars, dim = 500, 20, 16
    _, bank = gaussian(classes=n_classes, holdout_classes=0, exemplars=n_exemplars, holdout_exemplars=0, noise=noise)
    x = bank.embeddings.astype(np.float64)
    within = x.var(axis=1, ddof=1).mean()
    between = x.mean(axis=1).var(axis=0, ddof=1).mean() - within / n_exemplars
    # Both are means of squares of normal numbers, of n degrees of freedom: relative error sqrt(2 / n) each. The
    # class means that `between` is made of also hold noise, (1 + noise^2 / n_exemplars) of it.
    error = math.sqrt(2 / (n_classes * (n_exemplars - 1) * dim))
    error = math.hypot(error, math.sqrt(2 / ((n_classes - 1) * dim)) * (1 + noise**2 / n_exemplars))
    assert within / between == pytest.approx(noise**2, rel=5 * error)


@pytest.mark.parametrize(("latent_dim", "curvature", "noise"), [(4, 1.0, 0.5), (8, 1.5, 0.5), (8, 0.1, 2.0)])
def test_on_a_manifold_two_exemplars_are_as_similar_as_a_gaussian_kernel_of_their_latents(latent_dim, curvature, noise):
    dim = 8000
    sizes = {"classes": 20, "holdout_classes": 0, "exemplars": 3, "holdout_exemplars": 0}
    spec, bank = manifold(dim=dim, latent_dim=latent_dim, curvature=curvature, noise=noise, **sizes)
    latents = gaussian_bank.exemplars(spec.seed, "manifold", spec.shape, latent_dim, noise).reshape(60, latent_dim)
    embeddings = bank.embeddings.reshape(60, dim).astype(np.float64)
    squares = ((latents[:, None] - latents) ** 2).sum(axis=2)
    # Rahimi & Recht 2007. A product of two features has variance 3/2 at most; five standard errors of `dim` of them.
    kernel = np.exp(-(curvature**2) * squares / (2 * latent_dim))
    np.testing.assert_allclose(embeddings @ embeddings.T / dim, kernel, atol=5 * math.sqrt(1.5 / dim))


def test_another_seed_sees_a_manifold_from_other_directions_and_at_other_phases():
    # Nearly straight, a coordinate is sqrt(2) (cos b - w.z sin b): its mean tells b, its correlations tell w.
    one, other = (manifold(seed, curvature=0.1, dim=64)[1].embeddings.reshape(-1, 64) for seed in (0, 1))
    pairs = np.triu_indices(64, k=1)
    correlations = [np.abs(np.corrcoef(bank.T))[pairs] for bank in (one, other)]
    # By chance about 1 / sqrt(64) for the means, less for the 2,016 pairs; order 1 if either were shared.
    assert abs(np.corrcoef(one.mean(axis=0), other.mean(axis=0))[0, 1]) < 5 / math.sqrt(64)
    assert abs(np.corrcoef(*correlations)[0, 1]) < 5 / math.sqrt(64)


def test_straight_and_curved_classes_of_one_seed_are_drawn_independently():
    (spec, bank), sizes = gaussian(), (320, 25, 16)
    latents = gaussian_bank.exemplars(spec.seed, "manifold", spec.shape, 16, 0.5)
    assert latents.shape == sizes
    assert abs(np.corrcoef(bank.embeddings.ravel(), latents.ravel())[0, 1]) < 5 / math.sqrt(320 * 16)


def test_exemplars_of_different_classes_have_nothing_in_common():
    _, bank = gaussian(classes=30, holdout_classes=0, holdout_exemplars=0, dim=400, noise=1.0)
    cosines = np.corrcoef(bank.embeddings.reshape(600, 400)).reshape(30, 20, 30, 20)
    # A centre or a noise shared by two exemplars gives 0.5; the largest of 180,000 by chance is below 6 / sqrt(400).
    different = ~np.eye(30, dtype=bool)
    assert np.abs(cosines.swapaxes(1, 2)[different]).max() < 0.3


def test_a_bank_comes_back_from_its_file_bit_for_bit_and_only_as_what_it_is(tmp_path):
    spec, bank = gaussian(dim=4)
    banks_bank.save(bank, tmp_path / "bank.h5", spec)
    np.testing.assert_array_equal(bank_file.load(tmp_path / "bank.h5", spec), bank.embeddings)
    with pytest.raises(hdf5.StoreError, match="identity"):
        bank_file.load(tmp_path / "bank.h5", replace(spec, seed=1))


def test_a_bank_of_another_shape_than_declared_is_not_written(tmp_path):
    spec, bank = gaussian(dim=4)
    with pytest.raises(AssertionError, match="the study asked for"):
        banks_bank.save(replace(bank, n_train_classes=299), tmp_path / "bank.h5", spec)
    assert not list(tmp_path.iterdir())


# --- Principal components


def images(seed: int = 0, *, classes: int = 60, exemplars: int = 5, pixels: int = 12) -> np.ndarray:
    """Correlated pixels of unequal variance, so that no two components are equally strong."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((pixels, pixels)) * np.linspace(0.3, 2, pixels)
    drawn = generator.standard_normal((classes, exemplars, pixels))
    return (drawn @ mixing + generator.uniform(0, 3, pixels)).astype(np.float32)


def components(encode: encoders.Encoder, pixels: int) -> np.ndarray:
    """[pixels, dim]: what the encoder multiplies centred images with, read off its answers to unit vectors."""
    return encode(np.eye(pixels)).astype(np.float64) - encode(np.zeros(pixels))


@pytest.mark.parametrize("dim", [1, 3, 12])
def test_the_encoder_projects_on_the_leading_principal_components(dim):
    training = images()
    flat = training.reshape(-1, 12).astype(np.float64)
    _, singular, rows = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    expected = (flat - flat.mean(axis=0)) @ rows[:dim].T
    # One scale for all: the mean square of the training images' coordinates becomes 1.
    expected /= math.sqrt((singular[:dim] ** 2).sum() / expected.size)
    signs = np.sign(rows[np.arange(dim), np.abs(rows[:dim]).argmax(axis=1)])
    encoded = encoders.fit_pca(training, dim)(training)
    assert encoded.shape == (60, 5, dim)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded.reshape(-1, dim), expected * signs, atol=1e-5)


def test_coordinates_have_mean_square_1_over_the_training_images_and_keep_the_spectrum():
    training = images()
    encoded = encoders.fit_pca(training, 8)(training).reshape(-1, 8).astype(np.float64)
    assert np.mean(encoded**2) == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(encoded.mean(axis=0), 0, atol=1e-5)
    spectrum = np.linalg.eigvalsh(np.cov(training.reshape(-1, 12).astype(np.float64).T))[::-1][:8]
    covariance = np.cov(encoded.T)
    np.testing.assert_allclose(np.diag(covariance) / covariance[0, 0], spectrum / spectrum[0], rtol=1e-5)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-5)


def test_the_largest_entry_of_every_component_is_positive():
    for seed in range(5):
        found = components(encoders.fit_pca(images(seed), 12), 12)
        assert (found[np.abs(found).argmax(axis=0), np.arange(12)] > 0).all()


def test_other_images_are_centred_and_scaled_as_the_training_images():
    training, others = images(0), images(1)
    together = np.concatenate([training, others])
    encode = encoders.fit_pca(training, 12)
    # All components and one scale: distances are those of the pixels, times one number, whoever is measured.
    pixels, encoded = (x.reshape(-1, 12).astype(np.float64) for x in (together, encode(together)))
    ratio = np.linalg.norm(encoded[1:] - encoded[0], axis=1) / np.linalg.norm(pixels[1:] - pixels[0], axis=1)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    np.testing.assert_allclose(encode(training.reshape(-1, 12).mean(axis=0)), 0, atol=1e-5)


def test_the_encoder_of_images_in_all_orientations_does_not_depend_on_rounding():
    # Their covariance is the same in all orientations, so components come in pairs of exactly equal strength, and in
    # others the largest entry stands at several pixels with either sign: which basis comes out of a solver is a matter
    # of rounding unless it is chosen. Here the sum over images runs in another order.
    drawn = np.random.default_rng(0).random((20, 4, 6, 6)).astype(np.float32)
    training = rotate_and_flip(drawn).reshape(160, 4, 36)
    one, other = encoders.fit_pca(training, 12), encoders.fit_pca(training[::-1], 12)
    np.testing.assert_allclose(one(training), other(training), atol=1e-4)


# --- Orientations and sizes


def test_a_variant_is_its_rotation_times_two_plus_its_flip():
    image = np.arange(16).reshape(1, 1, 4, 4)  # no symmetry
    variants = rotate_and_flip(image)
    assert variants.shape == (1, 8, 1, 4, 4)
    for rotation in range(4):
        turned = image[0, 0]
        for _ in range(rotation):
            turned = turned.T[::-1]  # a quarter turn against the clock
        np.testing.assert_array_equal(variants[0, rotation * 2, 0], turned)
        np.testing.assert_array_equal(variants[0, rotation * 2 + 1, 0], turned[:, ::-1])


def test_the_eight_variants_differ_and_are_a_group():
    image = np.arange(16).reshape(1, 1, 4, 4)

    def variants(of: np.ndarray) -> set[bytes]:
        return {variant.tobytes() for variant in rotate_and_flip(of)[0, :, 0]}

    orbit = variants(image)
    assert len(orbit) == 8
    for variant in rotate_and_flip(image)[0]:
        assert variants(variant[None]) == orbit


def test_every_character_and_drawing_is_turned_alike():
    stack = np.random.default_rng(0).random((3, 2, 5, 5))
    variants = rotate_and_flip(stack)
    for character, drawing in np.ndindex(3, 2):
        alone = rotate_and_flip(stack[character : character + 1, drawing : drawing + 1])
        np.testing.assert_array_equal(variants[character, :, drawing], alone[0, :, 0])


def some_ink(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 105, 105)) < 0.2


@pytest.mark.parametrize("side", [5, 15, 21, 35, 105])
def test_a_pixel_of_a_smaller_drawing_is_the_fraction_of_ink_in_its_box(side):
    ink, box = some_ink(3), 105 // side
    expected = ink.reshape(3, side, box, side, box).mean(axis=(2, 4))
    small = downsample(ink, side)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, expected, atol=1e-6)


@pytest.mark.parametrize("side", [4, 28, 64])
def test_where_boxes_do_not_divide_the_drawing_no_ink_is_lost_or_made(side):
    ink = some_ink(20)
    small = downsample(ink, side)
    assert small.min() >= 0
    assert small.max() <= 1 + 1e-6
    # Boxes then differ by a pixel a side, so pixels weigh differently, at side 64 by 0.49 (r.m.s.): of 20 * 105^2
    # independent pixels of standard deviation 0.4 the mean then moves by 4e-4 (r.m.s.).
    assert small.mean() == pytest.approx(ink.mean(), abs=5 * 4e-4)
    np.testing.assert_allclose(downsample(np.ones((1, 105, 105), dtype=bool), side), 1, atol=1e-6)
    assert not downsample(np.zeros((1, 105, 105), dtype=bool), side).any()


# --- Omniglot, from zips written here


Drawings = dict[Character, np.ndarray]


def strokes(characters: list[tuple[str, int]], seed: int = 0) -> Drawings:
    """bool [20, 105, 105] for each character, in blocks of 15 x 15 pixels, ink True."""
    generator = np.random.default_rng(seed)
    blocks = generator.random((len(characters), 20, 7, 7)) < 0.3
    return dict(zip(characters, np.kron(blocks, np.ones((15, 15), dtype=bool)), strict=True))


def png(ink: np.ndarray) -> bytes:
    """Black ink on white, one bit a pixel, as in the data set."""
    file = io.BytesIO()
    Image.fromarray(~ink).save(file, "PNG")
    return file.getvalue()


def entries(path: Path, drawings: Drawings) -> dict[str, bytes]:
    """Name in the zip -> content, named as in the data set."""
    return {
        f"{path.stem}/{alphabet}/character{number:02d}/{serial:04d}_{drawing:02d}.png": png(ink)
        for serial, ((alphabet, number), inks) in enumerate(drawings.items(), start=1)
        for drawing, ink in enumerate(inks, start=1)
    }


def write_zip(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def zip_path(tmp_path):
    return tmp_path / "images.zip"


FIVE = [("Greek", 1), ("Greek", 2), ("Latin", 1), ("Latin", 12), ("Balinese", 3)]


def test_drawings_are_read_in_order_with_ink_true(zip_path):
    drawings = strokes(FIVE)
    contents = entries(zip_path, drawings)
    extras = {"images/": b"", "images/Greek/": b"", "images/README.txt": b"read me"}
    write_zip(zip_path, extras | dict(reversed(contents.items())))
    found = read_drawings([zip_path])
    assert set(found) == set(FIVE)
    for character in FIVE:
        assert found[character].dtype == bool
        np.testing.assert_array_equal(found[character], drawings[character])


def test_a_character_in_several_zips_counts_once(tmp_path):
    drawings = strokes(FIVE)
    parts = [("small1.zip", FIVE[:3]), ("small2.zip", FIVE[1:])]
    files = [
        write_zip(tmp_path / name, entries(tmp_path / name, {character: drawings[character] for character in part}))
        for name, part in parts
    ]
    found = read_drawings(files)
    assert set(found) == set(FIVE)
    for character in FIVE:
        np.testing.assert_array_equal(found[character], drawings[character])


def test_zips_that_disagree_on_a_drawing_are_refused(tmp_path):
    drawings = strokes(FIVE)
    one, two = tmp_path / "small1.zip", tmp_path / "small2.zip"
    write_zip(one, entries(one, drawings))
    drawings["Latin", 12][6, 50, 50] ^= True
    write_zip(two, entries(two, drawings))
    with pytest.raises(StudyError, match=r"small2\.zip: .*Latin/character12/.*_07\.png differs"):
        read_drawings([one, two])


def without_drawing_7(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in contents.items() if not name.endswith("character12/0004_07.png")}


def of_another_size(contents: dict[str, bytes]) -> dict[str, bytes]:
    name = next(name for name in contents if "Latin/character12" in name)
    return contents | {name: png(np.zeros((105, 104), dtype=bool))}


def with_half_a_drawing(contents: dict[str, bytes]) -> dict[str, bytes]:
    name = next(name for name in contents if "Latin/character12" in name)
    return contents | {name: contents[name][: len(contents[name]) // 2]}


def with_a_drawing_that_is_none(contents: dict[str, bytes]) -> dict[str, bytes]:
    name = next(name for name in contents if "Latin/character12" in name)
    return contents | {name: b"404: not found"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_drawing_7, "Latin/character12 has drawings .*, expected 1 to 20"),
        (of_another_size, r"Latin/character12 is \(104, 105\), expected 105 x 105"),
        (with_half_a_drawing, "Latin/character12"),
        (with_a_drawing_that_is_none, "Latin/character12"),
        (
            lambda _: {"images/README.txt": b"read me"},
            r"images.zip: no Omniglot drawings in it: it holds 1 files, such as images/README.txt; expected",
        ),
    ],
)
def test_drawings_that_are_missing_or_damaged_are_refused_by_name(zip_path, spoil, message):
    write_zip(zip_path, spoil(entries(zip_path, strokes(FIVE))))
    with pytest.raises(StudyError, match=message):
        read_drawings([zip_path])


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble_a_compressed_drawing(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        member = archive.infolist()[5]
    content = bytearray(path.read_bytes())
    start = member.header_offset + 30 + len(member.filename)  # behind the local header
    content[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [(cut_in_half, "download it again"), (garble_a_compressed_drawing, "download it again"), (Path.unlink, "put it")],
)
def test_a_zip_that_cannot_be_read_is_refused_with_a_way_to_get_it_again(zip_path, damage, remedy):
    write_zip(zip_path, entries(zip_path, strokes(FIVE)))
    damage(zip_path)
    with pytest.raises(StudyError, match=rf"images\.zip.*{remedy}"):
        read_drawings([zip_path])


def planned(path: Path, characters: int = 5) -> None:
    """Check, as planning does, that a zip holds so many characters."""
    section = Omniglot(
        zips=(path.name,),
        characters=characters,
        holdout_characters=0,
        exemplars=16,
        holdout_exemplars=4,
        side=15,
        encoder="pixels",
        dim=225,
    )
    resolve.resolve("omniglot", asdict(section), path.parent)


PACKED_AGAIN = {
    "one level lower": lambda name: name.partition("/")[2],
    "one level higher": lambda name: f"data/omniglot/{name}",
    "with ./ in front": lambda name: f"./{name}",
    "with backslashes": lambda name: name.replace("/", "\\"),
    "with .PNG": lambda name: name.replace(".png", ".PNG"),
}


@pytest.mark.parametrize("rename", PACKED_AGAIN.values(), ids=PACKED_AGAIN)
def test_a_zip_that_was_packed_again_is_planned_and_read_all_the_same(zip_path, rename):
    drawings = strokes(FIVE)
    renamed = {rename(name): content for name, content in entries(zip_path, drawings).items()}
    # As macOS adds them.
    beside = {f"__MACOSX/{name}": b"no drawing" for name in list(renamed)[:3]}
    write_zip(zip_path, renamed | beside | {"images/Greek/character01/._0001_01.png": b"no drawing"})
    planned(zip_path)
    with pytest.raises(StudyError, match="hold 5 characters"):
        planned(zip_path, characters=6)
    found = read_drawings([zip_path])
    assert set(found) == set(FIVE)
    for character in FIVE:
        np.testing.assert_array_equal(found[character], drawings[character])


def encrypted(path: Path) -> None:
    """Set the bit that says so, in every entry of the zip's directory."""
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 8] |= 1
        at = content.find(b"PK\x01\x02", at + 4)
    path.write_bytes(content)


def of_zstandard(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 10] = 93
        at = content.find(b"PK\x01\x02", at + 4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "damage", "message"),
    [
        (lambda _: {"character01/0001_01.png": b""}, None, "no Omniglot drawings in it: it holds 1 files"),
        (without_drawing_7, None, "Latin/character12 has drawings .*, expected 1 to 20"),
        (dict, encrypted, "is encrypted: write the zip again without a password"),
        (dict, of_zstandard, r"method 93 \(Zstandard\).*: write the zip again with Deflate"),
    ],
)
def test_a_zip_that_no_job_could_read_is_refused_while_planning(zip_path, spoil, damage, message):
    write_zip(zip_path, spoil(entries(zip_path, strokes(FIVE))))
    if damage:
        damage(zip_path)
    with pytest.raises(StudyError, match=message):
        planned(zip_path)


@dataclass(frozen=True)
class Built:
    spec: BankSpec
    drawings: Drawings
    bank: Bank


CHARACTERS = [*FIVE, ("Korean", 40)]


def build(folder: Path, drawings: Drawings, **changes) -> Built:
    path = folder / "images.zip"
    write_zip(path, entries(path, drawings))
    values = {"zips": (path.name,), "characters": 3, "holdout_characters": 2, "exemplars": 6, "holdout_exemplars": 3}
    section = Omniglot(**(values | {"side": 7, "encoder": "pca", "dim": 49} | changes))
    spec = BankSpec(seed=1, parameters=section)
    return Built(spec, drawings, banks_bank.build(spec, [path]))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    """Three characters to train on and two kept back, of six; six drawings and three kept back; every component."""
    return build(tmp_path_factory.mktemp("omniglot"), strokes(CHARACTERS))


def rebuilt_pixels(built: Built) -> np.ndarray:
    """[classes, exemplars, 49]: the pixels that the bank's tables say its exemplars are."""
    table, pixels = built.bank.class_table, []
    for name, rotation, flip in zip(table["character"], table["rotation"], table["flip"], strict=True):
        alphabet, number = name.split("/")
        for drawing in built.bank.exemplar_table["drawing"]:
            small = built.drawings[alphabet, int(number)][drawing - 1, ::15, ::15]  # blocks of 15 x 15
            turned = np.rot90(small, rotation)
            pixels.append((turned[:, ::-1] if flip else turned).ravel())
    return np.stack(pixels).reshape(*built.bank.embeddings.shape[:2], 49).astype(np.float64)


def test_the_tables_say_which_pixels_every_exemplar_is(built):
    pixels, embeddings = rebuilt_pixels(built).reshape(-1, 49), built.bank.embeddings.reshape(-1, 49)
    # With as many components as pixels the encoder only turns and scales, so distances say it all: they are those of
    # the pixels over the root of the mean variance of the training pixels.
    training = rebuilt_pixels(built)[:24, :6].reshape(-1, 49)
    scale = math.sqrt(training.var(axis=0).mean())
    for one in range(0, len(pixels), 7):
        expected = np.linalg.norm(pixels - pixels[one], axis=1) / scale
        found = np.linalg.norm(embeddings.astype(np.float64) - embeddings[one], axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_class_is_numbered_by_character_rotation_and_flip(built):
    table = built.bank.class_table
    assert built.bank.embeddings.shape == (40, 9, 49)
    assert built.bank.shape == built.spec.shape
    for number in range(40):
        assert (table["rotation"][number], table["flip"][number]) == (number % 8 // 2, number % 2)
        assert table["character"][number] == table["character"][number // 8 * 8]


def test_all_variants_of_a_character_are_on_one_side_of_the_split(built):
    names = built.bank.class_table["character"]
    trained, held_out = set(names[: built.bank.n_train_classes]), set(names[built.bank.n_train_classes :])
    assert (len(trained), len(held_out)) == (3, 2)
    assert not trained & held_out
    assert trained | held_out <= {f"{alphabet}/{number:02d}" for alphabet, number in CHARACTERS}


def test_no_drawing_is_both_trained_on_and_held_out(built):
    drawings = built.bank.exemplar_table["drawing"]
    assert len(set(drawings.tolist())) == len(drawings) == 9
    assert set(drawings.tolist()) <= set(range(1, 21))


def test_what_is_held_out_does_not_touch_what_is_trained_on(built, tmp_path):
    names = set(built.bank.class_table["character"][:24])
    trained_drawings = built.bank.exemplar_table["drawing"][:6] - 1
    changed = strokes(CHARACTERS, seed=9)
    for (alphabet, number), inks in changed.items():
        if f"{alphabet}/{number:02d}" in names:
            inks[trained_drawings] = built.drawings[alphabet, number][trained_drawings]
    other = build(tmp_path, changed)
    np.testing.assert_array_equal(other.bank.embeddings[:24, :6], built.bank.embeddings[:24, :6])
    assert not np.array_equal(other.bank.embeddings[:24, 6:], built.bank.embeddings[:24, 6:])
    assert not np.array_equal(other.bank.embeddings[24:], built.bank.embeddings[24:])


def test_the_seed_chooses_characters_and_drawings(built, tmp_path):
    path = write_zip(tmp_path / "images.zip", entries(tmp_path / "images.zip", built.drawings))
    again = banks_bank.build(built.spec, [path])
    np.testing.assert_array_equal(again.embeddings, built.bank.embeddings)
    others = [banks_bank.build(replace(built.spec, seed=seed), [path]) for seed in (2, 3)]
    choices = [
        (tuple(bank.class_table["character"]), tuple(bank.exemplar_table["drawing"])) for bank in (again, *others)
    ]
    assert len({characters for characters, _ in choices}) == 3
    assert len({drawings for _, drawings in choices}) == 3


def test_asking_for_more_characters_than_there_are_is_refused(built, tmp_path):
    with pytest.raises(StudyError, match=r"= 7, but images\.zip hold 6 distinct characters"):
        build(tmp_path, built.drawings, characters=5)


def test_the_file_of_an_omniglot_bank_says_what_its_classes_and_exemplars_are(built, tmp_path):
    banks_bank.save(built.bank, tmp_path / "bank.h5", built.spec)
    with hdf5.reading(tmp_path / "bank.h5", "bank", built.spec.id) as file:
        names = [name.decode() for name in file["classes/character"][()]]
        assert names == built.bank.class_table["character"].tolist()
        for column in ("rotation", "flip"):
            np.testing.assert_array_equal(file[f"classes/{column}"][()], built.bank.class_table[column])
        np.testing.assert_array_equal(file["exemplars/drawing"][()], built.bank.exemplar_table["drawing"])


# --- Omniglot, the real drawings


def test_the_two_small_zips_hold_242_characters_that_make_1936_classes_of_20_drawings(omniglot_folder):
    names = ("images_background_small1.zip", "images_background_small2.zip")
    section = Omniglot(
        zips=names,
        characters=200,
        holdout_characters=42,
        exemplars=10,
        holdout_exemplars=10,
        side=15,
        encoder="pca",
        dim=32,
    )
    spec = BankSpec(seed=0, parameters=section)
    bank = banks_bank.build(spec, [omniglot_folder / name for name in names])
    assert bank.embeddings.shape == (1936, 20, 32)
    assert bank.shape == spec.shape
    assert len(set(bank.class_table["character"])) == 242
    assert sorted(bank.exemplar_table["drawing"]) == list(range(1, 21))
    trained = bank.embeddings[:1600, :10].astype(np.float64)
    assert np.mean(trained**2) == pytest.approx(1, rel=1e-5)
    # Drawings of a class are closer to each other than to those of another, which is what there is to learn: of
    # classes put together at random, ten exemplars each, the variance within would be 0.9 of all.
    within = trained.var(axis=1).mean()
    assert within < 0.8 * trained.var(axis=(0, 1)).mean()


# --- Exemplars that tell no class from another


def drawn(n_classes: int = 40, n_exemplars: int = 10, width: int = 6, holdout: int = 0) -> Bank:
    embeddings = np.random.default_rng(0).standard_normal((n_classes, n_exemplars, width)).astype(np.float32)
    return Bank(embeddings=embeddings, n_train_classes=n_classes - holdout, n_train_exemplars=n_exemplars)


@pytest.mark.parametrize("power", [-30, 0, 30])
def test_a_bank_of_which_a_twentieth_stands_in_two_classes_is_refused_and_one_of_less_is_not(power):
    bank = drawn()
    bank.embeddings[1, :9] = bank.embeddings[0, :9]  # 18 of 400
    scaled = replace(bank, embeddings=bank.embeddings * np.float32(10.0**power))
    assert "18 of 400 training exemplars" in checked(scaled).warnings[0]
    bank.embeddings[1] = bank.embeddings[0]
    scaled = replace(bank, embeddings=bank.embeddings * np.float32(10.0**power))
    with pytest.raises(StudyError, match=r"the bank: 20 of 400 .* \(5\.0%\) are equal to an exemplar of another class"):
        checked(scaled)


def test_a_held_out_part_counts_by_itself():
    bank = drawn(holdout=2)
    bank.embeddings[39, :3] = bank.embeddings[0, :3]  # 6 of 400, but 3 of 20
    with pytest.raises(StudyError, match="3 of 20 training exemplars of held-out classes"):
        checked(bank)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bank_with_a_number_that_is_none_is_refused(value):
    bank = drawn()
    bank.embeddings[3, 2, 1] = value
    with pytest.raises(StudyError, match=r"1 of 2,400 coordinates .* are not finite"):
        checked(bank)
    with pytest.raises(StudyError, match="are not finite"), np.errstate(all="ignore"):
        gaussian(noise=1e100)


def test_classes_that_are_points_are_warned_of_and_built():
    _, bank = gaussian(noise=0.0)
    assert bank.warnings == (
        "the bank: 7,680 of 8,000 exemplars repeat another exemplar of their class (in 320 of 320 classes)",
    )


@both
def test_drawn_classes_are_nothing_to_warn_of(source):
    assert not source()[1].warnings


def test_zeros_of_one_class_are_counted():
    bank = drawn()
    bank.embeddings[5] = -0.0
    bank.embeddings[5, 0] = 0.0
    said = "\n".join(checked(bank).warnings)
    assert "9 of 400 exemplars repeat" in said
    assert "10 of 400 exemplars are all zeros" in said


def test_equal_rows_are_those_that_numpy_finds():
    rows = np.random.default_rng(0).integers(-1, 2, (5000, 4)).astype(np.float32)
    _, expected = np.unique(rows, axis=0, return_inverse=True)
    found = equal_rows(rows)
    # The same partition, under whatever numbers.
    assert len(set(zip(found.tolist(), expected.ravel().tolist(), strict=True))) == len(set(found.tolist())) == 81


@pytest.mark.parametrize("value", [0, 0.1, 1e-20, 1e20])
@pytest.mark.parametrize("fit", [lambda x: encoders.fit_pca(x, 3), lambda x: encoders.fit_scale(x, "standard")])
def test_constant_exemplars_have_neither_components_nor_a_scale(value, fit):
    with pytest.raises(StudyError, match="one and the same point"):
        fit(np.full((7, 3, 5), value, dtype=np.float32))


def test_a_blank_drawing_is_refused(tmp_path):
    drawings = strokes(CHARACTERS)
    for name in drawings:
        drawings[name][4] = False
    with pytest.raises(StudyError, match=r"images\.zip: 5 of 100 drawings are blank, the first is drawing 5 of"):
        build(tmp_path, drawings, exemplars=15, holdout_exemplars=5)


@pytest.mark.parametrize("layout", ["corrected", "released"])
def test_real_drawings_are_all_of_one_class(omniglot_folder, layout):
    zips = ("images_background_small1.zip", "images_background_small2.zip")
    sizes = {"characters": 230, "holdout_characters": 12, "exemplars": 16, "holdout_exemplars": 4}
    section = Omniglot(zips=zips, **sizes, encoder="pixels", layout=layout, side=28, dim=784)
    bank = banks_bank.build(BankSpec(seed=0, parameters=section), [omniglot_folder / name for name in zips])
    assert not any("another class" in warning or "all zeros" in warning for warning in bank.warnings)

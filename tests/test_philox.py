"""Random numbers that depend on their place and on nothing else."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from icl_transience import philox

# Seeds are fixed, so a test either always passes or always fails. A right generator has p-values uniform on (0, 1):
# with under 30 of them here, the chance that it would have been refused when the seeds were chosen is 0.3 %.
P_MIN = 1e-4
N = 200_000
WORDS = 2**32
word = st.integers(0, WORDS - 1)


def draw(count: int = 1, *, seed: int = 0, domain: int = 1, stream: int = 0, start: int = 0, n: int = N) -> np.ndarray:
    """Words [n, count] of consecutive positions."""
    return np.stack(philox.words(seed, domain, np.arange(start, start + n), stream, count), axis=1)


def unsigned_philox(words: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as the paper writes it (Salmon et al. 2011, sec. 3.3), in integers without bounds."""
    (x0, x1, x2, x3), (k0, k1) = words, key
    for _ in range(10):
        high0, low0 = divmod(x0 * 0xD2511F53, WORDS)
        high1, low1 = divmod(x2 * 0xCD9E8D57, WORDS)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % WORDS, (k1 + 0xBB67AE85) % WORDS
    return [x0, x1, x2, x3]


@pytest.mark.parametrize(
    ("counter_words", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_philox_gives_the_known_answers_of_random123(counter_words, key, answer, array):
    # kat_vectors, lines "philox4x32 10", of https://github.com/DEShawResearch/random123
    words = [array([int(digits, 16)]) for digits in counter_words.split()]
    drawn = philox.philox4x32(words, [int(digits, 16) for digits in key.split()])
    assert " ".join(f"{value.item():08x}" for value in drawn) == answer


@given(words=st.lists(word, min_size=4, max_size=4), key=st.lists(word, min_size=2, max_size=2))
def test_signed_arithmetic_gives_the_words_of_unsigned_arithmetic(words, key):
    drawn = philox.philox4x32([np.array([value]) for value in words], key)
    assert [int(value[0]) for value in drawn] == unsigned_philox(words, key)


@given(seed=word, domain=word, position=st.integers(0, 2**63 - 1), stream=word, count=st.integers(1, 9))
def test_a_word_is_philox_of_position_block_and_stream_under_seed_and_domain(seed, domain, position, stream, count):
    drawn = philox.words(seed, domain, np.array([position]), stream, count)
    blocks = [[position % WORDS, position // WORDS, block, stream] for block in range(3)]
    expected = [value for block in blocks for value in unsigned_philox(block, [seed, domain])]
    assert [int(value[0]) for value in drawn] == expected[:count]


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))],
)
def test_numpy_and_torch_draw_the_same_words_on_every_device(device):
    positions = np.array([0, 1, 2, 31, WORDS - 1, WORDS, 2**40 + 5, 2**63 - 1])
    from_numpy = philox.words(7, philox.domain("training"), positions, 3, 9)
    from_torch = philox.words(7, philox.domain("training"), torch.from_numpy(positions).to(device), 3, 9)
    np.testing.assert_array_equal(np.stack(from_numpy), torch.stack(from_torch).cpu().numpy())


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"domain": 2},
        {"stream": 1},
        {"start": N},
        {"start": WORDS},
        {"start": 2**40},
    ],
    ids=str,
)
def test_another_seed_domain_stream_or_position_shares_nothing_with_the_first(other):
    # Of 32 bits, 16 differ on average with standard deviation sqrt(8); five standard errors of N * 4 words.
    differing = np.bitwise_count(draw(4) ^ draw(4, **other))
    assert abs(differing.mean() - 16) < 5 * math.sqrt(8 / differing.size)


def test_names_draw_in_domains_of_their_own():
    names = ["training", "evaluator/icl", "evaluator/icl_holdout", "initial weights/embedder.weight"]
    domains = [philox.domain(name) for name in names]
    assert len(set(domains)) == len(names)
    assert all(0 <= number < WORDS for number in domains)
    # `printf training | sha256sum` begins c2fb788c; another number would change every sequence ever drawn.
    assert domains[0] == int.from_bytes(bytes.fromhex("c2fb788c"), "little")


def test_the_words_of_one_position_are_uniform_and_independent_of_each_other():
    cells = draw(6) >> 29  # three bits of each, six words reach into the second block
    assert stats.chisquare(np.bincount(cells[:, 0])).pvalue > P_MIN
    for other in range(1, 6):
        assert stats.chisquare(np.bincount(cells[:, 0] * 8 + cells[:, other], minlength=64)).pvalue > P_MIN


def test_the_words_of_neighbouring_positions_are_independent():
    cells = draw()[:, 0] >> 29
    assert stats.chisquare(np.bincount(cells[:-1] * 8 + cells[1:], minlength=64)).pvalue > P_MIN


@given(drawn=word, bound=st.integers(1, 2**31 - 1))
def test_below_scales_a_word_exactly_and_stays_below(drawn, bound):
    number = int(philox.randint(np.array([drawn]), bound)[0])
    assert number == drawn * bound // WORDS
    assert 0 <= number < bound


@pytest.mark.parametrize("bound", [1, 2, 3, 12, 1600, 2**31 - 1])
def test_below_reaches_both_ends(bound):
    assert philox.randint(np.array([0, WORDS - 1]), bound).tolist() == [0, bound - 1]


@pytest.mark.parametrize("bound", [2, 3, 7, 1600, 12_800])
def test_below_is_uniform(bound):
    counts = np.bincount(philox.randint(draw(seed=bound)[:, 0], bound), minlength=bound)
    assert len(counts) == bound
    assert stats.chisquare(counts).pvalue > P_MIN  # at least 15 expected in every cell


@pytest.mark.parametrize(
    ("draw", "distribution"),
    [
        (philox.uniform, stats.uniform()),
        (philox.normal, stats.norm()),
        (philox.truncated_normal, stats.truncnorm(-2, 2)),
        (lambda *place: philox.truncated_normal(*place, bound=0.5), stats.truncnorm(-0.5, 0.5)),
    ],
    ids=["uniform", "normal", "truncated_normal", "truncated_normal_0.5"],
)
def test_real_numbers_follow_their_distribution(draw, distribution):
    numbers = draw(5, philox.domain("a weight"), N)
    assert numbers.dtype == torch.float64
    assert numbers.shape == (N,)
    numbers = numbers.numpy()
    assert stats.kstest(numbers, distribution.cdf).pvalue > P_MIN
    for power in (1, 2, 4):
        error = math.sqrt((distribution.moment(2 * power) - distribution.moment(power) ** 2) / N)
        assert abs(np.mean(numbers**power) - distribution.moment(power)) < 5 * error
    # Neighbours are uncorrelated: the standard error of a correlation of N pairs is 1 / sqrt(N).
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 5 / math.sqrt(N)


def test_real_numbers_are_as_many_as_asked_and_another_place_gives_others():
    for count in (1, 3, 4, 5):
        assert philox.normal(0, 1, count).shape == (count,)
    assert not set(philox.normal(0, 1, 100).tolist()) & set(philox.normal(1, 1, 100).tolist())
    assert not set(philox.normal(0, 1, 100).tolist()) & set(philox.normal(0, 2, 100).tolist())


@pytest.mark.parametrize("extreme", [0, WORDS - 1])
def test_real_numbers_stay_in_bounds_whatever_the_word(monkeypatch, extreme):
    monkeypatch.setattr(philox, "words", lambda _seed, _domain, position, _stream, n: [position * 0 + extreme] * n)
    assert 0 < philox.uniform(0, 0, 1) < 1
    assert 6 < abs(philox.normal(0, 0, 1)) < 6.4  # the normal quantile of 2**-33 is -6.3
    assert 1.99 < abs(philox.truncated_normal(0, 0, 1)) <= 2
    assert abs(philox.truncated_normal(0, 0, 1, bound=0.5)) <= 0.5


# A table of words, wide bounds, and what happens with a probability.


@pytest.mark.parametrize("count", [1, 4, 6, 577])
def test_a_table_holds_the_words_of_every_position(count):
    position = torch.tensor([0, 3, 2**32 - 1, 2**40 + 5])
    words = torch.stack(philox.words(7, 9, position, 2, count), dim=1)
    assert torch.equal(philox.table(7, 9, position, 2, count), words)


@given(high=word, low=word, bound=st.integers(1, 2**60 - 1))
def test_a_wide_bound_is_multiplied_exactly(high, low, bound):
    found = philox.randint_wide(torch.tensor([high]), torch.tensor([low]), torch.tensor([bound]))
    assert found.item() == (high * WORDS + low) * bound // 2**64


@pytest.mark.parametrize("bound", [1, 2**31, 2**60 - 1])
def test_wide_numbers_stay_below_their_bound(bound):
    last = torch.tensor([WORDS - 1])
    assert philox.randint_wide(last, last, bound).item() == bound - 1
    assert philox.randint_wide(0 * last, 0 * last, bound).item() == 0


@pytest.mark.parametrize(("probability", "often"), [(0.0, 0), (2.0**-32, 1), (0.25, 2**30), (1.0, 2**32)])
def test_what_has_a_probability_happens_for_that_share_of_all_words(probability, often):
    edges = [edge for edge in (0, often - 1, often, WORDS - 1) if 0 <= edge < WORDS]
    assert philox.bernoulli(torch.tensor(edges), probability).tolist() == [edge < often for edge in edges]

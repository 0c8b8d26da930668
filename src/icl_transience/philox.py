"""Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011), the same on every device.

A draw is a pure function of (seed, domain, position, stream), so nothing has to be carried from one
batch to the next, and neither batch size nor packing nor resuming changes a sequence. Everything here is
integer arithmetic on int64 that holds unsigned 32-bit words; the same code runs on NumPy arrays and on
torch tensors of any device.
"""

import hashlib

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox4x32(counter, key):
    """Compute ten rounds of Philox4x32.

    counter: four int64 arrays (any broadcastable shapes) of unsigned 32-bit words.
    key: two ints in [0, 2**32), or int64 arrays of such.
    Returns four int64 arrays of unsigned 32-bit words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The signed product wraps, but its bits are those of the unsigned one: masking recovers both halves.
        product0 = c0 * _MULTIPLIERS[0]
        product1 = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _MASK) ^ c1 ^ k0,
            product1 & _MASK,
            ((product0 >> 32) & _MASK) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0 = (k0 + _KEY_STEPS[0]) & _MASK
        k1 = (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def domain(name: str) -> int:
    """Return the 32-bit number under which `name` draws: different names give independent draws of one seed."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def words(seed, domain: int, position, stream: int, count: int) -> list:
    """Draw `count` independent 32-bit words for every position.

    seed: int in [0, 2**32), or an int64 array [N] of such, one for each position. domain: see `domain`. position: int64
    array [N], each >= 0 (a sequence number, a row number). stream: which quantity is drawn; adding one leaves the
    others as they were.
    Returns a list of `count` int64 arrays [N] in [0, 2**32).
    """
    drawn = []
    for block in range(-(-count // 4)):
        # `position * 0 + …` keeps array type and device without asking which library made it.
        block_word, stream_word = position * 0 + block, position * 0 + stream
        drawn += philox4x32((position & _MASK, position >> 32, block_word, stream_word), (seed, domain))
    return drawn[:count]


def table(seed: int, domain: int, position, stream: int, count: int):
    """Return what `words` gives as one int64 array [N, count]: for quantities of hundreds of words a position.

    position: int64 torch tensor [N].
    """
    import torch

    blocks = torch.arange(-(-count // 4), device=position.device)
    position = position[:, None]
    stream_word = torch.full_like(blocks, stream)
    drawn = philox4x32((position & _MASK, position >> 32, blocks, stream_word), (seed, domain))
    return torch.stack(drawn, dim=2).flatten(1)[:, :count]


def randint(word, bound):
    """Return a number in [0, bound) from a 32-bit word: floor(word * bound / 2**32).

    Each value's probability is off 1/bound by at most 2**-32, so by a relative bound / 2**32
    (3e-6 for 12,800 classes). bound: under 2**31, an int or an int64 array.
    """
    return (word * bound) >> 32


def randint_wide(high, low, bound):
    """Return a number in [0, bound) from two words: floor((2**32 * high + low) * bound / 2**64), exactly.

    Each value's probability is off 1/bound by at most 2**-64. bound: under 2**60, an int or an int64 array.
    """
    # In limbs of 30 bits, so that no product or sum reaches 2**63.
    upper, lower = bound >> 30, bound & ((1 << 30) - 1)
    from_low = (low * upper + ((low * lower) >> 30)) >> 2
    return (high * upper + ((high * lower + from_low) >> 30)) >> 2


def bernoulli(word, probability: float):
    """Return bool: true with `probability`, rounded to a multiple of 2**-32; 0 is never and 1 always."""
    return word < round(probability * 2**32)


def normal(seed: int, domain: int, count: int):
    """Draw `count` standard normal numbers, float64 [count], by the inverse distribution function on the CPU.

    Resolution 2**-32 in probability: the largest magnitude is 6.3.
    """
    return normal_quantile(uniform(seed, domain, count))


def truncated_normal(seed: int, domain: int, count: int, bound: float = 2.0):
    """Draw `count` standard normal numbers conditioned on |x| <= bound, float64 [count], not rescaled."""
    import torch

    lower = 0.5 * torch.erfc(torch.tensor(bound / 2**0.5, dtype=torch.float64))
    return normal_quantile(lower + (1 - 2 * lower) * uniform(seed, domain, count))


def uniform(seed: int, domain: int, count: int):
    """Draw `count` numbers uniform on the open interval (0, 1), float64 [count]."""
    import torch

    drawn = torch.stack(words(seed, domain, torch.arange(-(-count // 4)), 0, 4), dim=1).flatten()[:count]
    return to_unit_interval(drawn)


def to_unit_interval(word):
    """Return the word as a number on the open interval (0, 1), float64: torch tensors alone."""
    return (word.double() + 0.5) / 2**32


def normal_quantile(probability):
    """Return the standard normal number below which a normal one lies with `probability`: torch tensors alone."""
    return 2**0.5 * (2 * probability - 1).erfinv()

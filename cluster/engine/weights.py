"""From scores to a token, in whole numbers.

A token's weight is exp(score - best score), rounded down to a multiple of 2^-40. As a count of such
parts it is an integer, so sums of weights are exact: no order of summation, no batch, no number of
threads can change which token a uniform number falls on. What is 2^40 times less likely than the
best token is never drawn; all that is lost together is less than 10^-7 of the mass, for any
vocabulary below 100,000.

One uniform number is one draw, by inverse transform (Devroye: Non-Uniform Random Variate
Generation, III.2)::

    without filters   tokens stand in order of id
    with filters      tokens stand by weight, best first, equals by id, and the first `n` are kept
    drawn             the first token at which the running sum of weights exceeds u * (their sum)
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cluster.request import Sampling

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

PARTS = 2.0**40
# Of a model that knows what it wants to say, the tokens above this weight are few and hold nearly
# all of the mass. Only when they do not is the whole vocabulary sorted.
_LIKELY = np.float32(2.0**-12)

# Constants of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = 2**64 - 1


def uniform(seed: int, choice: int, position: int) -> float:
    """A number in [0, 1), a pure function of its arguments: the noise of one draw.

    So a draw can be repeated on another worker, in another batch, or after a preemption.
    """
    key = 0
    for value in (seed, choice, position):
        key = _mix((key + (value + 1) * _GAMMA) & _MASK)
    return (key >> 11) * 2.0**-53


def _mix(word: int) -> int:
    """The finaliser of splitmix64: a bijection of 64-bit words that scatters them."""
    word = ((word ^ (word >> 30)) * _MIX_1) & _MASK
    word = ((word ^ (word >> 27)) * _MIX_2) & _MASK
    return word ^ (word >> 31)


def weights_of(scores: Floats, temperature: float = 1.0) -> Floats:
    """Weights [vocab], 0 to 1, of scores [vocab]: exp((score - best score) / temperature)."""
    below = scores - scores.max()
    if temperature != 1.0:
        # After the subtraction, so that no score, however cold, becomes an infinity less another.
        below /= np.float32(temperature)
    return np.asarray(np.exp(below, out=below))


def is_filtered(sampling: Sampling) -> bool:
    """Whether some tokens may not be drawn at all."""
    return sampling.top_k is not None or sampling.top_p < 1.0 or sampling.min_p > 0.0


def pick(weights: Floats, sampling: Sampling, u: float) -> int:
    """The token that `u` in [0, 1) falls on, after top-k, top-p and min-p."""
    if not is_filtered(sampling):
        return _fall(np.cumsum(parts(weights)), u)
    stand = kept(weights, sampling)
    place = _fall(np.cumsum(parts(stand)), u)
    value = stand[place]
    among_equals = place - int(np.count_nonzero(stand[:place] > value))
    return int(np.flatnonzero(weights == value)[among_equals])


def kept(weights: Floats, sampling: Sampling) -> Floats:
    """The weights of the tokens that stay, best first, [kept].

    top-k: the k best. top-p: of those the fewest, best first, that hold the share `top_p` of their
    mass (Holtzman et al., arXiv 1904.09751). min-p: what is at least `min_p` times the best
    (Nguyen et al., arXiv 2407.01082).
    """
    floor = np.float32(sampling.min_p)
    if sampling.top_k is not None and sampling.top_k < len(weights):
        best = _largest(weights, sampling.top_k)
        stand = best if sampling.top_p >= 1.0 else _nucleus(best, _share(best, sampling.top_p))
    elif sampling.top_p < 1.0:
        stand = _whole_nucleus(weights, sampling.top_p)
    else:
        return _descending(weights[weights >= floor])
    return stand[: np.count_nonzero(stand >= floor)]


def parts(weights: Floats) -> Counts:
    """Weights in units of 2^-40, rounded down."""
    return (weights * np.float32(PARTS)).astype(np.int64)


def _largest(weights: Floats, count: int) -> Floats:
    floor = np.partition(weights, len(weights) - count)[len(weights) - count]
    return _descending(weights[weights >= floor])[:count]


def _whole_nucleus(weights: Floats, top_p: float) -> Floats:
    """Sorts no more than the likely tokens, when they are few and hold the mass that is wanted."""
    wanted = _share(weights, top_p)
    likely = weights[weights >= _LIKELY]
    if int(parts(likely).sum()) < wanted:
        likely = weights
    return _nucleus(_descending(likely), wanted)


def _share(weights: Floats, share: float) -> int:
    """So much of the mass, rounded up."""
    return math.ceil(share * int(parts(weights).sum()))


def _nucleus(best: Floats, wanted: int) -> Floats:
    """The fewest of the first that hold the mass `wanted`."""
    return best[: int(np.searchsorted(np.cumsum(parts(best)), wanted, side="left")) + 1]


def _descending(weights: Floats) -> Floats:
    # Negated, not reversed: what runs backwards through memory is slow from here on.
    return np.asarray(np.negative(np.sort(np.negative(weights))))


def _fall(running: Counts, u: float) -> int:
    """Where `u` falls: the first place at which the running sum exceeds it."""
    mass = int(running[-1])
    # Rounding may lift the product to the whole mass, which is past the last token.
    return int(np.searchsorted(running, min(int(u * mass), mass - 1), side="right"))

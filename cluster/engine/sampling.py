"""From logits to a token.

Drawing is by the Gumbel-max trick: argmax(logits / temperature + g) with g standard Gumbel noise is
a draw from softmax(logits / temperature) (Maddison et al., arXiv 1411.0030). The noise of a token
is a pure function of (seed, choice, position, token), so a draw can be repeated on another worker,
in another batch, or after a preemption.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cluster.request import Sampling

Uint64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

# Constants of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_MASK = 2**64 - 1


def sample(logits: Tensor, sampling: Sampling, position: int) -> int:
    """The token that follows `position`; `logits` is [vocab]. Ties go to the lowest id."""
    if sampling.temperature == 0.0:
        return int(torch.argmax(logits))
    scores = logits.double().numpy() / sampling.temperature
    scores[~kept(scores, sampling)] = -np.inf
    noise = gumbel(sampling.seed, sampling.choice, position, len(scores))
    return int(np.argmax(scores + noise))


def kept(scores: Floats, sampling: Sampling) -> npt.NDArray[np.bool_]:
    """Which tokens of [vocab] stay: the `top_k` best, then the least set of mass `top_p`."""
    keep = np.ones(len(scores), dtype=np.bool_)
    if sampling.top_k is None and sampling.top_p >= 1.0:
        return keep
    order = np.argsort(-scores, kind="stable")
    count = len(scores) if sampling.top_k is None else min(sampling.top_k, len(scores))
    best = scores[order[:count]]
    mass = np.cumsum(np.exp(best - best[0]))
    # The token that crosses the threshold is still in.
    count = int(np.searchsorted(mass, sampling.top_p * mass[-1], side="left")) + 1
    keep[order[min(count, len(best)) :]] = False
    return keep


def gumbel(seed: int, choice: int, position: int, vocab_size: int) -> Floats:
    """Standard Gumbel noise for every token of the vocabulary, [vocab] float64."""
    key = _chain(_chain(_chain(0, seed), choice), position)
    tokens = np.arange(1, vocab_size + 1, dtype=np.uint64)
    bits = _mix(np.uint64(key) + tokens * np.uint64(_GAMMA))
    # 53 bits, centred in their interval: never 0, never 1.
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.asarray(-np.log(-np.log(uniform)))


def _chain(key: int, value: int) -> int:
    word = np.array([(key + (value + 1) * _GAMMA) & _MASK], dtype=np.uint64)
    return int(_mix(word)[0])


def _mix(words: Uint64s) -> Uint64s:
    """The finaliser of splitmix64: a bijection of 64-bit words that scatters them."""
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    return words ^ (words >> np.uint64(31))

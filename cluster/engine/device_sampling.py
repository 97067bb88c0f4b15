"""The draw of `weights`, for all rows at once, where the logits are on an accelerator.

The same arithmetic: whole numbers, exact sums, equals by id. So a row's token is its own, however
many rows are drawn beside it; only exp may round otherwise than on the host. What needs a request's
own ids (penalties, grammars) is not here: such rows are drawn on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cluster.engine.weights import PARTS, is_filtered
from cluster.request import Sampling

# Rows that are sorted together; each takes some forty bytes for each token of the vocabulary.
_MOST_ROWS = 64


def pick_rows(
    logits: Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float]
) -> list[int | None]:
    """A token for each row of logits [rows, vocab] float32; None where the best is no number.

    `uniforms` are the rows' numbers in [0, 1).
    """
    tokens = torch.argmax(logits, dim=-1)
    finite = torch.isfinite(torch.gather(logits, 1, tokens[:, None]))[:, 0]
    for draw, is_theirs in ((_by_id, _is_plain), (_by_weight, _is_filtered)):
        rows = [i for i, sampling in enumerate(samplings) if is_theirs(sampling)]
        for start in range(0, len(rows), _MOST_ROWS):
            some = rows[start : start + _MOST_ROWS]
            chosen = [samplings[i] for i in some]
            numbers = _column(logits, [uniforms[i] for i in some], torch.float64)
            tokens[some] = draw(_weights(logits[some], chosen), chosen, numbers)
    return [
        int(token) if is_number else None
        for token, is_number in zip(tokens.tolist(), finite.tolist(), strict=True)
    ]


def _is_plain(sampling: Sampling) -> bool:
    return sampling.temperature > 0.0 and not is_filtered(sampling)


def _is_filtered(sampling: Sampling) -> bool:
    return sampling.temperature > 0.0 and is_filtered(sampling)


def _weights(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    below = logits - logits.amax(dim=-1, keepdim=True)
    temperatures = _column(logits, [s.temperature for s in samplings], torch.float32)
    return torch.exp(below / temperatures)


def _by_id(weights: Tensor, _: Sequence[Sampling], numbers: Tensor) -> Tensor:
    running = _parts(weights).cumsum(dim=-1)
    return _fall(running, running[:, -1:], numbers)


def _by_weight(weights: Tensor, samplings: Sequence[Sampling], numbers: Tensor) -> Tensor:
    ranked, ids = torch.sort(weights, dim=-1, descending=True, stable=True)
    running = _parts(ranked).cumsum(dim=-1)
    count = _num_kept(ranked, running, samplings)
    places = _fall(running, running.gather(1, count - 1), numbers)
    return ids.gather(1, places[:, None])[:, 0]


def _num_kept(ranked: Tensor, running: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """How many of the first stay, [rows, 1]: what top-k, top-p within it, and min-p all keep."""
    vocab_size = ranked.shape[-1]
    best_k = [min(s.top_k or vocab_size, vocab_size) for s in samplings]
    count = _column(ranked, best_k, torch.int64)
    mass = running.gather(1, count - 1).double()
    share = _column(ranked, [s.top_p for s in samplings], torch.float64)
    wanted = torch.ceil(share * mass).long()
    in_nucleus = (running < wanted).sum(dim=-1, keepdim=True) + 1
    floor = _column(ranked, [s.min_p for s in samplings], torch.float32)
    above = (ranked >= floor).sum(dim=-1, keepdim=True)
    kept = torch.minimum(torch.minimum(count, in_nucleus), above)
    # A row of no numbers keeps nothing; what it draws is thrown away.
    return kept.clamp(min=1)


def _fall(running: Tensor, mass: Tensor, numbers: Tensor) -> Tensor:
    """Where the numbers fall, [rows]: the first place at which the running sum exceeds them."""
    reached = torch.minimum((numbers * mass.double()).long(), mass - 1)
    return (running <= reached).sum(dim=-1)


def _parts(weights: Tensor) -> Tensor:
    return (weights * PARTS).long()


def _column(like: Tensor, values: Sequence[float], dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=like.device)[:, None]

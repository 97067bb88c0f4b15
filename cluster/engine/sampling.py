"""From logits to tokens, in this order::

    mask      what the grammar allows; no stop id before `min_tokens`
    bias      logit_bias is added
    penalise  repetition, then frequency and presence, of the tokens that are there
    greedy    temperature 0: the best score, of equals the lowest id
    draw      temperature, top-k, top-p, min-p, and one uniform number: see `weights`

A row's token depends on its own logits, sampling, position and ids, and on nothing else: not on the
rows beside it, nor on what this worker remembers. What is remembered of a request (its counts, its
place in a grammar) is made of its ids whenever it is missing, so a request may be preempted, or
change its worker, between any two tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from cluster.engine.device_sampling import pick_rows
from cluster.engine.history import History
from cluster.engine.logprobs import logprobs_of
from cluster.engine.weights import Floats, pick, uniform, weights_of
from cluster.errors import InvariantBroken, ThothError, Unsupported
from cluster.ids import RequestId
from cluster.request import Sampling, TokenLogprobs

if TYPE_CHECKING:
    # The model runs where the library of the grammars is not installed.
    from cluster.text.grammar import Grammars, Walk


@dataclass(frozen=True, slots=True)
class Draw:
    """A token to be drawn from the logits of `row`, which stands at `position`.

    `ids` are all of the request's, the first `num_prompt` of them its prompt.
    """

    row: int
    position: int
    request_id: RequestId
    sampling: Sampling
    ids: Sequence[int]
    num_prompt: int

    @property
    def num_output(self) -> int:
        return len(self.ids) - self.num_prompt


@dataclass(frozen=True, slots=True)
class Drawn:
    """`logprobs` are there when they were asked for. `is_last`: the grammar allows nothing more."""

    token_id: int
    logprobs: TokenLogprobs | None = None
    is_last: bool = False


@dataclass(slots=True)
class _Memory:
    """What follows from the ids of one request."""

    history: History | None
    walk: Walk | None

    def is_ahead_of(self, draw: Draw) -> bool:
        """Whether it knows of tokens that the request has not: another story under its name."""
        num_counted = self.history.num_followed if self.history else 0
        num_walked = self.walk.num_followed if self.walk else 0
        return num_counted > len(draw.ids) or num_walked > draw.num_output


class Sampler:
    """Draws the tokens of a step. `grammars` None: requests with a grammar are refused."""

    def __init__(self, grammars: Grammars | None = None) -> None:
        self._grammars = grammars
        self._memories: dict[RequestId, _Memory] = {}

    def draw(self, logits: Tensor, draws: Sequence[Draw]) -> list[Drawn | ThothError]:
        """A token for each of `draws`, or why there is none; `logits` are [draws, vocab]."""
        if logits.device.type == "cpu":
            rows = logits.float().numpy()
            return [self._draw(row, draw) for row, draw in zip(rows, draws, strict=True)]
        return self._draw_apart(logits.float(), draws)

    def _draw_apart(self, logits: Tensor, draws: Sequence[Draw]) -> list[Drawn | ThothError]:
        """Rows that need nothing but their logits are drawn where these are, in one go."""
        here = [i for i, draw in enumerate(draws) if _needs_host(draw)]
        there = [i for i, draw in enumerate(draws) if not _needs_host(draw)]
        rows = logits[here].cpu().numpy()
        outcomes = {i: self._draw(row, draws[i]) for i, row in zip(here, rows, strict=True)}
        tokens = pick_rows(
            logits[there], [draws[i].sampling for i in there], [_number(draws[i]) for i in there]
        )
        for i, token_id in zip(there, tokens, strict=True):
            outcomes[i] = _no_number(draws[i]) if token_id is None else Drawn(token_id)
        return [outcomes[i] for i in range(len(draws))]

    def forget(self, request_id: RequestId) -> None:
        """The request is over; one that comes back is remembered from its ids."""
        self._memories.pop(request_id, None)

    def _draw(self, logits: Floats, draw: Draw) -> Drawn | ThothError:
        try:
            memory = self._memory(draw)
            token_id = _choose(self._scores(logits, draw, memory), draw)
            is_last = memory is not None and _ends_grammar(token_id, draw, memory)
        except ThothError as error:
            self.forget(draw.request_id)
            return error
        num_top = draw.sampling.num_logprobs
        logprobs = None if num_top is None else logprobs_of(logits, token_id, num_top)
        return Drawn(token_id, logprobs, is_last)

    def _memory(self, draw: Draw) -> _Memory | None:
        """None for the many requests whose next token depends on the last logits alone."""
        if not draw.sampling.has_penalties and draw.sampling.grammar is None:
            return None
        memory = self._memories.get(draw.request_id)
        if memory is None or memory.is_ahead_of(draw):
            memory = self._memories[draw.request_id] = self._remember(draw)
        if memory.history is not None:
            memory.history.follow(draw.ids)
        if memory.walk is not None:
            memory.walk.follow(draw.ids[draw.num_prompt + memory.walk.num_followed :])
        return memory

    def _remember(self, draw: Draw) -> _Memory:
        sampling, walk = draw.sampling, None
        if sampling.grammar is not None:
            if self._grammars is None:
                raise Unsupported("no grammars are offered here", field=sampling.grammar.kind)
            walk = self._grammars.walk(sampling.grammar)
        is_counted = sampling.has_penalties
        return _Memory(History(draw.ids, draw.num_prompt) if is_counted else None, walk)

    def _scores(self, logits: Floats, draw: Draw, memory: _Memory | None) -> Floats:
        """The logits as the rules leave them; the model's own are not touched."""
        sampling = draw.sampling
        is_early = draw.num_output < sampling.min_tokens
        if memory is None and not sampling.logit_bias and not is_early:
            return logits
        scores = logits.copy()
        if memory is not None and memory.walk is not None:
            scores[~memory.walk.mask()[: len(scores)]] = -np.inf
        if is_early:
            _put_off(scores, sampling.stop_ids)
        if sampling.logit_bias:
            ids = np.fromiter(sampling.logit_bias.keys(), dtype=np.int64)
            scores[ids] += np.fromiter(sampling.logit_bias.values(), dtype=np.float32)
        if memory is not None and memory.history is not None:
            memory.history.penalise(scores, sampling)
        return scores


def _ends_grammar(token_id: int, draw: Draw, memory: _Memory) -> bool:
    """Steps on in the grammar; a stop id is no part of the answer."""
    if memory.walk is None or token_id in draw.sampling.stop_ids:
        return False
    memory.walk.follow((token_id,))
    return memory.walk.is_whole


def _put_off(scores: Floats, stop_ids: frozenset[int]) -> None:
    """Masks the stop ids, unless a grammar has left nothing else."""
    ids = np.fromiter(stop_ids, dtype=np.int64)
    kept = scores[ids].copy()
    scores[ids] = -np.inf
    if np.isneginf(scores.max()):
        scores[ids] = kept


def _choose(scores: Floats, draw: Draw) -> int:
    sampling = draw.sampling
    best = int(np.argmax(scores))
    if not np.isfinite(scores[best]):
        raise _no_number(draw)
    if sampling.temperature == 0.0:
        return best
    return pick(weights_of(scores, sampling.temperature), sampling, _number(draw))


def _number(draw: Draw) -> float:
    return uniform(draw.sampling.seed, draw.sampling.choice, draw.position)


def _needs_host(draw: Draw) -> bool:
    """Whether the row's token depends on more than its logits, or more than a token is wanted."""
    sampling = draw.sampling
    return bool(
        sampling.has_penalties
        or sampling.grammar
        or sampling.logit_bias
        or sampling.num_logprobs is not None
        or draw.num_output < sampling.min_tokens
    )


def _no_number(draw: Draw) -> InvariantBroken:
    return InvariantBroken(f"the best logit of {draw.request_id} is no finite number")

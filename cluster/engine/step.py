"""A step's plan as tensors: rows of many requests, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.attention.layout import Run, RunGroup, group_runs
from cluster.engine.kv_cache import slots_of
from cluster.ids import RequestId
from cluster.request import Sampling
from cluster.scheduling.iteration import Chunk


@dataclass(frozen=True, slots=True)
class Draw:
    """A token to be drawn from the logits of `row`, which stands at `position`."""

    row: int
    position: int
    request_id: RequestId
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Step:
    """token_ids, positions and slots are [rows] int64: what is computed, where in its context it
    stands, and where its keys and values go."""

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    groups: tuple[RunGroup, ...]
    draws: tuple[Draw, ...]


def lay_out(chunks: Sequence[Chunk]) -> Step:
    """Chunks in plan order; a chunk that spans segments becomes a run for each."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[Tensor] = []
    runs: list[Run] = []
    draws: list[Draw] = []
    for chunk in chunks:
        first_row, end = len(token_ids), chunk.start + len(chunk.token_ids)
        token_ids += chunk.token_ids
        positions += range(chunk.start, end)
        segments = [slots_of(view) for view in chunk.segments]
        slots.append(torch.cat(segments)[chunk.start :])
        runs += _runs(segments, chunk.start, first_row)
        if chunk.sampling is not None:
            draws.append(Draw(len(token_ids) - 1, end - 1, chunk.request_id, chunk.sampling))
    return Step(
        token_ids=torch.tensor(token_ids),
        positions=torch.tensor(positions),
        slots=torch.cat(slots),
        groups=group_runs(runs),
        draws=tuple(draws),
    )


def _runs(segments: list[Tensor], start: int, first_row: int) -> list[Run]:
    """The rows from position `start` on, cut where segments are cut."""
    runs = []
    segment_start = 0
    for i, segment in enumerate(segments):
        segment_end = segment_start + len(segment)
        begin = max(start, segment_start)
        if begin < segment_end:
            row = first_row + begin - start
            runs.append(Run(row, segment_end - begin, tuple(segments[: i + 1])))
        segment_start = segment_end
    return runs

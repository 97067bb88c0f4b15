"""A step's plan as tensors: rows of many requests, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cluster.attention.plan import Run
from cluster.attention.split import SplitPlan, split_attention
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.blocks.segment import Home
from cluster.engine.sampling import Draw
from cluster.request import Sampling
from cluster.scheduling.plan import Chunk


@dataclass(frozen=True, slots=True)
class Step:
    """token_ids and positions are [rows] int64: what is computed, and where in its context it
    stands. `output_rows` [draws] int64 are the rows drawn from.

    Keys and values go to `slots` int64 on the device, or to the host's. `device_rows` int64 are the
    rows of `slots`, in their order; None: all of the step, and `host` is None too.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    output_rows: Tensor
    attention: SplitPlan
    draws: tuple[Draw, ...]
    device_rows: Tensor | None = None
    host: HostRows | None = None


@dataclass(frozen=True, slots=True)
class HostRows:
    """Rows of a step whose keys and values go to the host, and to which slots: [rows] int64, in
    one order."""

    rows: Tensor
    slots: Tensor


def lay_out(chunks: Sequence[Chunk]) -> Step:
    """Chunks in plan order; a chunk that spans segments becomes a run for each."""
    token_ids: list[int] = []
    positions: list[int] = []
    written = _Written()
    runs: list[Run] = []
    draws: list[Draw] = []
    for chunk in chunks:
        first_row, end = len(token_ids), chunk.start + len(chunk.token_ids)
        token_ids += chunk.token_ids
        positions += range(chunk.start, end)
        for run in _runs(chunk, first_row):
            runs.append(run)
            written.add(run)
        if chunk.sampling is not None:
            draws.append(_draw(chunk, chunk.sampling, len(token_ids) - 1))
    return Step(
        token_ids=torch.tensor(token_ids),
        positions=torch.tensor(positions),
        slots=torch.tensor(written.slots, dtype=torch.int64),
        output_rows=torch.tensor([draw.row for draw in draws], dtype=torch.int64),
        attention=split_attention(runs),
        draws=tuple(draws),
        device_rows=written.device_rows(),
        host=written.host(),
    )


@dataclass(slots=True)
class _Written:
    """Rows and slots, on the device and on the host."""

    rows: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    host_rows: list[int] = field(default_factory=list)
    host_slots: list[int] = field(default_factory=list)

    def add(self, run: Run) -> None:
        rows = range(run.first_row, run.first_row + run.num_rows)
        if run.segments[-1].home is Home.DEVICE:
            self.rows += rows
            self.slots += _slots(run)
        else:
            self.host_rows += rows
            self.host_slots += _slots(run)

    def device_rows(self) -> Tensor | None:
        return torch.tensor(self.rows, dtype=torch.int64) if self.host_rows else None

    def host(self) -> HostRows | None:
        if not self.host_rows:
            return None
        return HostRows(torch.tensor(self.host_rows), torch.tensor(self.host_slots))


def _draw(chunk: Chunk, sampling: Sampling, row: int) -> Draw:
    return Draw(
        row=row,
        position=chunk.start + len(chunk.token_ids) - 1,
        request_id=chunk.request_id,
        sampling=sampling,
        ids=chunk.ids,
        num_prompt=chunk.num_prompt,
    )


def _runs(chunk: Chunk, first_row: int) -> Iterator[Run]:
    """The chunk's rows, cut where segments are cut."""
    segment_start = 0
    for i, segment in enumerate(chunk.segments):
        segment_end = segment_start + segment.num_tokens
        begin = max(chunk.start, segment_start)
        if begin < segment_end:
            row = first_row + begin - chunk.start
            yield Run(row, segment_end - begin, chunk.segments[: i + 1])
        segment_start = segment_end


def _slots(run: Run) -> list[int]:
    """Where the keys and values of the run's rows go: the end of its last segment."""
    segment = run.segments[-1]
    return [
        segment.blocks[i // BLOCK_TOKENS] * BLOCK_TOKENS + i % BLOCK_TOKENS
        for i in range(segment.num_tokens - run.num_rows, segment.num_tokens)
    ]

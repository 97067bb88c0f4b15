"""Attention of rows whose segments lie in several memories.

A row's state is the left fold of its states over its segments. Where they lie in two memories, each
computes the states over what it holds, the row's *parts*, and the device folds them in the order of
the context. The order is the one of a context that lies in one memory, and so are the bits:

    context   [ host | host | device | host | host | device, the row's own ]
    parts     [    host 0   | device 0 | host 1 | host 2 |    device 1     ]

Only the beginning of a context may be folded where it lies: what comes later is folded onto it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cluster.attention.plan import AttentionPlan, Run, plan_attention
from cluster.blocks.segment import Home, SegmentView


@dataclass(frozen=True, slots=True)
class PartPlan:
    """What one memory is asked for. All tensors are on the cpu.

    queries    [queries] int64  rows of the step whose q is needed
    rows       [parts] int32    which of the queries each part is a state of
    attention  its rows are the parts
    is_growing whether rows of the step are written there, so that its blocks change in every layer
    """

    queries: Tensor
    rows: Tensor
    attention: AttentionPlan
    is_growing: bool = False

    @property
    def num_parts(self) -> int:
        return len(self.rows)

    @property
    def num_numbers(self) -> int:
        """Of `rows` and of all arrays of `attention`."""
        return len(self.rows) + self.attention.num_numbers


@dataclass(frozen=True, slots=True)
class Fold:
    """Which parts make which rows. Flat int32 tensors on the cpu.

    rows     [folded]      rows of the step
    offsets  [folded + 1]  where a row's part of `parts` begins
    parts    [...]         in the order of the context; numbered through all memories, in the order
                           of `Home`
    """

    rows: Tensor
    offsets: Tensor
    parts: Tensor


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """`whole` has the rows that lie on the device alone. Without others `parts` is empty, and
    `fold` None."""

    whole: AttentionPlan
    parts: Mapping[Home, PartPlan]
    fold: Fold | None


def split_attention(runs: Sequence[Run]) -> SplitPlan:
    """Cuts the runs that do not lie on the device alone."""
    split = _Split()
    whole: list[Run] = []
    for run in runs:
        if all(segment.home is Home.DEVICE for segment in run.segments):
            whole.append(run)
        else:
            split.add(run)
    return SplitPlan(plan_attention(whole), split.parts(), split.fold())


@dataclass(slots=True)
class _Split:
    runs: defaultdict[Home, list[Run]] = field(default_factory=lambda: defaultdict(list))
    step_rows: defaultdict[Home, list[int]] = field(default_factory=lambda: defaultdict(list))
    growing: set[Home] = field(default_factory=set)
    # Of each row of the step: its parts, as memory and number there.
    folded: list[tuple[int, list[tuple[Home, int]]]] = field(default_factory=list)

    def add(self, run: Run) -> None:
        parts = [self._add_part(run, *part) for part in _parts(run.segments)]
        for i in range(run.num_rows):
            numbers = [(home, first + i) for home, first in parts]
            self.folded.append((run.first_row + i, numbers))

    def _add_part(
        self, run: Run, home: Home, segments: tuple[SegmentView, ...], is_last: bool
    ) -> tuple[Home, int]:
        """The memory, and the number there of the first row's part."""
        first = len(self.step_rows[home])
        self.step_rows[home] += range(run.first_row, run.first_row + run.num_rows)
        if is_last:
            self.growing.add(home)
            self.runs[home].append(Run(first, run.num_rows, segments))
        else:
            # A run's rows see each other's keys in its last segment; these see all of it.
            self.runs[home] += [Run(first + i, 1, segments) for i in range(run.num_rows)]
        return home, first

    def parts(self) -> dict[Home, PartPlan]:
        return {home: self._part_plan(home) for home in sorted(self.runs)}

    def _part_plan(self, home: Home) -> PartPlan:
        step_rows = torch.tensor(self.step_rows[home], dtype=torch.int64)
        queries, rows = torch.unique(step_rows, return_inverse=True)
        attention = plan_attention(self.runs[home])
        return PartPlan(queries, rows.to(torch.int32), attention, home in self.growing)

    def fold(self) -> Fold | None:
        if not self.folded:
            return None
        begin: Counter[Home] = Counter()
        for before, home in zip(Home, list(Home)[1:], strict=False):
            begin[home] = begin[before] + len(self.step_rows[before])
        offsets, parts = [0], []
        for _, numbers in self.folded:
            parts += [begin[home] + number for home, number in numbers]
            offsets.append(len(parts))
        rows = [row for row, _ in self.folded]
        return Fold(*(torch.tensor(each, dtype=torch.int32) for each in (rows, offsets, parts)))


def _parts(
    segments: Sequence[SegmentView],
) -> Iterator[tuple[Home, tuple[SegmentView, ...], bool]]:
    """Memory, segments, and whether the context's last is among them."""
    first_home = segments[0].home
    beginning = next(
        (i for i, segment in enumerate(segments) if segment.home is not first_home), len(segments)
    )
    yield first_home, tuple(segments[:beginning]), beginning == len(segments)
    for i, segment in enumerate(segments[beginning:], beginning):
        yield segment.home, (segment,), i + 1 == len(segments)

"""What a step's rows attend, laid out once and used by every layer.

A *run* is rows of one request that lie in one segment: they see the whole of the segments before it
and, in their own, the keys up to themselves.

    run  ->  its segments      run_offsets, run_segments
    segment  ->  its blocks    segment_offsets, block_ids

Runs that attend the same segment share its entry, which is how a kernel comes to read it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate

import torch
from torch import Tensor

from cluster.blocks.segment import SegmentView


@dataclass(frozen=True, slots=True)
class Run:
    """`num_rows` rows of the step from `first_row` on, in the last of `segments`.

    Row `i` sees all keys of the earlier segments and `num_tokens - num_rows + i + 1` of the last.
    """

    first_row: int
    num_rows: int
    segments: tuple[SegmentView, ...]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Flat int32 tensors on the cpu.

    run_rows         [runs, 2]       first_row and num_rows
    run_offsets      [runs + 1]      where a run's part of run_segments begins
    run_segments     [...]           numbers of segments, in the order of the context
    segment_tokens   [segments]      keys of the segment that its last reader sees
    segment_offsets  [segments + 1]  where a segment's part of block_ids begins
    block_ids        [...]
    """

    run_rows: Tensor
    run_offsets: Tensor
    run_segments: Tensor
    segment_tokens: Tensor
    segment_offsets: Tensor
    block_ids: Tensor

    @property
    def num_numbers(self) -> int:
        """Of all arrays together."""
        return sum(getattr(self, each.name).numel() for each in fields(self))


def plan_attention(runs: Sequence[Run]) -> AttentionPlan:
    """Lays runs out; a segment is told by its first block and its length, for no block belongs to
    two segments."""
    numbers: dict[tuple[int, int], int] = {}
    segments: list[SegmentView] = []
    run_segments: list[int] = []
    for run in runs:
        for segment in run.segments:
            number = numbers.setdefault((segment.blocks[0], segment.num_tokens), len(segments))
            if number == len(segments):
                segments.append(segment)
            run_segments.append(number)
    blocks = [block for segment in segments for block in segment.blocks]
    return AttentionPlan(
        run_rows=_int32([(run.first_row, run.num_rows) for run in runs]).view(-1, 2),
        run_offsets=_int32([0, *accumulate(len(run.segments) for run in runs)]),
        run_segments=_int32(run_segments),
        segment_tokens=_int32([segment.num_tokens for segment in segments]),
        segment_offsets=_int32([0, *accumulate(len(segment.blocks) for segment in segments)]),
        block_ids=_int32(blocks),
    )


def _int32(values: Sequence[int] | Sequence[tuple[int, int]]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)

"""A plan as padded tensors, for the torch reference.

Runs of equal padded height are computed together.

    run  ->  tiles [(segment, tile), ...]        folded left to right, closing at a segment's end
    rows ->  padded to a multiple of 4           bits of a row must not depend on others
    keys ->  padded to TILE_TOKENS a tile        for the same reason
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cluster.attention.plan import AttentionPlan
from cluster.attention.state import TILE_TOKENS
from cluster.blocks.pool import BLOCK_TOKENS

# Rows of a matrix product are independent of each other, bit for bit, in multiples of this many;
# a run of many rows takes the larger, so that fewer heights are told apart.
ROW_MULTIPLE = 4
LONG_ROW_MULTIPLE = 16

TILE_BLOCKS = TILE_TOKENS // BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """`segments` holds for each its blocks and how many keys of it the run's last row sees."""

    first_row: int
    num_rows: int
    segments: tuple[tuple[Tensor, int], ...]

    @property
    def num_tiles(self) -> int:
        return sum(-(-num_tokens // TILE_TOKENS) for _, num_tokens in self.segments)


@dataclass(frozen=True, slots=True)
class RunGroup:
    """Runs of one padded height, in tensors.

    rows      [runs, height]            row of the step, -1 on padding
    blocks    [tiles, runs, 16]         blocks of the keys, 0 on padding
    key_mask  [tiles, runs, 256]        True on padding
    mask      [tiles, runs, height, 256] True where a row does not see a key
    closes    [tiles, runs]             True at the last tile of a segment
    """

    rows: Tensor
    blocks: Tensor
    key_mask: Tensor
    mask: Tensor
    closes: Tensor

    def to(self, device: torch.device | str) -> RunGroup:
        return RunGroup(
            self.rows.to(device),
            self.blocks.to(device),
            self.key_mask.to(device),
            self.mask.to(device),
            self.closes.to(device),
        )


def group_runs(plan: AttentionPlan) -> tuple[RunGroup, ...]:
    """Groups runs by padded height; a run's tiles beyond its own count are empty."""
    by_height: dict[int, list[PlannedRun]] = defaultdict(list)
    for run in _runs(plan):
        by_height[_padded(run.num_rows)].append(run)
    return tuple(_group(members, height) for height, members in sorted(by_height.items()))


def _runs(plan: AttentionPlan) -> list[PlannedRun]:
    offsets = plan.segment_offsets.tolist()
    block_ids = plan.block_ids.long()
    parts = [block_ids[a:b] for a, b in pairwise(offsets)]
    segments = list(zip(parts, plan.segment_tokens.tolist(), strict=True))
    numbers, bounds = plan.run_segments.tolist(), plan.run_offsets.tolist()
    return [
        PlannedRun(first_row, num_rows, tuple(segments[n] for n in numbers[start:end]))
        for (first_row, num_rows), (start, end) in zip(
            plan.run_rows.tolist(), pairwise(bounds), strict=True
        )
    ]


def _padded(num_rows: int) -> int:
    multiple = ROW_MULTIPLE if num_rows <= ROW_MULTIPLE else LONG_ROW_MULTIPLE
    return -(-num_rows // multiple) * multiple


def _group(runs: list[PlannedRun], height: int) -> RunGroup:
    num_tiles = max(run.num_tiles for run in runs)
    shape = (num_tiles, len(runs))
    rows = torch.full((len(runs), height), -1, dtype=torch.int64)
    blocks = torch.zeros((*shape, TILE_BLOCKS), dtype=torch.int64)
    visible = torch.zeros((*shape, height), dtype=torch.int64)
    num_keys = torch.zeros(shape, dtype=torch.int64)
    closes = torch.zeros(shape, dtype=torch.bool)
    for r, run in enumerate(runs):
        rows[r, : run.num_rows] = torch.arange(run.first_row, run.first_row + run.num_rows)
        tile = 0
        for s, (segment, num_tokens) in enumerate(run.segments):
            own = s == len(run.segments) - 1
            limits = _limits(run, num_tokens, height) if own else None
            for start in range(0, num_tokens, TILE_TOKENS):
                count = min(TILE_TOKENS, num_tokens - start)
                first = start // BLOCK_TOKENS
                part = segment[first : first + -(-count // BLOCK_TOKENS)]
                blocks[tile, r, : len(part)] = part
                num_keys[tile, r] = count
                visible[tile, r] = count if limits is None else limits - start
                tile += 1
            closes[tile - 1, r] = True
    columns = torch.arange(TILE_TOKENS)
    key_mask = columns >= num_keys.unsqueeze(-1)
    mask = (columns >= visible.unsqueeze(-1)) | key_mask.unsqueeze(-2)
    return RunGroup(rows, blocks, key_mask, mask, closes)


def _limits(run: PlannedRun, num_keys: int, height: int) -> Tensor:
    """Keys of its own segment each row sees; padding rows see what the last one does."""
    limits = torch.arange(height).clamp(max=run.num_rows - 1)
    return limits + (num_keys - run.num_rows + 1)

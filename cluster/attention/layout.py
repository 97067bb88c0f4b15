"""What a step's rows attend, laid out as tensors once and used by every layer.

A *run* is rows of one request that lie in one segment: they see the whole of the segments before it
and, in their own, the keys up to themselves. Runs of equal padded height are computed together.

    run  ->  tiles [(segment, tile), ...]        folded left to right, closing at a segment's end
    rows ->  padded to a multiple of 4           bits of a row must not depend on others
    keys ->  padded to TILE_TOKENS a tile        for the same reason
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.attention.state import TILE_TOKENS

# Rows of a matrix product are independent of each other, bit for bit, in multiples of this many;
# a run of many rows takes the larger, so that fewer heights are told apart.
ROW_MULTIPLE = 4
LONG_ROW_MULTIPLE = 16


@dataclass(frozen=True, slots=True)
class Run:
    """`num_rows` rows of the step from `first_row` on.

    `segments`: for each segment the slots of its keys, [tokens] int64, the last cut after the run's
    last row; row `i` sees all keys of the earlier ones and `len(last) - num_rows + i + 1` of the
    last.
    """

    first_row: int
    num_rows: int
    segments: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class RunGroup:
    """Runs of one padded height, in tensors.

    rows      [runs, height]            row of the step, -1 on padding
    slots     [tiles, runs, 256]        slots of the keys, 0 on padding
    key_mask  [tiles, runs, 256]        True on padding
    mask      [tiles, runs, height, 256] True where a row does not see a key
    closes    [tiles, runs]             True at the last tile of a segment
    """

    rows: Tensor
    slots: Tensor
    key_mask: Tensor
    mask: Tensor
    closes: Tensor


def group_runs(runs: Sequence[Run]) -> tuple[RunGroup, ...]:
    """Groups runs by padded height; a run's tiles beyond its own count are empty."""
    by_height: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        by_height[_padded(run.num_rows)].append(run)
    return tuple(_group(members, height) for height, members in sorted(by_height.items()))


def _padded(num_rows: int) -> int:
    multiple = ROW_MULTIPLE if num_rows <= ROW_MULTIPLE else LONG_ROW_MULTIPLE
    return -(-num_rows // multiple) * multiple


def _group(runs: list[Run], height: int) -> RunGroup:
    num_tiles = max(sum(-(-len(s) // TILE_TOKENS) for s in run.segments) for run in runs)
    shape = (num_tiles, len(runs))
    rows = torch.full((len(runs), height), -1, dtype=torch.int64)
    slots = torch.zeros((*shape, TILE_TOKENS), dtype=torch.int64)
    visible = torch.zeros((*shape, height), dtype=torch.int64)
    num_keys = torch.zeros(shape, dtype=torch.int64)
    closes = torch.zeros(shape, dtype=torch.bool)
    for r, run in enumerate(runs):
        rows[r, : run.num_rows] = torch.arange(run.first_row, run.first_row + run.num_rows)
        tile = 0
        for s, segment in enumerate(run.segments):
            own = s == len(run.segments) - 1
            limits = _limits(run, len(segment), height) if own else None
            for start in range(0, len(segment), TILE_TOKENS):
                keys = segment[start : start + TILE_TOKENS]
                slots[tile, r, : len(keys)] = keys
                num_keys[tile, r] = len(keys)
                visible[tile, r] = len(keys) if limits is None else limits - start
                tile += 1
            closes[tile - 1, r] = True
    columns = torch.arange(TILE_TOKENS)
    key_mask = columns >= num_keys.unsqueeze(-1)
    mask = (columns >= visible.unsqueeze(-1)) | key_mask.unsqueeze(-2)
    return RunGroup(rows, slots, key_mask, mask, closes)


def _limits(run: Run, num_keys: int, height: int) -> Tensor:
    """Keys of its own segment each row sees; padding rows see what the last one does."""
    limits = torch.arange(height).clamp(max=run.num_rows - 1)
    return limits + (num_keys - run.num_rows + 1)

"""A segment in memory: token `i` of it stands in slot `i % 16` of block `i // 16`.

A segment begins on a block boundary, so two segments never share a block and nothing is copied when
one is shared; the price is 8 slots a segment on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from cluster.blocks.pool import blocks_for
from cluster.ids import BlockId


class Home(IntEnum):
    """The memory that a segment's blocks are numbered in, and that whoever attends it reads.

    STREAMED is the host's memory too, but it is the device that attends it, a layer at a time: so
    a prompt is computed whose keys and values have no room on the device.
    """

    DEVICE = 0
    HOST = 1
    STREAMED = 2


class SegmentView(NamedTuple):
    """A segment as a step sees it: `num_tokens` of it are readable once the step has written its
    rows. A tuple, as are chunks, because every step makes one for every row."""

    blocks: tuple[BlockId, ...]
    num_tokens: int
    home: Home = Home.DEVICE


@dataclass(slots=True)
class SegmentTable:
    """The blocks of one segment of a running request: its own, or, when `is_shared`, lent to it."""

    blocks: tuple[BlockId, ...] = ()
    is_shared: bool = False
    home: Home = Home.DEVICE

    def missing(self, num_tokens: int) -> int:
        """Blocks still to be allocated before `num_tokens` fit."""
        return max(0, blocks_for(num_tokens) - len(self.blocks))

    def view(self, num_tokens: int) -> SegmentView:
        blocks, count = self.blocks, blocks_for(num_tokens)
        return SegmentView(
            blocks if len(blocks) == count else blocks[:count], num_tokens, self.home
        )

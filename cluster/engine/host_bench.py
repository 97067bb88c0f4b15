"""What attention on the host costs, by who attends it: an attention worker's time is not this
process's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from cluster.attention.plan import Run
from cluster.attention.port import AttentionPort
from cluster.attention.shared_memory import ChannelSizes
from cluster.attention.split import PartPlan, split_attention
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.blocks.segment import Home, SegmentView
from cluster.clock import Clock
from cluster.engine.tiers.host_arena import HostArena
from cluster.ids import BlockId
from cluster.scheduling.stages import Curve, HostCosts, measured_curve

_BLOCKS = 16
_ROWS = 8
_REPEATS = 3


class Taken(NamedTuple):
    """Seconds of all layers, the least of a few: there and back, and computing there."""

    whole_s: float
    busy_s: float


@dataclass(frozen=True, slots=True)
class HostBench:
    """Attends some of what lies in the arena, whatever that is."""

    arena: HostArena
    sizes: ChannelSizes
    clock: Clock

    def block_s(self, port: AttentionPort) -> float:
        """For a block that a row attends whose own lie on the device, there and back."""
        blocks = self._blocks()
        if not blocks:
            return 0.0
        own = SegmentView((BlockId(0),), 1, Home.DEVICE)
        return self._taken(port, _plan(1, blocks, own)).whole_s / len(blocks)

    def carries_growing(self, port: AttentionPort) -> bool:
        """Whether rows may be attended there whose own keys and values are written there."""
        return port.carries(_plan(1, (BlockId(0),)))

    def costs(self, port: AttentionPort, *, is_beside: bool) -> HostCosts:
        """Of rows that lie there whole. Raises Lost."""
        blocks = self._blocks()
        if not blocks:
            return HostCosts(Curve((0,), [0.0]), 0.0, is_beside)
        one = self._busy_s(port, 1, blocks[:1])
        long = self._busy_s(port, 1, blocks)
        rows = self._busy_s(port, _ROWS, blocks[:1])
        most = self._busy_s(port, _ROWS, blocks)
        # Rows of one block each take as many keys as a row of as many blocks.
        key_s = max(0.0, most - rows) / (_ROWS * BLOCK_TOKENS * max(1, len(blocks) - 1))
        row_s = max(0.0, (rows - one) / (_ROWS - 1) - BLOCK_TOKENS * key_s)
        points = {
            BLOCK_TOKENS: one - row_s,
            len(blocks) * BLOCK_TOKENS: long - row_s,
            _ROWS * len(blocks) * BLOCK_TOKENS: most - _ROWS * row_s,
        }
        return HostCosts(measured_curve(points), row_s, is_beside)

    def _busy_s(self, port: AttentionPort, rows: int, blocks: tuple[BlockId, ...]) -> float:
        return self._taken(port, _plan(rows, blocks)).busy_s

    @torch.inference_mode()
    def _taken(self, port: AttentionPort, plan: PartPlan) -> Taken:
        q = torch.zeros((len(plan.queries), self.sizes.heads, self.sizes.head_dim))
        exchange = port.prepare(plan)
        try:
            taken = []
            for _ in range(_REPEATS):
                begun_s, busy_s = self.clock.now_s(), exchange.busy_s
                for layer in range(self.arena.layout.shape.num_layers):
                    exchange.post(layer, q)
                    exchange.collect(layer)
                taken.append(Taken(self.clock.now_s() - begun_s, exchange.busy_s - busy_s))
        finally:
            exchange.close()
        return Taken(min(t.whole_s for t in taken), min(t.busy_s for t in taken))

    def _blocks(self) -> tuple[BlockId, ...]:
        """Some of the host, whatever lies in them, but none that is half written."""
        generations = self.arena.generations(np.arange(self.arena.num_blocks))
        return tuple(map(BlockId, np.flatnonzero(generations % 2 == 0)[:_BLOCKS].tolist()))


def _plan(rows: int, blocks: tuple[BlockId, ...], *own: SegmentView) -> PartPlan:
    """Rows over these blocks, and over what is their own besides; no two in one order, so that
    none is read for two."""
    runs = []
    for row in range(rows):
        turned = blocks[row % len(blocks) :] + blocks[: row % len(blocks)]
        on_host = SegmentView(turned, len(blocks) * BLOCK_TOKENS, Home.HOST)
        runs.append(Run(row, 1, (on_host, *own)))
    return split_attention(runs).parts[Home.HOST]

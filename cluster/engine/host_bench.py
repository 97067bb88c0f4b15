"""What attention on the host costs, by who attends it: an attention worker's time is not this
process's."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
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
from cluster.scheduling.curves import Curve, measured_curve
from cluster.scheduling.stages import HostCosts

_BLOCKS = 16
_ROWS = 8
_REPEATS = 3
# Of a probe, which whoever is served meanwhile waits for.
_PROBE_ROWS = 4
_PROBE_LAYERS = 2


class Taken(NamedTuple):
    """Seconds: there and back, and computing there."""

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

    @torch.inference_mode()
    def probe(self, port: AttentionPort) -> tuple[int, int, float] | None:
        """Rows, keys that they attend, and the seconds that all layers of them would take, by a few
        in one layer; None: nothing there may be read."""
        blocks = self._blocks()[:_PROBE_ROWS]
        if not blocks:
            return None
        plan = _plan(_PROBE_ROWS, blocks)
        taken = self._layers(port, plan, [0] * _PROBE_LAYERS)
        seconds = min(each.busy_s for each in taken) * self.arena.layout.shape.num_layers
        return _PROBE_ROWS, _PROBE_ROWS * len(blocks) * BLOCK_TOKENS, seconds

    def _busy_s(self, port: AttentionPort, rows: int, blocks: tuple[BlockId, ...]) -> float:
        return self._taken(port, _plan(rows, blocks)).busy_s

    @torch.inference_mode()
    def _taken(self, port: AttentionPort, plan: PartPlan) -> Taken:
        num_layers = self.arena.layout.shape.num_layers
        taken = self._layers(port, plan, [*range(num_layers)] * _REPEATS)
        repeats = [taken[i : i + num_layers] for i in range(0, len(taken), num_layers)]
        return Taken(
            min(sum(layer.whole_s for layer in each) for each in repeats),
            min(sum(layer.busy_s for layer in each) for each in repeats),
        )

    def _layers(self, port: AttentionPort, plan: PartPlan, layers: Iterable[int]) -> list[Taken]:
        """Of each."""
        q = torch.zeros((len(plan.queries), self.sizes.heads, self.sizes.head_dim))
        taken = []
        with closing(port.prepare(plan)) as exchange:
            for layer in layers:
                begun_s, busy_s = self.clock.now_s(), exchange.busy_s
                exchange.post(layer, q)
                exchange.collect(layer)
                taken.append(Taken(self.clock.now_s() - begun_s, exchange.busy_s - busy_s))
        return taken

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

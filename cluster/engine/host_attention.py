"""Who attends what lies on the host, and what that costs: an attention worker's time is not this
process's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from cluster.attention.fallback import FallbackPort
from cluster.attention.plan import Run
from cluster.attention.port import AttentionPort
from cluster.attention.shared_memory import ChannelSizes
from cluster.attention.split import PartPlan, split_attention
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.blocks.segment import Home, SegmentView
from cluster.clock import Clock
from cluster.engine.tiers.host_arena import HostArena
from cluster.errors import ThothError
from cluster.ids import BlockId

_BLOCKS = 16
_REPEATS = 3


@dataclass(slots=True)
class HostAttention:
    """`port` is the one that steps use; what a worker has to be told is `arena.kv`, `arena.fd` and
    `sizes`. `own_block_s`: see `TransferCost.attend_block_s`."""

    port: FallbackPort
    arena: HostArena
    sizes: ChannelSizes
    clock: Clock
    own_block_s: float = 0.0
    _worker_block_s: float = field(init=False, default=0.0)

    @property
    def block_s(self) -> float:
        """For whoever attends now."""
        return self.own_block_s if self.port.worker is None else self._worker_block_s

    @torch.inference_mode()
    def attach(self, worker: AttentionPort | None) -> None:
        """Between two steps: the worker that attends from now on, once it has shown how long it
        takes. Raises Lost, with its port closed and nothing changed, when it does not."""
        if worker is not None:
            try:
                more_s = self._seconds(worker) - self._seconds(self.port.own)
            except ThothError:
                worker.close()
                raise
            self._worker_block_s = max(0.0, self.own_block_s + more_s)
        self.port.attach(worker)

    def _seconds(self, port: AttentionPort) -> float:
        """For a block, over all layers: the least of a few."""
        blocks = self._blocks()
        if not blocks:
            return 0.0
        return min(islice(self._rounds(port, self._plan(blocks)), _REPEATS)) / len(blocks)

    def _rounds(self, port: AttentionPort, plan: PartPlan) -> Iterator[float]:
        q = torch.zeros((len(plan.queries), self.sizes.heads, self.sizes.head_dim))
        exchange = port.prepare(plan)
        try:
            while True:
                begun_s = self.clock.now_s()
                for layer in range(self.arena.layout.shape.num_layers):
                    exchange.post(layer, q)
                    exchange.collect(layer)
                yield self.clock.now_s() - begun_s
        finally:
            exchange.close()

    def _blocks(self) -> tuple[BlockId, ...]:
        """Some of the host, whatever lies in them, but none that is half written."""
        generations = self.arena.generations(np.arange(self.arena.num_blocks))
        return tuple(map(BlockId, np.flatnonzero(generations % 2 == 0)[:_BLOCKS].tolist()))

    def _plan(self, blocks: tuple[BlockId, ...]) -> PartPlan:
        """A row over these blocks."""
        on_host = SegmentView(blocks, len(blocks) * BLOCK_TOKENS, Home.HOST)
        own = SegmentView((BlockId(0),), 1, Home.DEVICE)
        return split_attention([Run(0, 1, (on_host, own))]).parts[Home.HOST]

    def close(self) -> None:
        self.port.close()

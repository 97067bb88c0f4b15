"""Runs forward passes that nobody asked for, to see how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch

from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import Home, SegmentView
from cluster.clock import Clock
from cluster.engine.forward import Computed, Forward
from cluster.engine.step import lay_out
from cluster.ids import BlockId, RequestId
from cluster.knowledge.prefill_cost import PrefillCost
from cluster.request import Sampling
from cluster.scheduling.plan import Chunk
from cluster.scheduling.stages import StageTimes

ALPHAS = (0, 512, 2048, 8192)
BETAS = (1, 16, 128)
_REPEATS = 3
_ATTENDED_BLOCKS = 64


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of a step, the least of a few: whole, and `times` of them; None where the clock does
    not see the device."""

    whole_s: float
    times: StageTimes | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured: a forward pass over a pool of blocks that nobody uses yet."""

    forward: Forward
    num_blocks: int
    context_tokens: int
    step_tokens: int
    clock: Clock

    @property
    def most_rows(self) -> int:
        """Of a step that fits the pool and the context."""
        return min(self.step_tokens, self.num_blocks * BLOCK_TOKENS, self.context_tokens)

    def measure(self) -> PrefillCost:
        """Seconds of chunks that fit the pool, the context and a step."""
        betas = sorted({min(beta, self.most_rows) for beta in BETAS})
        room = max(0, self.context_tokens - betas[-1])
        alphas = sorted({min(alpha, room) for alpha in ALPHAS})
        self._seconds(0, betas[0])
        seconds = [[self._seconds(alpha, beta) for beta in betas] for alpha in alphas]
        return PrefillCost(tuple(alphas), tuple(betas), seconds)

    def attend_block_s(self, num_host_blocks: int) -> float:
        """How much longer a row takes for a block of the host than for one of the device."""
        count = min(_ATTENDED_BLOCKS, num_host_blocks, self.num_blocks)
        if not count:
            return inf
        alpha = min(count * BLOCK_TOKENS, self.context_tokens - 1)
        on_device, on_host = (self._seconds(alpha, 1, home) for home in (Home.DEVICE, Home.HOST))
        return max(0.0, on_host - on_device) / count

    def _seconds(self, alpha: int, beta: int, home: Home = Home.DEVICE) -> float:
        return self.timed([self.chunk(alpha, beta, home)]).whole_s

    @torch.inference_mode()
    def timed(self, chunks: Sequence[Chunk]) -> Timed:
        """What disturbs only adds."""
        step = lay_out(chunks)
        taken = []
        for _ in range(_REPEATS):
            begun_s = self.clock.now_s()
            computed = self.forward.compute([step])
            # Reading a number waits for whatever computes it.
            float(computed.logits[0, 0])
            taken.append((self.clock.now_s() - begun_s, computed))
        return _least(taken)

    def chunk(self, alpha: int, beta: int, home: Home = Home.DEVICE, first: int = 0) -> Chunk:
        """Rows after `alpha` tokens, which lie in the memory that is asked about, in blocks from
        the `first` on."""
        segments = [self._segment(alpha, first + 1, home)] if alpha else []
        return Chunk(
            request_id=RequestId("profile"),
            start=alpha,
            token_ids=(0,) * beta,
            segments=(*segments, self._segment(beta, first, Home.DEVICE)),
            sampling=Sampling(),
        )

    def _segment(self, num_tokens: int, first: int, home: Home) -> SegmentView:
        """Blocks serve more than once: what lies in them does not change the time."""
        num_blocks = self.num_blocks if home is Home.DEVICE else blocks_for(num_tokens)
        blocks = ((first + i) % num_blocks for i in range(blocks_for(num_tokens)))
        return SegmentView(tuple(map(BlockId, blocks)), num_tokens, home)


def _least(taken: Sequence[tuple[float, Computed]]) -> Timed:
    whole_s = min(seconds for seconds, _ in taken)
    times = [computed.times[0] for _, computed in taken if computed.times]
    if not times:
        return Timed(whole_s)
    return Timed(
        whole_s,
        StageTimes(
            min(t.linear_s for t in times),
            min(t.device_s for t in times),
            exchange_s=min(t.exchange_s for t in times),
        ),
    )

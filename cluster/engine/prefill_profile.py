"""What computing and copying cost here, measured once and remembered.

A coarse grid of T(alpha, beta) takes a few seconds; steps correct it from then on. It is kept for
the model, backend, shape, threads and version it was measured with.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import inf
from pathlib import Path

import torch

from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import Home, SegmentView
from cluster.clock import Clock
from cluster.engine.forward import Forward
from cluster.engine.step import lay_out
from cluster.errors import InvalidArgument
from cluster.ids import BlockId, RequestId
from cluster.knowledge.prefill_cost import PrefillCost
from cluster.request import Sampling
from cluster.scheduling.plan import Chunk

log = logging.getLogger(__name__)

ALPHAS = (0, 512, 2048, 8192)
BETAS = (1, 16, 128)
_REPEATS = 2
_ATTENDED_BLOCKS = 64


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured: a forward pass over a pool of blocks that nobody uses yet."""

    forward: Forward
    num_blocks: int
    context_tokens: int
    step_tokens: int
    clock: Clock

    def measure(self) -> PrefillCost:
        """Seconds of chunks that fit the pool, the context and a step."""
        most = min(self.step_tokens, self.num_blocks * BLOCK_TOKENS, self.context_tokens)
        betas = sorted({min(beta, most) for beta in BETAS})
        room = max(0, self.context_tokens - betas[-1])
        alphas = sorted({min(alpha, room) for alpha in ALPHAS})
        self._seconds(0, betas[0])
        seconds = [[self._seconds(alpha, beta) for beta in betas] for alpha in alphas]
        return PrefillCost(tuple(alphas), tuple(betas), seconds)

    @torch.inference_mode()
    def attend_block_s(self, num_host_blocks: int) -> float:
        """How much longer a row takes for a block of the host than for one of the device."""
        count = min(_ATTENDED_BLOCKS, num_host_blocks, self.num_blocks)
        if not count:
            return inf
        alpha = min(count * BLOCK_TOKENS, self.context_tokens - 1)
        on_device, on_host = (self._seconds(alpha, 1, home) for home in (Home.DEVICE, Home.HOST))
        return max(0.0, on_host - on_device) / count

    def _seconds(self, alpha: int, beta: int, home: Home = Home.DEVICE) -> float:
        """The least of a few: what disturbs only adds."""
        step = lay_out([self._chunk(alpha, beta, home)])
        least = inf
        for _ in range(_REPEATS):
            begun_s = self.clock.now_s()
            # Reading a number waits for whatever computes it.
            float(self.forward.logits(step)[0, 0])
            least = min(least, self.clock.now_s() - begun_s)
        return least

    def _chunk(self, alpha: int, beta: int, home: Home) -> Chunk:
        """What was there before lies in the memory that is asked about."""
        segments = [self._segment(alpha, 1, home)] if alpha else []
        return Chunk(
            request_id=RequestId("profile"),
            start=alpha,
            token_ids=(0,) * beta,
            segments=(*segments, self._segment(beta, 0, Home.DEVICE)),
            sampling=Sampling(),
        )

    def _segment(self, num_tokens: int, first: int, home: Home) -> SegmentView:
        """Blocks serve more than once: what lies in them does not change the time."""
        num_blocks = self.num_blocks if home is Home.DEVICE else blocks_for(num_tokens)
        blocks = ((first + i) % num_blocks for i in range(blocks_for(num_tokens)))
        return SegmentView(tuple(map(BlockId, blocks)), num_tokens, home)


@torch.inference_mode()
def prefill_cost(bench: Bench, folder: Path | None, name: str) -> PrefillCost:
    """As remembered in the folder under this name, or measured now."""
    note = None if folder is None else folder / f"{name}-{version('thoth-cluster')}.json"
    remembered = None if note is None else _read(note)
    if remembered is not None:
        return remembered
    begun_s = bench.clock.now_s()
    cost = bench.measure()
    log.info("prefill profiled in %.1f s: %s", bench.clock.now_s() - begun_s, _said(cost))
    if note is not None:
        _write(note, cost)
    return cost


def _said(cost: PrefillCost) -> str:
    rate = cost.betas[-1] / max(cost.seconds[0][-1], 1e-9)
    return f"{rate:.0f} tokens/s without a cache"


def _read(note: Path) -> PrefillCost | None:
    """None where there is no note, or none that can be understood."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        rows: Sequence[Sequence[float]] = content["seconds"]
        return PrefillCost(
            tuple(map(int, content["alphas"])),
            tuple(map(int, content["betas"])),
            [[float(value) for value in row] for row in rows],
        )
    except (OSError, ValueError, TypeError, KeyError, InvalidArgument):
        return None


def _write(note: Path, cost: PrefillCost) -> None:
    """A folder that cannot be written only costs time."""
    content = {"alphas": cost.alphas, "betas": cost.betas, "seconds": cost.seconds}
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(".draft")
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(note)
    except OSError as error:
        log.info("the profile cannot be remembered: %s", error)

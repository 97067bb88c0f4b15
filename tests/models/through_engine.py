"""Every logit of a prompt, computed as the engine computes it: in segments, chunk by chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.exact import EveryRow
from cluster.blocks.pool import BlockPool, blocks_for
from cluster.clock import ManualClock
from cluster.engine.engine import Engine
from cluster.engine.forward import EagerForward
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.ids import RequestId
from cluster.knowledge.cache import no_cache
from cluster.models.decoder import Decoder
from cluster.request import Request, Sampling, TokenIds
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits

TOLERANCE = 4.0


def engine_logits(model: Decoder, segments: tuple[TokenIds, ...], step_tokens: int) -> Tensor:
    """[tokens, vocab]: the prompt, `step_tokens` rows at a time."""
    config = model.config
    num_blocks = sum(blocks_for(len(segment)) for segment in segments) + 1
    limits = IterationLimits(step_tokens, 1, 0, sum(map(len, segments)) + 1)
    every_row = EveryRow(model)
    shape = KvShape(config.num_layers, config.num_kv_heads, config.head_dim)
    engine = Engine(
        forward=EagerForward(every_row, KvCache(shape, num_blocks)),
        vocab_size=config.vocab_size,
        scheduler=IterationScheduler(limits, no_cache(BlockPool(num_blocks))),
        clock=ManualClock(),
    )
    engine.submit(Request(RequestId("all"), segments, Sampling(max_tokens=1), float("inf")))
    while engine.has_work:
        engine.step()
    return torch.cat(every_row.logits)


def compare(ours: Tensor, theirs: Tensor, truth: Tensor) -> tuple[float, float, int]:
    """Largest errors of both, and how many of our most likely tokens are wrong without a tie; all
    three are [tokens, vocab]."""
    our_error = float((ours.double() - truth).abs().max())
    their_error = float((theirs.double() - truth).abs().max())
    best = truth.topk(2, dim=-1)
    ties = (best.values[:, 0] - best.values[:, 1]) < 2 * TOLERANCE * their_error
    wrong = (ours.argmax(-1) != best.indices[:, 0]) & ~ties
    return our_error, their_error, int(wrong.sum())

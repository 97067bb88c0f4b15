"""The forward pass on a CUDA device: as many KV blocks as fit, Triton attention, recorded decodes.

Imported only where a device was asked for: Triton comes with the CUDA builds of torch.
"""

from __future__ import annotations

import logging

import torch

from cluster.attention.cuda.backend import TritonBackend
from cluster.attention.cuda.fixed_plan import Extent, FixedPlan, room_for
from cluster.attention.cuda.shape import HeadShape
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.engine.cuda_graphs import CudaRecorder, DecodeGraphs, sizes_up_to
from cluster.engine.device import blocks_that_fit, memory_of, step_bytes
from cluster.engine.forward import EagerForward, Elsewhere, Forward, GraphedForward
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.models.decoder import Decoder
from cluster.scheduling.limits import IterationLimits

log = logging.getLogger(__name__)


def fitting_blocks(decoder: Decoder, shape: KvShape, device: torch.device, step_tokens: int) -> int:
    """KV blocks for the memory that weights and the largest step leave, measured by running one.

    Raises InvalidArgument when that is next to nothing.
    """
    taken = step_bytes(device, lambda: _largest_step(decoder, device, step_tokens))
    # One block more is the scratch of the graphs.
    return blocks_that_fit(memory_of(device), taken, shape.block_bytes) - 1


def graphed_forward(
    decoder: Decoder,
    shape: KvShape,
    num_blocks: int,
    limits: IterationLimits,
    elsewhere: Elsewhere,
) -> tuple[Forward, KvCache]:
    """Decodes of up to `max_running` rows are recorded; everything else is computed eagerly."""
    device = decoder.weights.embedding.device
    heads = HeadShape(decoder.config.num_heads, shape.num_kv_heads, shape.head_dim, shape.dtype)
    backend = TritonBackend.on(heads, device)
    cache = KvCache(shape, num_blocks + 1, device)
    extent = Extent(limits.max_running, limits.context_tokens, num_blocks)
    graphs = DecodeGraphs(
        decoder,
        cache,
        FixedPlan(backend, room_for(heads, extent)),
        CudaRecorder(),
        sizes_up_to(limits.max_running),
        scratch_slot=num_blocks * BLOCK_TOKENS,
    )
    ports, gate, host = elsewhere.ports, elsewhere.gate, elsewhere.host
    eager = EagerForward(decoder, cache, backend, ports, gate, host)
    return GraphedForward(graphs, eager, gate), cache


@torch.inference_mode()
def _largest_step(decoder: Decoder, device: torch.device, rows: int) -> torch.Tensor:
    """Without attention, whose scratch is small beside the activations."""
    numbers = torch.zeros(rows, dtype=torch.int64, device=device)
    return decoder.forward(numbers, numbers, lambda _layer, q, _k, _v: q, numbers[:1])

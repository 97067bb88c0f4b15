"""Copies on a CUDA stream beside the one that computes. What can be ordered without a GPU is tested
with the other copiers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

pytest.importorskip("xxhash")

from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.tiers import cuda_copies
from cluster.engine.tiers.cuda_copies import CudaCopier
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.layout import KvLayout
from cluster.engine.tiers.moves import Mover
from cluster.knowledge.commands import SwapIn, SwapOut
from tests.tiers.nodes import bits, block_bits, blocks, new_arena, record_of

pytestmark = pytest.mark.gpu

SHAPE = KvShape(12, 4, 64, torch.bfloat16)
NUM_NODES, NODE_BLOCKS = 8, 32
HALF = NUM_NODES // 2 * NODE_BLOCKS
EVERYWHERE = blocks(*range(2 * HALF))
# Each with the blocks where it lies, there and on the host.
NODES = [
    (
        record_of(f"node {number}", NODE_BLOCKS * 16),
        blocks(*range(number * NODE_BLOCKS, (number + 1) * NODE_BLOCKS)),
    )
    for number in range(NUM_NODES)
]


@pytest.fixture
def arena() -> Iterator[HostArena]:
    with new_arena(NUM_NODES * NODE_BLOCKS, KvLayout(SHAPE, b"f" * 16)) as arena:
        yield arena


@pytest.fixture(params=["pinned", "staged"])
def copier(
    request: pytest.FixtureRequest, arena: HostArena, monkeypatch: pytest.MonkeyPatch
) -> CudaCopier:
    if request.param == "staged":
        monkeypatch.setattr(cuda_copies, "_pinned", lambda *_: 0)
    return CudaCopier(torch.device("cuda:0"), arena)


def test_a_step_that_writes_over_what_leaves_and_reads_what_comes_sees_every_bit(
    arena: HostArena, copier: CudaCopier
) -> None:
    """The first half of the nodes leaves and the other half comes to its places, again and again;
    each layer is read, and written over, as soon as it may be."""
    cache = KvCache(SHAPE, 2 * HALF, "cuda:0")
    for tensor in (*cache.k, *cache.v):
        tensor.normal_()
    whole = block_bits(cache, EVERYWHERE).clone()
    mover = Mover(cache, arena, copier)
    outs = [SwapOut(node, places, places) for node, places in NODES]
    leave, stay = outs[: NUM_NODES // 2], outs[NUM_NODES // 2 :]
    come = [
        SwapIn(late.record.key, late.host, early.device)
        for early, late in zip(leave, stay, strict=True)
    ]
    back = [SwapIn(move.record.key, move.host, move.device) for move in leave]
    assert mover.run(outs) == ()
    for _ in range(20):
        assert mover.begin([*leave, *come]) == ()
        layers = range(SHAPE.num_layers)
        seen = [taken for layer in layers for taken in taken_of(copier, cache, layer)]
        mover.finish()
        kept = [x for pair in zip(cache.k, cache.v, strict=True) for x in pair]
        for came, tensor in zip(seen, kept, strict=True):
            assert torch.equal(bits(came), bits(tensor[HALF:]))
        assert mover.run(back) == ()
        assert torch.equal(block_bits(cache, EVERYWHERE), whole)
    mover.close()


def taken_of(copier: CudaCopier, cache: KvCache, layer: int) -> list[Tensor]:
    """What came to the layer; NaN is in its place afterwards."""
    copier.wait(layer)
    taken = []
    for tensor in (cache.k[layer], cache.v[layer]):
        taken.append(tensor[:HALF].clone())
        tensor[:HALF] = torch.nan
    return taken

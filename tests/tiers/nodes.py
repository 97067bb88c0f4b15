"""Nodes with contents that are told from their names, for the tests of the tiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from random import Random

import torch
from torch import Tensor

from cluster.blocks.pool import blocks_for
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.layout import KvLayout
from cluster.ids import BlockId
from cluster.knowledge.commands import NodeRecord
from cluster.knowledge.keys import KEY_BYTES, ROOT, NodeKey
from cluster.knowledge.node import Blocks
from cluster.request import SegmentSource

TINY = KvShape(2, 1, 4, torch.float16)
LAYOUT = KvLayout(TINY, b"fingerprint of 1")
OTHER_LAYOUT = KvLayout(TINY, b"fingerprint of 2")


def record_of(name: str, num_tokens: int, parent: NodeKey = ROOT) -> NodeRecord:
    key = NodeKey(blake2b(name.encode(), digest_size=KEY_BYTES).digest())
    return NodeRecord(key, parent, SegmentSource("papers", name, 3, 7), num_tokens)


def blocks(*numbers: int) -> Blocks:
    return tuple(map(BlockId, numbers))


def contents(record: NodeRecord, layout: KvLayout = LAYOUT) -> list[bytes]:
    """What each of the node's payloads holds, in these tests."""
    random = Random(record.key)
    return [random.randbytes(layout.payload_bytes) for _ in range(blocks_for(record.num_tokens))]


def write(arena: HostArena, record: NodeRecord, host: Blocks) -> None:
    with arena.writing((record, host)):
        for block, content in zip(host, contents(record, arena.layout), strict=True):
            arena.payload(block)[:] = content


def read(arena: HostArena, host: Blocks) -> list[bytes]:
    return [bytes(arena.payload(block)) for block in host]


def random_cache(shape: KvShape, num_blocks: int, seed: int) -> KvCache:
    """Every bit drawn: NaN of all kinds are among the numbers."""
    cache = KvCache(shape, num_blocks)
    generator = torch.Generator().manual_seed(seed)
    for layer in (*cache.k, *cache.v):
        drawn = torch.randint(0, 256, bits(layer).shape, dtype=torch.uint8, generator=generator)
        bits(layer).copy_(drawn)
    return cache


def bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.uint8)


def block_bits(cache: KvCache, numbers: Blocks) -> Tensor:
    """All layers' bytes of these blocks [blocks, bytes]."""
    return torch.cat([bits(x)[list(numbers)].flatten(1) for x in (*cache.k, *cache.v)], dim=1)


@contextmanager
def new_arena(num_blocks: int, layout: KvLayout = LAYOUT) -> Iterator[HostArena]:
    arena = HostArena.create(layout, num_blocks)
    try:
        yield arena
    finally:
        arena.close()


def flipped(place: memoryview, at: int, random: Random, look: Callable[[], None]) -> None:
    """Looks while one bit of a byte is turned."""
    was = place[at]
    place[at] = was ^ (1 << random.randrange(8))
    look()
    place[at] = was

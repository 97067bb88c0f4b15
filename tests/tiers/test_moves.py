"""What leaves the device comes back to it as it was, or is said to be lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
import torch
from torch import Tensor

from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.layout import KvLayout
from cluster.engine.tiers.moves import Mover
from cluster.errors import InvariantBroken
from cluster.ids import BlockId
from cluster.knowledge.commands import Clear, Found, Move, PageIn, PageOut, SwapIn, SwapOut
from cluster.knowledge.keys import NodeKey
from tests.tiers.nodes import (
    LAYOUT,
    TINY,
    block_bits,
    blocks,
    flipped,
    new_arena,
    random_cache,
    record_of,
)

A, B = record_of("a", 40), record_of("b", 33)
# Of what a running request has paged out.
NO_NODE = NodeKey(b"")


def there_and_back(cache: KvCache, arena: HostArena) -> None:
    """Three blocks go out and come back to other places."""
    before = block_bits(cache, blocks(4, 0, 2)).clone()
    out = SwapOut(A, blocks(4, 0, 2), blocks(1, 5, 3))
    assert Mover(cache, arena).run([out, SwapIn(A.key, out.host, blocks(1, 3, 5))]) == ()
    assert torch.equal(block_bits(cache, blocks(1, 3, 5)), before)
    assert torch.equal(block_bits(cache, blocks(4, 0, 2)), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(2, 1, 4), (3, 2, 5), (30, 3, 64)], ids=str)
def test_swapped_out_and_in_again_is_the_same_to_the_last_bit(
    dtype: torch.dtype, size: tuple[int, int, int]
) -> None:
    shape = KvShape(*size, dtype)
    with new_arena(6, KvLayout(shape, b"f" * 16)) as arena:
        there_and_back(random_cache(shape, 6, seed=1), arena)


@pytest.mark.gpu
def test_a_cuda_device_gets_back_what_it_gave() -> None:
    shape = KvShape(30, 3, 64, torch.bfloat16)
    cache = KvCache(shape, 6, "cuda")
    for layer in (*cache.k, *cache.v):
        layer.normal_()
    with new_arena(6, KvLayout(shape, b"f" * 16)) as arena:
        there_and_back(cache, arena)


def test_moves_are_done_in_their_order() -> None:
    cache = random_cache(TINY, 9, seed=2)
    slots = blocks(0, 1, 2)
    a, b = blocks(0, 1, 2), blocks(3, 4, 5)
    was_a, was_b = block_bits(cache, a).clone(), block_bits(cache, b).clone()
    with new_arena(3) as arena:
        lost = Mover(cache, arena).run(
            [
                SwapOut(A, a, slots),
                SwapIn(A.key, slots, blocks(6, 7, 8)),
                Clear(slots),
                SwapOut(B, b, slots),
                SwapIn(B.key, slots, a),
            ]
        )
        assert lost == ()
        assert torch.equal(block_bits(cache, blocks(6, 7, 8)), was_a)
        assert torch.equal(block_bits(cache, a), was_b)
        assert arena.scan() == [Found(B, slots)]


def test_a_later_node_in_the_same_slots_is_the_one_that_is_there() -> None:
    cache = random_cache(TINY, 9, seed=3)
    slots = blocks(0, 1, 2)
    was_b = block_bits(cache, blocks(3, 4, 5)).clone()
    with new_arena(3) as arena:
        moves = [SwapOut(A, blocks(0, 1, 2), slots), SwapOut(B, blocks(3, 4, 5), slots)]
        moves_in = [SwapIn(A.key, slots, blocks(6, 7, 8)), SwapIn(B.key, slots, blocks(6, 7, 8))]
        assert Mover(cache, arena).run([*moves, *moves_in]) == (A.key,)
        assert torch.equal(block_bits(cache, blocks(6, 7, 8)), was_b)


def test_what_was_cleared_is_lost_and_the_other_moves_are_done() -> None:
    cache = random_cache(TINY, 9, seed=4)
    was_b = block_bits(cache, blocks(3, 4, 5)).clone()
    with new_arena(6) as arena:
        lost = Mover(cache, arena).run(
            [
                SwapOut(A, blocks(0, 1, 2), blocks(0, 1, 2)),
                SwapOut(B, blocks(3, 4, 5), blocks(3, 4, 5)),
                Clear(blocks(1)),
                SwapIn(A.key, blocks(0, 1, 2), blocks(3, 4, 5)),
                SwapIn(B.key, blocks(3, 4, 5), blocks(6, 7, 8)),
            ]
        )
        assert lost == (A.key,)
        assert torch.equal(block_bits(cache, blocks(6, 7, 8)), was_b)


def test_blocks_in_another_order_are_not_the_node() -> None:
    cache = random_cache(TINY, 6, seed=5)
    with new_arena(3) as arena:
        mover = Mover(cache, arena)
        mover.run([SwapOut(A, blocks(0, 1, 2), blocks(0, 1, 2))])
        for wrong in (blocks(0, 2, 1), blocks(0, 1), blocks(1, 2, 0), blocks(0, 0, 0)):
            assert mover.run([SwapIn(A.key, wrong, blocks(3, 4, 5)[: len(wrong)])]) == (A.key,)


def test_a_turned_bit_anywhere_in_the_arena_never_reaches_the_device() -> None:
    random = Random(6)
    cache = random_cache(TINY, 6, seed=6)
    device = block_bits(cache, blocks(3, 4, 5)).clone()
    with new_arena(3) as arena:
        mover = Mover(cache, arena)
        mover.run([SwapOut(A, blocks(0, 1, 2), blocks(0, 1, 2))])
        move = SwapIn(A.key, blocks(0, 1, 2), blocks(3, 4, 5))

        def look() -> None:
            assert mover.run([move]) == (A.key,)

        whole = memoryview(arena._map)
        end = LAYOUT.arena_bytes(3)
        for _ in range(400):
            flipped(whole, random.randrange(4096, end), random, look)
        assert torch.equal(block_bits(cache, blocks(3, 4, 5)), device)
        assert mover.run([move]) == ()


def test_what_is_paged_out_comes_back_and_no_scan_finds_it() -> None:
    cache = random_cache(TINY, 9, seed=8)
    own, was_a = blocks(3, 8, 4), block_bits(cache, blocks(0, 1, 2)).clone()
    before = block_bits(cache, own).clone()
    with new_arena(4) as arena:
        mover = Mover(cache, arena)
        mover.run([SwapOut(A, blocks(0, 1, 2), blocks(0, 1, 2))])
        assert arena.scan() == [Found(A, blocks(0, 1, 2))]
        mover.run([PageOut(own, blocks(2, 3, 0))])
        assert arena.scan() == []
        assert mover.run([SwapIn(A.key, blocks(0, 1, 2), blocks(5, 6, 7))]) == (A.key,)
        assert mover.run([PageIn(blocks(2, 3, 0), blocks(5, 6, 7))]) == ()
    assert torch.equal(block_bits(cache, blocks(5, 6, 7)), before)
    assert torch.equal(block_bits(cache, blocks(0, 1, 2)), was_a)


def test_what_goes_out_makes_room_for_what_comes_in() -> None:
    cache = random_cache(TINY, 6, seed=9)
    first, second = (block_bits(cache, blocks(*ids)).clone() for ids in ((0, 1), (2, 3)))
    with new_arena(4) as arena:
        mover = Mover(cache, arena)
        mover.run([PageOut(blocks(2, 3), blocks(0, 1))])
        mover.run([PageOut(blocks(0, 1), blocks(2, 3)), PageIn(blocks(0, 1), blocks(0, 1))])
        assert torch.equal(block_bits(cache, blocks(0, 1)), second)
        mover.run([PageIn(blocks(2, 3), blocks(2, 3))])
    assert torch.equal(block_bits(cache, blocks(2, 3)), first)


def test_a_node_is_moved_to_as_many_blocks_as_it_has() -> None:
    with new_arena(3) as arena:
        mover = Mover(random_cache(TINY, 6, seed=7), arena)
        with pytest.raises(InvariantBroken):
            mover.run([SwapOut(A, blocks(0, 1), blocks(0, 1, 2))])
        with pytest.raises(InvariantBroken):
            mover.run([SwapOut(A, blocks(0, 1), blocks(0, 1))])
        with pytest.raises(InvariantBroken):
            mover.run([SwapOut(A, blocks(0, 1, 2), blocks(1, 2, 3))])
        assert arena.scan() == []


def test_host_and_device_have_one_shape() -> None:
    with new_arena(1) as arena, pytest.raises(InvariantBroken):
        Mover(KvCache(KvShape(2, 1, 8, torch.float16), 1), arena)


@dataclass
class Model:
    """The same moves, one block at a time and without any batch. `host`: what lies in a block:
    which write brought it, the node, which of its blocks, and the bytes."""

    device: list[Tensor]
    host: dict[BlockId, tuple[int, NodeKey, int, Tensor]] = field(default_factory=dict)
    lost: list[NodeKey] = field(default_factory=list)
    num_writes: int = 0

    def do(self, move: Move) -> None:
        match move:
            case SwapOut(record, device, host):
                self.num_writes += 1
                for index, (source, target) in enumerate(zip(device, host, strict=True)):
                    copied = self.device[source].clone()
                    self.host[target] = self.num_writes, record.key, index, copied
            case SwapIn(key, host, device):
                found = [self.host.get(block) for block in host]
                labels = {(row[0], row[1]) for row in found if row}
                indices = [row[2] if row else None for row in found]
                if len(labels) != 1 or indices != [0, 1, 2] or labels.pop()[1] != key:
                    self.lost.append(key)
                    return
                for row, target in zip(found, device, strict=True):
                    assert row is not None
                    self.device[target] = row[3].clone()
            case PageOut(device, host):
                for source, target in zip(device, host, strict=True):
                    self.host[target] = 0, NO_NODE, 0, self.device[source].clone()
            case PageIn(host, device):
                for source, target in zip(host, device, strict=True):
                    self.device[target] = self.host[source][3].clone()
            case Clear(host):
                for block in host:
                    self.host.pop(block, None)


def random_moves(random: Random) -> list[Move]:
    """Few places and many collisions: nodes half overwritten, cleared, read in wrong order."""
    records = [record_of(name, random.randint(33, 48)) for name in "abc"]
    paged: set[BlockId] = set()
    moves: list[Move] = []
    for _ in range(random.randint(1, 25)):
        record = random.choice(records)
        host = blocks(*random.sample(range(5), 3)) if random.random() < 0.4 else blocks(0, 1, 2)
        device = blocks(*random.sample(range(6), 3))
        kinds: list[Move] = [SwapOut(record, device, host), SwapIn(record.key, host, device)]
        kinds.append(Clear(host[: random.randint(1, 3)]))
        page_out = PageOut(device, host)
        # A request pages in what it has paged out: of a block without content nothing is expected.
        page_in = PageIn(host, device) if paged >= set(host) else page_out
        move = random.choices([*kinds, page_out, page_in], [4, 4, 1, 2, 2])[0]
        if isinstance(move, PageOut | SwapOut):
            paged |= set(host)
        elif isinstance(move, Clear):
            paged -= set(move.host)
        moves.append(move)
    return moves


@pytest.mark.parametrize("seed", range(60))
def test_batches_do_what_one_move_at_a_time_does(seed: int) -> None:
    moves = random_moves(Random(seed))
    cache = random_cache(TINY, 6, seed)
    everywhere = blocks(*range(6))
    model = Model(list(block_bits(cache, everywhere).clone()))
    for move in moves:
        model.do(move)
    with new_arena(5) as arena:
        assert Mover(cache, arena).run(moves) == tuple(dict.fromkeys(model.lost))
    assert torch.equal(block_bits(cache, everywhere), torch.stack(model.device))

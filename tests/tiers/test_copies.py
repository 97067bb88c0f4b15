"""Copies beside a step: a layer's blocks are the step's once it has waited for that layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest
import torch

from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.tiers.copies import Copier, ThreadCopier
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.layout import KvLayout
from cluster.engine.tiers.moves import Mover, independent_from
from cluster.engine.tiers.passages import NUM_SLOTS, StagedRows
from cluster.errors import InvariantBroken, Lost
from cluster.knowledge.commands import (
    Clear,
    Delete,
    Found,
    Move,
    Read,
    SwapIn,
    SwapOut,
    Verify,
    Write,
    num_ready,
)
from tests.tiers.copiers import (
    COPIERS,
    CPU,
    Broken,
    Done,
    Hold,
    WatchedCopier,
    beside_the_step,
    breaks,
    pageable,
)
from tests.tiers.nodes import bits, block_bits, blocks, new_arena, random_cache, record_of
from tests.tiers.test_moves import Model, random_moves

A, B = record_of("a", 40), record_of("b", 33)
SHAPE = KvShape(5, 2, 4, torch.float16)
LAYERS = range(SHAPE.num_layers)
FIRST, SECOND = blocks(0, 1, 2), blocks(3, 4, 5)
OUT_A, OUT_B = SwapOut(A, FIRST, FIRST), SwapOut(B, SECOND, SECOND)


@contextmanager
def memories(num_blocks: int = 6, seed: int = 0) -> Iterator[tuple[KvCache, HostArena]]:
    with new_arena(num_blocks, KvLayout(SHAPE, b"f" * 16)) as arena:
        yield random_cache(SHAPE, 6, seed), arena


@contextmanager
def mover_over(cache: KvCache, arena: HostArena, copier: Copier) -> Iterator[Mover]:
    mover = Mover(cache, arena, copier)
    try:
        yield mover
    finally:
        mover.close()


def overwrite(cache: KvCache, layer: int, numbers: tuple[int, ...]) -> None:
    for tensor in (cache.k[layer], cache.v[layer]):
        bits(tensor)[list(numbers)] = 0xA5


@pytest.mark.parametrize("copier_of", COPIERS)
@pytest.mark.parametrize("seed", range(15))
def test_every_copier_does_what_one_move_at_a_time_does(
    copier_of: Callable[[], Copier], seed: int
) -> None:
    moves = random_moves(Random(seed))
    everywhere = blocks(*range(6))
    with memories(5, seed) as (cache, arena), mover_over(cache, arena, copier_of()) as mover:
        model = Model(list(block_bits(cache, everywhere).clone()))
        for move in moves:
            model.do(move)
        assert mover.run(moves) == tuple(dict.fromkeys(model.lost))
        assert torch.equal(block_bits(cache, everywhere), torch.stack(model.device))
        for key in {row[1] for row in model.host.values()}:
            held = {row[2]: block for block, row in model.host.items() if row[1] == key}
            if sorted(held) == [0, 1, 2] and len({model.host[b][0] for b in held.values()}) == 1:
                arena.verify(key, tuple(held[index] for index in range(3)))


@pytest.mark.parametrize("copier_of", COPIERS)
def test_what_a_step_writes_over_has_left_with_its_old_bytes(
    copier_of: Callable[[], Copier],
) -> None:
    with memories() as (cache, arena):
        copier = copier_of()
        with mover_over(cache, arena, copier) as mover:
            old = block_bits(cache, FIRST).clone()
            assert mover.begin([SwapOut(A, FIRST, FIRST)]) == ()
            for layer in LAYERS:
                copier.wait(layer)
                overwrite(cache, layer, FIRST)
            mover.finish()
            assert mover.run([SwapIn(A.key, FIRST, SECOND)]) == ()
            assert torch.equal(block_bits(cache, SECOND), old)
            assert not torch.equal(block_bits(cache, FIRST), old)


@pytest.mark.parametrize("copier_of", COPIERS)
def test_what_comes_is_there_when_its_layer_was_waited_for_also_where_something_leaves(
    copier_of: Callable[[], Copier],
) -> None:
    with memories() as (cache, arena):
        copier = copier_of()
        with mover_over(cache, arena, copier) as mover:
            coming, leaving = (block_bits(cache, place).clone() for place in (FIRST, SECOND))
            mover.run([SwapOut(A, FIRST, FIRST)])
            mover.begin([SwapOut(B, SECOND, SECOND), SwapIn(A.key, FIRST, SECOND)])
            for layer in LAYERS:
                copier.wait(layer)
                for tensor in (cache.k[layer], cache.v[layer]):
                    assert torch.equal(bits(tensor)[list(SECOND)], bits(tensor)[list(FIRST)])
            mover.finish()
            assert torch.equal(block_bits(cache, SECOND), coming)
            mover.run([SwapIn(B.key, SECOND, FIRST)])
            assert torch.equal(block_bits(cache, FIRST), leaving)


def test_layers_before_one_that_is_held_up_are_the_steps() -> None:
    hold = Hold()
    copier = WatchedCopier(beside_the_step(), 2, hold)
    with memories() as (cache, arena), mover_over(cache, arena, copier) as mover:
        mover.begin([SwapOut(A, FIRST, FIRST)])
        for layer in (0, 1):
            copier.wait(layer)
            overwrite(cache, layer, FIRST)
        with pytest.raises(Lost, match="never written whole"):
            arena.verify(A.key, FIRST)
        hold.let_go()
        mover.finish()
        assert arena.scan() == [Found(A, FIRST)]


def test_what_fails_in_the_middle_is_told_and_leaves_blocks_unwritten() -> None:
    copier = WatchedCopier(beside_the_step(), 2, breaks)
    with memories() as (cache, arena), mover_over(cache, arena, copier) as mover:
        mover.begin([SwapOut(A, FIRST, FIRST)])
        copier.wait(1)
        with pytest.raises(Broken):
            copier.wait(2)
        with pytest.raises(Broken):
            mover.finish()
        assert arena.scan() == []
        copier.number = -1
        mover.run([SwapOut(A, FIRST, FIRST)])
        assert arena.scan() == [Found(A, FIRST)]


def test_what_fails_before_the_step_leaves_blocks_unwritten() -> None:
    copier = WatchedCopier(ThreadCopier(), 2, breaks)
    with memories() as (cache, arena), mover_over(cache, arena, copier) as mover:
        with pytest.raises(Broken):
            mover.begin([SwapOut(A, FIRST, FIRST)])
        mover.finish()
        assert arena.scan() == []


def test_moves_wait_for_the_end_of_the_last_ones() -> None:
    with memories() as (cache, arena), mover_over(cache, arena, beside_the_step()) as mover:
        mover.begin([SwapOut(A, FIRST, FIRST)])
        with pytest.raises(InvariantBroken, match="before the last ones are finished"):
            mover.begin([Clear(SECOND)])
        mover.finish()
        mover.finish()
        mover.run([Clear(SECOND)])
        assert arena.scan() == [Found(A, FIRST)]


def test_what_is_attended_where_it_has_just_been_brought_is_whole_before_the_step() -> None:
    copier = WatchedCopier(beside_the_step(), -1, breaks)
    with memories() as (cache, arena), mover_over(cache, arena, copier) as mover:
        moves: list[Move] = [OUT_A, Verify(A.key, FIRST), OUT_B]
        assert mover.begin(moves) == ()
        arena.verify(A.key, FIRST)
        with pytest.raises(Lost):
            arena.verify(B.key, SECOND)
        mover.finish()
        assert copier.num_begun == 1


@pytest.mark.parametrize(
    ("moves", "first"),
    [
        ([], 0),
        ([Clear(FIRST), OUT_A, Clear(SECOND), OUT_B], 0),
        ([OUT_A, SwapIn(B.key, SECOND, FIRST)], 0),
        ([OUT_B, OUT_A, Verify(A.key, FIRST)], 2),
        ([OUT_A, SwapIn(A.key, FIRST, SECOND)], 1),
        ([OUT_A, Clear(FIRST)], 1),
        ([OUT_A, SwapOut(B, SECOND, FIRST)], 1),
        ([SwapIn(A.key, FIRST, SECOND), SwapOut(A, SECOND, SECOND)], 1),
        ([SwapIn(A.key, FIRST, FIRST), SwapIn(B.key, SECOND, FIRST)], 1),
        ([SwapIn(A.key, FIRST, FIRST), Clear(FIRST)], 1),
        ([SwapIn(A.key, FIRST, FIRST), SwapOut(B, SECOND, FIRST)], 1),
        ([SwapIn(A.key, FIRST, FIRST), Verify(A.key, FIRST)], 0),
    ],
)
def test_what_another_move_depends_on_is_made_before_the_step(
    moves: list[Move], first: int
) -> None:
    assert independent_from(moves) == first


def test_a_disk_keeps_off_the_blocks_that_are_being_copied() -> None:
    delete = Delete(A.key)
    for move in (OUT_A, SwapIn(A.key, FIRST, SECOND)):
        assert num_ready([delete, Write(A, FIRST), Read(B, SECOND)], [move]) == 1
        assert num_ready([Read(B, SECOND), Read(B, blocks(2)), delete], [move]) == 1
        assert num_ready([Read(B, SECOND), delete], [move]) == 2
    assert num_ready([Write(A, FIRST)], [Verify(A.key, FIRST), Clear(SECOND)]) == 1


def test_a_slot_is_filled_again_when_what_was_sent_through_it_has_arrived() -> None:
    marks: list[Done] = []

    def mark() -> Done:
        marks.append(Done())
        return marks[-1]

    passage = StagedRows(pageable, mark)
    host = torch.zeros(2 * NUM_SLOTS, 3)
    for number in range(NUM_SLOTS + 1):
        rows, target = torch.full((1, 3), float(number + 1)), torch.tensor([number])
        passage.send(rows, host, target)
    assert host[:, 0].tolist() == [1.0] + [0.0] * (2 * NUM_SLOTS - 1)
    assert [mark.synchronized for mark in marks] == [1] + [0] * NUM_SLOTS
    found = passage.bring(host, torch.tensor([0, 1]), CPU)
    assert found[:, 0].tolist() == [1.0, 2.0]
    passage.finish()
    assert host[: NUM_SLOTS + 1, 0].tolist() == [float(n + 1) for n in range(NUM_SLOTS + 1)]
    assert all(mark.synchronized == 1 for mark in marks)

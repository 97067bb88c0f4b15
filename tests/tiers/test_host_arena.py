"""The host's memory gives back what was written whole, and nothing else."""

from __future__ import annotations

import os
from contextlib import suppress
from random import Random

import numpy as np
import pytest

from cluster.engine.kv_cache import KvShape
from cluster.engine.tiers.host_arena import HostArena
from cluster.engine.tiers.layout import ARENA_HEADER_BYTES, BLOCK_HEADER_BYTES, KvLayout
from cluster.errors import InvariantBroken, Lost, Unavailable
from cluster.knowledge.commands import Found
from tests.tiers.nodes import (
    LAYOUT,
    OTHER_LAYOUT,
    blocks,
    contents,
    flipped,
    new_arena,
    read,
    record_of,
    write,
)

A, B = record_of("a", 40), record_of("b", 33)
SLOTS = blocks(4, 1, 2)


def test_a_new_arena_is_empty_and_all_of_its_memory_is_there() -> None:
    layout = KvLayout(KvShape(30, 3, 64), LAYOUT.fingerprint)
    with new_arena(5, layout) as arena:
        status = os.fstat(arena.fd)
        assert status.st_size == layout.arena_bytes(5)
        assert status.st_blocks * 512 >= status.st_size
        assert arena.scan() == []


def test_its_length_cannot_be_changed_by_anybody() -> None:
    with new_arena(2) as arena:
        for size in (0, 2**20):
            with pytest.raises(PermissionError):
                os.ftruncate(arena.fd, size)


def test_more_memory_than_can_be_had_is_refused() -> None:
    with pytest.raises(Unavailable, match="memory for the host"):
        HostArena.create(LAYOUT, 2**46)


def test_what_was_written_is_found_and_verified() -> None:
    child = record_of("child", 16, A.key)
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        write(arena, child, blocks(0))
        assert arena.scan() == [Found(A, SLOTS), Found(child, blocks(0))]
        assert len(arena.verify(A.key, SLOTS)) == 3
        assert read(arena, SLOTS) == contents(A)
        assert read(arena, blocks(0)) == contents(child)


def test_a_block_has_another_generation_after_every_write_and_an_odd_one_meanwhile() -> None:
    numbers = np.array(SLOTS)
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        first = arena.generations(numbers)
        with arena.writing((A, SLOTS)):
            assert (arena.generations(numbers) % 2 == 1).all()
        second = arena.generations(numbers)
        arena.clear(SLOTS[:1])
        assert (arena.generations(numbers) % 2).tolist() == [1, 0, 0]
        write(arena, B, SLOTS)
        seen = np.concatenate([first, second, arena.generations(numbers)])
        assert (seen % 2 == 0).all()
        assert len(np.unique(seen)) == 3


def test_the_bytes_of_a_block_are_its_payload_up_to_the_last_number() -> None:
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        for block in SLOTS:
            content = bytes(arena.memory[arena.kv.block_bytes(block)])
            assert content == bytes(arena.payload(block))[: LAYOUT.shape.block_bytes]
            assert len(content) == LAYOUT.shape.block_bytes
        with pytest.raises(TypeError, match="read-only"):
            arena.memory[0] = 1


def test_another_holder_of_the_memory_finds_the_same() -> None:
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        other = HostArena.attach(os.dup(arena.fd), LAYOUT)
        assert other.num_blocks == 6
        assert other.scan() == [Found(A, SLOTS)]
        assert read(other, SLOTS) == contents(A)
        write(other, B, blocks(0, 3, 5))
        assert arena.verify(B.key, blocks(0, 3, 5)) == other.verify(B.key, blocks(0, 3, 5))
        other.close()


def test_a_turned_bit_anywhere_is_noticed() -> None:
    """Every byte of a node: of its headers, by the scan's rules too, and of its payloads."""
    random = Random(1)
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        whole = memoryview(arena._map)

        def verify() -> None:
            with pytest.raises(Lost):
                arena.verify(A.key, SLOTS)

        for block in SLOTS:
            start = ARENA_HEADER_BYTES + block * LAYOUT.stride_bytes
            for at in range(start, start + LAYOUT.stride_bytes):
                flipped(whole, at, random, verify)
        arena.verify(A.key, SLOTS)


@pytest.mark.parametrize("seed", range(200))
def test_a_node_with_a_damaged_header_is_not_found(seed: int) -> None:
    random = Random(seed)
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        write(arena, B, blocks(0, 3, 5))
        at = 4096 + random.choice(SLOTS) * LAYOUT.stride_bytes
        at += random.choice([random.randrange(100), random.randrange(BLOCK_HEADER_BYTES)])
        memoryview(arena._map)[at] ^= 1 << random.randrange(8)
        assert arena.scan() == [Found(B, blocks(0, 3, 5))]


def test_bytes_of_one_block_are_not_taken_for_anothers() -> None:
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        write(arena, B, blocks(0, 3, 5))
        whole = memoryview(arena._map)
        size = LAYOUT.stride_bytes
        first, second = (ARENA_HEADER_BYTES + block * size for block in (4, 0))
        whole[first : first + size] = bytes(whole[second : second + size])
        with pytest.raises(Lost, match="is not block 0 of node"):
            arena.verify(A.key, SLOTS)
        assert [found.record for found in arena.scan()] == [B]


def test_a_node_that_is_being_written_is_not_there() -> None:
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        with arena.writing((B, SLOTS)):
            for key in (A.key, B.key):
                with pytest.raises(Lost, match="never written whole"):
                    arena.verify(key, SLOTS)
            other = HostArena.attach(os.dup(arena.fd), LAYOUT)
            with pytest.raises(Lost):
                other.verify(B.key, SLOTS)
            other.close()
        arena.verify(B.key, SLOTS)


def test_a_write_that_failed_leaves_nothing() -> None:
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        with suppress(ZeroDivisionError), arena.writing((B, blocks(0, 1, 3))):
            arena.payload(blocks(0)[0])[:] = contents(B)[0]
            raise ZeroDivisionError
        assert arena.scan() == []


def test_a_writer_that_stopped_between_two_blocks_leaves_nothing() -> None:
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        arena._generations[SLOTS[1]] += 1
        write(arena, B, blocks(0, 3, 5))
        assert arena.scan() == [Found(B, blocks(0, 3, 5))]


def test_of_two_copies_the_newer_is_found_and_the_older_never_comes_back() -> None:
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        write(arena, A, blocks(0, 3, 5))
        assert arena.scan() == [Found(A, blocks(0, 3, 5))]
        arena.clear(blocks(0, 3, 5))
        assert arena.scan() == []


def test_blocks_of_two_writes_do_not_make_a_node() -> None:
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        write(arena, A, blocks(0, 3, 5))
        mixed = (SLOTS[0], *blocks(3, 5))
        with pytest.raises(Lost, match="several writes"):
            arena.verify(A.key, mixed)
        arena.clear(blocks(0, *SLOTS[1:]))
        assert arena.scan() == []


def test_a_writer_that_comes_after_another_numbers_its_writes_behind_it() -> None:
    with new_arena(7) as arena:
        write(arena, A, SLOTS)
        # Damage that looks like a generation beyond all others.
        arena._generations[6] = 2**64 - 2
        other = HostArena.attach(os.dup(arena.fd), LAYOUT)
        write(other, A, blocks(0, 3, 5))
        other.close()
        assert arena._generations[0] > arena._generations[SLOTS[0]]
        assert arena.scan() == [Found(A, blocks(0, 3, 5))]


def test_cleared_blocks_hold_no_names() -> None:
    with new_arena(6) as arena:
        write(arena, A, SLOTS)
        assert arena._map.find(A.key) > 0
        arena.clear(SLOTS)
        assert arena._map.find(A.key) == arena._map.find(b"papers") == -1
        assert arena.scan() == []


def test_the_head_of_the_memory_is_verified() -> None:
    random = Random(2)
    with new_arena(2) as arena:

        def attach() -> None:
            with pytest.raises(Lost):
                HostArena.attach(arena.fd, LAYOUT)

        for at in range(56):
            flipped(memoryview(arena._map), at, random, attach)
        HostArena.attach(arena.fd, LAYOUT)


def test_memory_of_another_model_or_length_is_not_taken() -> None:
    with new_arena(2) as arena:
        with pytest.raises(Lost, match="no arena of this model"):
            HostArena.attach(arena.fd, OTHER_LAYOUT)
        fd = os.memfd_create("test")
        with pytest.raises(Lost, match="too short"):
            HostArena.attach(fd, LAYOUT)
        os.pwrite(fd, bytes(arena._map)[:-1], 0)
        with pytest.raises(Lost, match="not as long"):
            HostArena.attach(fd, LAYOUT)
        os.close(fd)


def test_a_node_fills_its_blocks_and_the_blocks_are_there() -> None:
    with new_arena(3) as arena:
        for host in (blocks(0, 1), blocks(0, 1, 3), blocks(0, 1, -1)):
            with pytest.raises(InvariantBroken), arena.writing((A, host)):
                pass
        assert arena.scan() == []

"""A copy of blocks takes what its limit says, and what is sent to it fits."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from random import Random

import numpy as np
import pytest
import torch

from cluster.attention.shared_kv import SharedKv
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.errors import InvalidArgument, TooLarge
from cluster.wire.attention_copy import BlockCopy
from cluster.wire.attention_sent import SentBlocks

NUM_BLOCKS = 40
PAGE = mmap.PAGESIZE


def kv_of(head_dim: int, gap: int) -> SharedKv:
    """Two layers in float32, and so many numbers between blocks."""
    inner = head_dim * BLOCK_TOKENS
    stride = 4 * inner + gap
    starts = ((16, 16 + inner), (16 + 2 * inner, 16 + 3 * inner))
    return SharedKv(
        "float32", 4 * (16 + NUM_BLOCKS * stride), NUM_BLOCKS, 1, head_dim, stride, starts
    )


# Blocks of 3, 4 and 5 pages and of less than one, on pages of their own and not.
SHAPES = [kv_of(48, 0), kv_of(64, 100), kv_of(80, 3000), kv_of(8, 8)]


@pytest.fixture(params=SHAPES, ids=lambda kv: f"{kv.head_dim}")
def kv(request: pytest.FixtureRequest) -> SharedKv:
    shape = request.param
    assert isinstance(shape, SharedKv)
    return shape


@pytest.fixture
def held() -> Iterator[list[BlockCopy]]:
    made: list[BlockCopy] = []
    yield made
    for each in made:
        each.close()


def content(kv: SharedKv, number: int) -> bytes:
    return bytes([number % 251]) * num_bytes(kv)


def num_bytes(kv: SharedKv) -> int:
    place = kv.block_bytes(0)
    return int(place.stop - place.start)


def taken(copy: BlockCopy) -> int:
    return os.fstat(copy._fd).st_blocks * 512


@pytest.mark.parametrize("seed", range(5))
def test_what_is_counted_is_what_the_system_gave(
    kv: SharedKv, held: list[BlockCopy], seed: int
) -> None:
    random, limit = Random(seed), 60 * PAGE
    copy = BlockCopy(kv, limit)
    held.append(copy)
    written: dict[int, int] = {}
    for number in range(200):
        block = random.randrange(NUM_BLOCKS)
        if block in written and random.random() < 0.7:
            copy.forget(torch.tensor([block], dtype=torch.int32))
            del written[block]
        else:
            with suppress(TooLarge):
                copy.write(block, content(kv, number))
                written[block] = number
        assert taken(copy) == copy.num_bytes <= limit
    for block, number in written.items():
        assert (copy.k[1][block].flatten().view(torch.uint8) == number % 251).all()
    left = [block for block in range(NUM_BLOCKS) if block not in written]
    with pytest.raises(InvalidArgument, match="was not written"):
        copy.check_written(torch.tensor(left, dtype=torch.int32), "")


@pytest.mark.parametrize("seed", range(5))
def test_what_is_forgotten_makes_room_for_what_is_sent(
    kv: SharedKv, held: list[BlockCopy], seed: int
) -> None:
    random = Random(seed)
    limit = (2 * NUM_BLOCKS + 12 * (num_bytes(kv) // PAGE)) * PAGE
    copy, sent = BlockCopy(kv, limit), SentBlocks(kv, limit, PAGE)
    held.append(copy)
    generations = np.full(NUM_BLOCKS, 2, np.int64)
    in_use = np.zeros(0, np.int64)
    for _ in range(100):
        written_over = np.setdiff1d([random.randrange(NUM_BLOCKS)], in_use)
        generations[written_over] += 2
        step = np.unique([random.randrange(NUM_BLOCKS) for _ in range(6)])
        forgotten, wanted = sent.update(step, generations[step], [in_use])
        assert not np.isin(forgotten, [*step, *in_use]).any()
        copy.forget(torch.from_numpy(forgotten.astype(np.int32)))
        for block in wanted.tolist():
            copy.write(block, content(kv, int(generations[block])))
        for block in (*step, *in_use):
            assert copy.v[0][block].view(torch.uint8)[0, 0, 0] == generations[block] % 251
        in_use = np.zeros(0, np.int64) if random.random() < 0.5 else step


def test_those_attended_longest_ago_are_forgotten_first() -> None:
    kv = SHAPES[0]
    sent = SentBlocks(kv, (2 * 5 + 3 * 3) * PAGE, PAGE)
    twos = np.full(NUM_BLOCKS, 2, np.int64)
    for block, expected in ((0, []), (1, []), (2, []), (0, []), (3, [1]), (4, [2])):
        forgotten, _ = sent.update(np.array([block]), twos[[block]], [])
        assert forgotten.tolist() == expected

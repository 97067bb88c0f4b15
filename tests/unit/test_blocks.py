"""The block pool and how segments lie in blocks."""

from __future__ import annotations

import pytest

from cluster.blocks.pool import BlockPool, blocks_for
from cluster.blocks.segment import SegmentTable
from cluster.errors import InvariantBroken
from cluster.ids import BlockId


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (15, 1), (16, 1), (17, 2)])
def test_a_partial_block_counts_as_one(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens) == blocks


def test_a_block_is_never_handed_out_twice() -> None:
    pool = BlockPool(8)
    first, second = pool.allocate(5), pool.allocate(3)
    assert not set(first) & set(second)
    assert pool.num_free == 0
    pool.check()


def test_asking_for_more_than_is_free_takes_nothing() -> None:
    pool = BlockPool(4)
    with pytest.raises(InvariantBroken, match="5 blocks asked of a pool with 4 free"):
        pool.allocate(5)
    assert pool.num_free == 4


def test_releasing_twice_is_found_out() -> None:
    pool = BlockPool(4)
    taken = pool.allocate(2)
    pool.release(taken)
    with pytest.raises(InvariantBroken, match="was not held"):
        pool.release(taken[:1])


def test_a_segment_needs_a_block_only_when_its_last_is_full() -> None:
    table = SegmentTable((BlockId(3),))
    assert table.missing(16) == 0
    assert table.missing(17) == 1
    assert table.view(9).num_tokens == 9

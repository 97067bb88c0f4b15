"""The pool of blocks, as the laws of `blocks` see it: what it would give out, in order."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from cluster.blocks.pool import BlockPool
from cluster.ids import BlockId
from tests.laws.cases import Case

Blocks = tuple[BlockId, ...]


def pool_of(free: Sequence[BlockId], held: Sequence[BlockId]) -> BlockPool:
    """Gives out the free blocks in this order."""
    pool = BlockPool(len(free) + len(held))
    pool.allocate(pool.num_blocks)
    pool.release(free[::-1])
    return pool


def drained(pool: BlockPool) -> Blocks:
    pool.check()
    return pool.allocate(pool.num_free)


def draw_blocks(data: st.DataObject) -> tuple[Blocks, Blocks]:
    """Held blocks, and free ones in the order in which they are given out."""
    numbers = data.draw(st.permutations(range(data.draw(st.integers(0, 9)))))
    cut = data.draw(st.integers(0, len(numbers)))
    blocks = tuple(map(BlockId, numbers))
    return blocks[:cut], blocks[cut:]


def on_top(data: st.DataObject) -> Case:
    xs, rest = draw_blocks(data)
    pool = pool_of(rest, xs)
    pool.release(xs)
    right = (*reversed(xs), *drained(pool_of(rest, xs)))
    return Case({"xs": xs, "rest": rest}, drained(pool), right)


def given_again(data: st.DataObject) -> Case:
    xs, rest = draw_blocks(data)
    pool = pool_of(rest, xs)
    pool.release(xs[::-1])
    return Case({"xs": xs, "rest": rest}, pool.allocate(len(xs)), xs)


def as_before(data: st.DataObject) -> Case:
    xs, rest = draw_blocks(data)
    pool = pool_of(rest, xs)
    pool.release(xs)
    pool.allocate(len(xs))
    return Case({"xs": xs, "rest": rest}, drained(pool), rest)


def taken_back(data: st.DataObject) -> Case:
    held, rest = draw_blocks(data)
    pool = pool_of(rest, held)
    n = data.draw(st.integers(0, len(rest)))
    pool.release(pool.allocate(n)[::-1])
    return Case({"n": n, "rest": rest}, drained(pool), rest)

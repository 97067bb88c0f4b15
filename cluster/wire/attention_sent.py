"""Which blocks an attention worker of another host has, as far as it was told.

A block is sent before it is attended first and after it was written over. Where the worker has room
for fewer than are attended over time, those that were not for longest are forgotten there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.attention.shared_kv import SharedKv

Blocks = NDArray[np.integer[Any]]


class SentBlocks:
    """`max_bytes` and `page_bytes` are the worker's. A page that a block only begins or ends in
    stays taken when the block is forgotten."""

    def __init__(self, kv: SharedKv, max_bytes: int, page_bytes: int) -> None:
        place = kv.block_bytes(0)
        self._inner_pages = (place.stop - place.start) // page_bytes
        self._max_pages = max_bytes // page_bytes
        # -1 is none.
        self._generations = np.full(kv.num_blocks, -1, np.int64)
        self._was_sent = np.zeros(kv.num_blocks, np.bool_)
        # The step that attended it last.
        self._used = np.zeros(kv.num_blocks, np.int64)
        self._step = 0

    def update(
        self, blocks: Blocks, generations: NDArray[np.int64], in_use: Iterable[Blocks]
    ) -> tuple[Blocks, Blocks]:
        """A step attends these blocks: which to forget first, and which to send then. Those in use
        stay. Too few are forgotten when that makes no room."""
        self._step += 1
        self._used[blocks] = self._step
        sent = blocks[self._generations[blocks] != generations]
        held = self._generations >= 0
        held[sent] = True
        self._was_sent[sent] = True
        excess = int(np.count_nonzero(held)) - self._most_held()
        for kept in (blocks, *in_use):
            held[kept] = False
        forgotten = self._longest_unused(np.flatnonzero(held), excess)
        self._generations[blocks] = generations
        self._generations[forgotten] = -1
        return forgotten, sent

    def _most_held(self) -> int:
        """Each takes its inner pages, and each that was ever sent two more at its ends."""
        left = self._max_pages - 2 * int(np.count_nonzero(self._was_sent))
        return left // self._inner_pages if self._inner_pages else len(self._was_sent)

    def _longest_unused(self, blocks: Blocks, num_blocks: int) -> Blocks:
        order = np.argsort(self._used[blocks], kind="stable")
        return blocks[order[: max(0, num_blocks)]]

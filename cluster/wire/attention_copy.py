"""An attention worker's copy of the blocks of an engine on another host.

It has the shape of the engine's memory, and takes memory of its own for what was written only, in
whole pages. Only what was written is ever read: reading would take memory too.

    pages     |    .    |    .    |    .    |    .    |
    blocks       [ 0          ][ 1          ]
    taken      0    0         0,1  1         1
    forget 0        x                                     the others may be of its neighbours
"""

from __future__ import annotations

import mmap
import os
from contextlib import ExitStack

import numpy as np
from torch import Tensor

from cluster.attention.shared_kv import SharedKv, read_only
from cluster.errors import InvalidArgument, TooLarge, Unavailable

PAGE_BYTES = mmap.PAGESIZE


class BlockCopy:
    """`k` and `v` are its blocks, layer by layer, to be read; `num_bytes` are taken.

    Raises InvalidArgument for what `kv` cannot be, Unavailable when the system gives no memory.
    """

    def __init__(self, kv: SharedKv, max_bytes: int) -> None:
        self._kv = kv
        self._max_bytes = max_bytes
        self.num_bytes = 0
        self._fd = os.memfd_create("thoth-kv-copy", os.MFD_CLOEXEC)
        self._held = ExitStack()
        self._held.callback(os.close, self._fd)
        try:
            self._map = self._mapped()
            self.k, self.v = kv.views(read_only(self._fd, kv.num_bytes))
            self._is_written = np.zeros(kv.num_blocks, np.bool_)
            self._is_taken = np.zeros(-(-kv.num_bytes // PAGE_BYTES), np.bool_)
            first = kv.block_bytes(0)
            self._block_bytes = first.stop - first.start
        except (MemoryError, OSError) as error:
            self.close()
            raise Unavailable(f"no memory for {kv.num_blocks} blocks: {error}") from error
        except InvalidArgument:
            self.close()
            raise

    def _mapped(self) -> mmap.mmap:
        num_bytes = self._kv.num_bytes
        try:
            os.ftruncate(self._fd, num_bytes)
            return self._held.enter_context(mmap.mmap(self._fd, num_bytes))
        except (OSError, ValueError) as error:
            raise InvalidArgument(
                f"{num_bytes} bytes cannot be mapped: {error}", field="open.kv.num_bytes"
            ) from error

    def write(self, block: int, content: bytes) -> None:
        """Raises InvalidArgument for what is no block, TooLarge when there is no room for it,
        Unavailable when the system has no memory for it."""
        if block >= self._kv.num_blocks:
            raise InvalidArgument(
                f"block {block} is written",
                field="write.block",
                limit=f"{self._kv.num_blocks} blocks",
            )
        if len(content) != self._block_bytes:
            raise InvalidArgument(
                f"block {block} has {len(content)} bytes",
                field="write.content",
                limit=f"exactly {self._block_bytes} bytes",
            )
        if not self._is_written[block]:
            self._take(block)
        try:
            os.pwrite(self._fd, content, self._kv.block_bytes(block).start)
        except OSError as error:
            raise Unavailable(f"no memory for block {block}: {error}") from error
        self._is_written[block] = True

    def _take(self, block: int) -> None:
        place = self._kv.block_bytes(block)
        pages = self._is_taken[place.start // PAGE_BYTES : -(-place.stop // PAGE_BYTES)]
        more = int(np.count_nonzero(~pages)) * PAGE_BYTES
        if self.num_bytes + more > self._max_bytes:
            raise TooLarge(
                f"block {block} does not fit beside {self.num_bytes} bytes of others",
                field="write.block",
                limit=f"{self._max_bytes} bytes",
            )
        self.num_bytes += more
        pages[:] = True

    def forget(self, block_ids: Tensor) -> None:
        """Makes room. Raises InvalidArgument as `check_written`."""
        self.check_written(block_ids, "forget.blocks")
        for block in block_ids.tolist():
            place = self._kv.block_bytes(block)
            first, end = -(-place.start // PAGE_BYTES), place.stop // PAGE_BYTES
            self._is_written[block] = False
            if end > first and self._is_taken[first]:
                self._map.madvise(mmap.MADV_REMOVE, first * PAGE_BYTES, (end - first) * PAGE_BYTES)
                self._is_taken[first:end] = False
                self.num_bytes -= (end - first) * PAGE_BYTES

    def check_written(self, block_ids: Tensor, field: str) -> None:
        """Raises InvalidArgument when a block is none, or was not written."""
        blocks = block_ids.numpy()
        outside = blocks[(blocks < 0) | (blocks >= self._kv.num_blocks)]
        if len(outside):
            raise InvalidArgument(
                f"there is no block {outside[0]}",
                field=field,
                limit=f"{self._kv.num_blocks} blocks",
            )
        missing = blocks[~self._is_written[blocks]]
        if len(missing):
            raise InvalidArgument(f"block {missing[0]} was not written", field=field)

    def close(self) -> None:
        """The memory goes with the last of the views."""
        self.k, self.v = [], []
        self._held.close()

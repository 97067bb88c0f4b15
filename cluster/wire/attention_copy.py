"""An attention worker's copy of the blocks of an engine on another host.

It has the shape of the engine's memory, and takes memory of its own for what was written only. Only
what was written is ever read: reading would take memory too.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
from torch import Tensor

from cluster.attention.shared_kv import SharedKv, read_only
from cluster.errors import InvalidArgument, TooLarge, Unavailable


class BlockCopy:
    """`k` and `v` are its blocks, layer by layer, to be read.

    Raises InvalidArgument for what `kv` cannot be, Unavailable when the system gives no memory.
    """

    def __init__(self, kv: SharedKv, max_bytes: int) -> None:
        self._kv = kv
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._fd = os.memfd_create("thoth-kv-copy", os.MFD_CLOEXEC)
        try:
            self.k, self.v = self._views()
            self._is_written = np.zeros(kv.num_blocks, np.bool_)
            first = kv.block_bytes(0)
            self._block_bytes = first.stop - first.start
        except MemoryError as error:
            self.close()
            raise Unavailable(f"no memory for {kv.num_blocks} blocks: {error}") from error
        except InvalidArgument:
            self.close()
            raise

    def _views(self) -> tuple[list[Tensor], list[Tensor]]:
        num_bytes = self._kv.num_bytes
        try:
            os.ftruncate(self._fd, num_bytes)
            memory = read_only(self._fd, num_bytes)
        except (OSError, ValueError) as error:
            raise InvalidArgument(
                f"{num_bytes} bytes cannot be mapped: {error}", field="open.kv.num_bytes"
            ) from error
        return self._kv.views(memory)

    def write(self, block: int, content: bytes) -> None:
        """Raises InvalidArgument for what is no block, TooLarge when it would be one too many,
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
        """Counted in whole pages, also those that two blocks share."""
        place = self._kv.block_bytes(block)
        num_pages = (place.stop - 1) // mmap.PAGESIZE - place.start // mmap.PAGESIZE + 1
        if self._num_bytes + num_pages * mmap.PAGESIZE > self._max_bytes:
            raise TooLarge(
                f"block {block} does not fit beside {self._num_bytes} bytes of others",
                field="write.block",
                limit=f"{self._max_bytes} bytes",
            )
        self._num_bytes += num_pages * mmap.PAGESIZE

    def check_written(self, block_ids: Tensor) -> None:
        """Raises InvalidArgument when a block is none, or was never written."""
        blocks = block_ids.numpy()
        outside = blocks[(blocks < 0) | (blocks >= self._kv.num_blocks)]
        if len(outside):
            raise InvalidArgument(
                f"the plan has block {outside[0]}",
                field="begin.block_ids",
                limit=f"{self._kv.num_blocks} blocks",
            )
        missing = blocks[~self._is_written[blocks]]
        if len(missing):
            raise InvalidArgument(
                f"block {missing[0]} is attended and was not written", field="begin.block_ids"
            )

    def close(self) -> None:
        """The memory goes with the last of the views."""
        os.close(self._fd)
        self.k, self.v = [], []

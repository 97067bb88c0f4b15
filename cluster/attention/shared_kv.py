"""Keys and values in memory of another process: where they lie in it, and a mapping to read them.

Its owner and whoever it is passed on to make the same views over it.
"""

from __future__ import annotations

import mmap
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.blocks.pool import BLOCK_TOKENS
from cluster.errors import InvalidArgument

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class SharedKv:
    """The blocks of all layers in a memory of `num_bytes`.

    `stride` is from one block to the next, `starts` where k and v of each layer begin in the first;
    both are counted in numbers of `dtype`.
    """

    dtype: str
    num_bytes: int
    num_blocks: int
    kv_heads: int
    head_dim: int
    stride: int
    starts: tuple[tuple[int, int], ...]

    def views(self, memory: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """k and v of each layer over the memory, uint8 [num_bytes]. Raises InvalidArgument where
        they would leave it."""
        numbers = self._numbers(memory)
        self._check(len(numbers))
        heads, dim = self.kv_heads, self.head_dim
        k_size, v_size = (heads, dim, BLOCK_TOKENS), (heads, BLOCK_TOKENS, dim)
        return (
            [self._view(numbers, k_size, start) for start, _ in self.starts],
            [self._view(numbers, v_size, start) for _, start in self.starts],
        )

    def block_bytes(self, block: int) -> slice:
        """Where a block's keys and values lie in the memory, those of all layers. Raises
        InvalidArgument where other blocks lie between them; `views` checks the rest."""
        starts = [start for layer in self.starts for start in layer]
        begin, end = min(starts), max(starts) + self.kv_heads * self.head_dim * BLOCK_TOKENS
        if end - begin > self.stride:
            raise InvalidArgument("a block's layers are further apart than its next", field="kv")
        size = DTYPES[self.dtype].itemsize
        return slice((begin + block * self.stride) * size, (end + block * self.stride) * size)

    def _numbers(self, memory: Tensor) -> Tensor:
        dtype = DTYPES.get(self.dtype)
        if dtype is None:
            raise InvalidArgument(f"{self.dtype!r} is none of {', '.join(DTYPES)}", field="kv")
        if memory.nbytes % dtype.itemsize:
            raise InvalidArgument(f"{memory.nbytes} bytes are no {self.dtype}", field="kv")
        return memory.view(dtype)

    def _check(self, num_numbers: int) -> None:
        inner = self.kv_heads * self.head_dim * BLOCK_TOKENS
        if min(self.num_blocks, self.kv_heads, self.head_dim, len(self.starts)) < 1:
            raise InvalidArgument("keys and values have no blocks, heads or layers", field="kv")
        if self.stride < inner:
            raise InvalidArgument(f"blocks of {inner} are {self.stride} apart", field="kv")
        end = (self.num_blocks - 1) * self.stride + inner
        for start in (start for layer in self.starts for start in layer):
            if not 0 <= start <= num_numbers - end:
                raise InvalidArgument(
                    f"blocks from {start} on end behind a memory of {num_numbers}", field="kv"
                )

    def _view(self, numbers: Tensor, size: tuple[int, int, int], start: int) -> Tensor:
        strides = (self.stride, size[1] * size[2], size[2], 1)
        return torch.as_strided(numbers, (self.num_blocks, *size), strides, start)


def read_only(fd: int, num_bytes: int) -> Tensor:
    """The memory's bytes, mapped so that writing to them ends the process. `fd` may be closed."""
    memory = mmap.mmap(fd, num_bytes, prot=mmap.PROT_READ)
    with warnings.catch_warnings():
        # torch has no tensors that cannot be written to, and says so.
        warnings.simplefilter("ignore", UserWarning)
        return torch.frombuffer(memory, dtype=torch.uint8)

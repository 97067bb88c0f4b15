"""What the Triton kernels compute, and how much of it a program takes at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.attention.cuda.fold import power_of_two
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.errors import InvariantBroken, Unsupported

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LARGEST_HEAD_DIM = 256
LARGEST_GROUP = 64
# The least height of a product of the matrix units.
LEAST_QUERIES = 16


@dataclass(frozen=True, slots=True)
class HeadShape:
    """A model's attention heads, and the dtype of its keys and values in blocks.

    Raises Unsupported for what the kernels do not compute.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not 16 <= self.head_dim <= LARGEST_HEAD_DIM or self.head_dim % 16:
            raise Unsupported(
                f"head_dim is {self.head_dim}",
                field="model.source",
                limit=f"head_dim is a multiple of 16 up to {LARGEST_HEAD_DIM} on a cuda device",
            )
        if self.num_heads % self.num_kv_heads or self.group > LARGEST_GROUP:
            raise Unsupported(
                f"{self.num_heads} heads share {self.num_kv_heads} key-value heads",
                field="model.source",
                limit=f"at most {LARGEST_GROUP} heads to a key-value head on a cuda device",
            )
        if self.dtype not in DTYPES:
            raise Unsupported(
                f"keys and values are {self.dtype}",
                field="gpu_worker.kv_dtype",
                limit="float32, float16 or bfloat16",
            )

    @property
    def group(self) -> int:
        """Query heads to a kv head."""
        return self.num_heads // self.num_kv_heads

    @property
    def padded_dim(self) -> int:
        return power_of_two(self.head_dim)

    def queries(self, num_rows: int) -> int:
        """Height of the product for so many rows."""
        return max(LEAST_QUERIES, power_of_two(num_rows * self.group))

    def check(self, k_cache: Tensor, v_cache: Tensor) -> None:
        """Raises InvariantBroken for a cache that is not this shape's."""
        for cache, inner in (
            (k_cache, (self.head_dim, BLOCK_TOKENS)),
            (v_cache, (BLOCK_TOKENS, self.head_dim)),
        ):
            is_ours = cache.dtype == self.dtype and cache.shape[1:] == (self.num_kv_heads, *inner)
            # A load of several keys at once wants blocks that begin at a multiple of it.
            if not (is_ours and cache[0].is_contiguous()) or cache.stride(0) % BLOCK_TOKENS:
                raise InvariantBroken(
                    f"a cache of {tuple(cache.shape)} {cache.dtype}, strides {cache.stride()}, "
                    f"for {self}"
                )


@dataclass(frozen=True, slots=True)
class Tiles:
    """What decides speed, and bits only through the order of sums.

    `queries` are (row, head) pairs that a program of several rows takes together, `keys` what it
    takes at a time; `decode_stages` and `prefill_stages` are loads under way at once, and
    `states_ahead` those of a merge.
    """

    queries: int
    keys: int
    warps: int
    decode_stages: int
    prefill_stages: int
    states_ahead: int = 8

    def rows(self, shape: HeadShape) -> int:
        """Rows that one program takes together."""
        return max(1, self.queries // shape.group)


def tiles_for(shape: HeadShape) -> Tiles:
    """The largest that the compiler keeps in registers, and shared memory in all its stages.

    Read off the compiler's report for compute capability 9.0: float32 is multiplied without the
    matrix units, where more than 16 queries spill.
    """
    if shape.dtype == torch.float32:
        return Tiles(queries=16, keys=16, warps=4, decode_stages=2, prefill_stages=2)
    if shape.padded_dim > 128:
        return Tiles(queries=32, keys=32, warps=4, decode_stages=2, prefill_stages=2)
    return Tiles(queries=64, keys=64, warps=4, decode_stages=3, prefill_stages=2)

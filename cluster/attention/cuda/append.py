"""New keys and values into their blocks."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from cluster.attention.cuda.fold import device_function
from cluster.attention.cuda.launch import launch
from cluster.attention.cuda.shape import HeadShape


@device_function
def append_rows(  # noqa: PLR0913, PLR0917 - a kernel is told everything
    k: tl.tensor,
    v: tl.tensor,
    slots: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    k_row_stride: tl.tensor,
    v_row_stride: tl.tensor,
    k_block_stride: tl.tensor,
    v_block_stride: tl.tensor,
    D: tl.constexpr,
    DP: tl.constexpr,
) -> None:
    """One (row, kv head) a program, rounded to what the cache holds."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    d = tl.arange(0, DP)
    slot = tl.load(slots + row)
    block, place = slot // 16, slot % 16
    key = tl.load(k + row * k_row_stride + head * D + d, mask=d < D)
    value = tl.load(v + row * v_row_stride + head * D + d, mask=d < D)
    k_at = k_cache + block * k_block_stride + (head * D + d) * 16 + place
    v_at = v_cache + block * v_block_stride + (head * 16 + place) * D + d
    tl.store(k_at, key.to(k_cache.dtype.element_ty), mask=d < D)
    tl.store(v_at, value.to(v_cache.dtype.element_ty), mask=d < D)


def append(
    shape: HeadShape, caches: tuple[Tensor, Tensor], slots: Tensor, k: Tensor, v: Tensor
) -> None:
    """`k` and `v` [rows, kv_heads, head_dim] into `slots` int64 [rows] of the two caches."""
    k_cache, v_cache = caches
    shape.check(k_cache, v_cache)
    k, v = _with_whole_rows(k), _with_whole_rows(v)
    launch(append_rows, (k.shape[0], shape.num_kv_heads))(
        k,
        v,
        slots,
        k_cache,
        v_cache,
        k.stride(0),
        v.stride(0),
        k_cache.stride(0),
        v_cache.stride(0),
        shape.head_dim,
        shape.padded_dim,
        num_warps=1,
    )


def _with_whole_rows(x: Tensor) -> Tensor:
    """[rows, kv_heads, head_dim] with any stride between rows and none within."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()

"""What the Triton kernels share: the fold of attention over paged keys.

A program holds M queries, each a (row, head) pair over one kv head, as `queries` [M, DP] float32
already scaled; DP is head_dim up to a power of two. Its running state is unnormalised
(FlashAttention, arXiv 2205.14135, section 3.1):

    top    [M]      largest score so far, -inf before the first
    total  [M]      sum of exp(score - top)
    acc    [M, DP]  sum of exp(score - top) * value

Products with 16-bit keys and values go through the matrix units, which want both sides in 16 bits.
A float32 number cut in `PARTS` 16-bit ones, each what the others left over, loses all but nothing:
two parts of bfloat16 keep 16 bits, two of float16 keep 22. Float32 keys are multiplied in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import triton
import triton.language as tl

Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK = tl.constexpr(16)


def device_function(function: Function) -> Function:
    """`triton.jit` that keeps the type, for kernels and what they call."""
    return cast(Function, triton.jit(function))


def power_of_two(number: int) -> int:
    """The least power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


@device_function
def product(a: tl.tensor, b: tl.tensor, acc: tl.tensor, EMULATED: tl.constexpr) -> tl.tensor:
    """acc + a @ b with sums in float32. The interpreter cannot multiply bfloat16: `EMULATED`."""
    if EMULATED:
        acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        acc = tl.dot(a, b, acc)
    return acc


@device_function
def exact_product(
    a: tl.tensor, b: tl.tensor, acc: tl.tensor, PARTS: tl.constexpr, EMULATED: tl.constexpr
) -> tl.tensor:
    """acc + a @ b, where a is float32 and b what the cache holds."""
    if b.dtype == tl.float32:
        acc = tl.dot(a, b, acc, input_precision="ieee")
    else:
        high = a.to(b.dtype)
        if PARTS == 2:
            low = (a - high.to(tl.float32)).to(b.dtype)
            acc = product(low, b, acc, EMULATED)
        acc = product(high, b, acc, EMULATED)
    return acc


@device_function
def fold(  # noqa: PLR0913, PLR0917 - a kernel is told everything
    top: tl.tensor,
    total: tl.tensor,
    acc: tl.tensor,
    queries: tl.tensor,
    limit: tl.tensor,
    num_keys: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    blocks: tl.tensor,
    k_stride: tl.tensor,
    v_stride: tl.tensor,
    D: tl.constexpr,
    DP: tl.constexpr,
    N: tl.constexpr,
    PARTS: tl.constexpr,
    EMULATED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The state after `num_keys` more keys, of which query `m` sees the first `limit[m]`.

    `k` and `v` point at the kv head in block 0, `blocks` at the number of the first key's block;
    strides are from block to block. N keys are taken at a time.
    """
    columns = tl.arange(0, N)
    d = tl.arange(0, DP)
    for start in range(0, num_keys, N):
        key = start + columns
        # Beyond the last key block 0 stands in: what it holds is hidden below.
        block = tl.load(blocks + key // BLOCK, mask=key < num_keys, other=0).to(tl.int64)
        # The keys of a block are neighbours in memory; that lets a thread load several at once.
        places = tl.max_contiguous(tl.multiple_of(block * k_stride + key % BLOCK, 16), 16)
        keys = tl.load(k + places[None, :] + (d * BLOCK)[:, None], mask=(d < D)[:, None], other=0.0)
        scores = tl.zeros([queries.shape[0], N], tl.float32)
        scores = exact_product(queries, keys, scores, PARTS, EMULATED)
        scores = tl.where(key[None, :] < limit[:, None], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        # No key seen yet: any finite pivot keeps exp(-inf - pivot) at 0 instead of NaN.
        pivot = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp(scores - pivot[:, None])
        fade = tl.exp(top - pivot)
        # A place that holds no key may hold NaN, and 0 * NaN is not 0.
        values = tl.load(
            v + (block * v_stride + (key % BLOCK) * D)[:, None] + d[None, :],
            mask=(key < num_keys)[:, None] & (d < D)[None, :],
            other=0.0,
        )
        total = total * fade + tl.sum(weights, 1)
        acc = exact_product(weights, values, acc * fade[:, None], PARTS, EMULATED)
        top = new_top
    return top, total, acc


@device_function
def normalised(top: tl.tensor, total: tl.tensor, acc: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """`(o, lse)` of a running state; over no keys the unit, (0, -inf)."""
    is_empty = total == 0.0
    divisor = tl.where(is_empty, 1.0, total)
    lse = tl.where(is_empty, float("-inf"), top + tl.log(divisor))
    return acc / divisor[:, None], lse

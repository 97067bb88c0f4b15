"""Attention of long runs: a program takes a block of a run's rows and all they see.

FlashAttention-2 (arXiv 2307.08691) over paged keys: the heads that share a kv head are computed
together, the segments before the run's own are seen whole, its own up to the row itself. One
running state goes over all segments from left to right, a few keys at a time from each one's start,
so that the order of a row's sum depends on its place alone; it rounds otherwise than the merge of
tiles.
"""

from __future__ import annotations

import triton.language as tl

from cluster.attention.cuda.fold import device_function, fold, normalised


@device_function
def attend_rows(  # noqa: PLR0913, PLR0917 - a kernel is told everything
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    o: tl.tensor,
    lse: tl.tensor,
    part_run: tl.tensor,
    part_start: tl.tensor,
    run_rows: tl.tensor,
    run_offsets: tl.tensor,
    run_segments: tl.tensor,
    segment_tokens: tl.tensor,
    segment_offsets: tl.tensor,
    block_ids: tl.tensor,
    k_stride: tl.tensor,
    v_stride: tl.tensor,
    scale: tl.tensor,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PARTS: tl.constexpr,
    EMULATED: tl.constexpr,
) -> None:
    """`o` and `lse` of as many rows of run `part_run`, from `part_start` on, as fit M queries."""
    part = tl.program_id(0)
    kv_head = tl.program_id(1)
    run = tl.load(part_run + part)
    start = tl.load(part_start + part)
    first_row = tl.load(run_rows + run * 2)
    num_rows = tl.load(run_rows + run * 2 + 1)
    m = tl.arange(0, M)
    d = tl.arange(0, DP)
    place = start + m // GROUP
    is_row = (place < num_rows) & (m < M // GROUP * GROUP)
    slot = ((first_row + place).to(tl.int64) * KV_HEADS + kv_head) * GROUP + m % GROUP
    shown = is_row[:, None] & (d < D)[None, :]
    queries = tl.load(q + slot[:, None] * D + d[None, :], mask=shown, other=0.0) * scale
    top = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, DP], tl.float32)
    last = tl.load(run_offsets + run + 1) - 1
    for entry in range(tl.load(run_offsets + run), last + 1):
        segment = tl.load(run_segments + entry)
        tokens = tl.load(segment_tokens + segment)
        hidden = tl.where(entry == last, num_rows - 1 - place, 0)
        limit = tl.where(is_row, tokens - hidden, 0)
        top, total, acc = fold(
            top,
            total,
            acc,
            queries,
            limit,
            tl.max(limit, 0),
            k + kv_head * (D * 16),
            v + kv_head * (D * 16),
            block_ids + tl.load(segment_offsets + segment),
            k_stride,
            v_stride,
            D,
            DP,
            N,
            PARTS,
            EMULATED,
        )
    found, found_lse = normalised(top, total, acc)
    tl.store(lse + slot, found_lse, mask=is_row)
    tl.store(o + slot[:, None] * D + d[None, :], found, mask=shown)

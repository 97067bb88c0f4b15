"""Attention of short runs: tiles over the whole device, then a merge of what each row found.

(Flash-decoding, with the fold of `cluster.attention.state`: a state for every tile of 256 keys,
merged left to right within a segment and then over segments.)
"""

from __future__ import annotations

import triton.language as tl

from cluster.attention.cuda.fold import device_function, fold, normalised


@device_function
def attend_units(  # noqa: PLR0913, PLR0917 - a kernel is told everything
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    state_o: tl.tensor,
    state_lse: tl.tensor,
    bounds: tl.tensor,
    unit_block: tl.tensor,
    unit_tile: tl.tensor,
    unit_first: tl.tensor,
    unit_pairs: tl.tensor,
    pair_row: tl.tensor,
    pair_limit: tl.tensor,
    pair_state: tl.tensor,
    block_ids: tl.tensor,
    k_stride: tl.tensor,
    v_stride: tl.tensor,
    scale: tl.tensor,
    SHARED: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    EMULATED: tl.constexpr,
) -> None:
    """A state for every (pair, tile) of the units of one kind: `SHARED` 1 takes those of several
    pairs. Query `m` is row `m // GROUP` of the unit and head `m % GROUP` of its kv head.

    Programs take (unit, kv head) in turns, so the grid may be of any size and is fixed in a graph.
    """
    first = tl.load(bounds + SHARED) * KV_HEADS
    last = tl.load(bounds + SHARED + 1) * KV_HEADS
    m = tl.arange(0, M)
    d = tl.arange(0, DP)
    for work in range(first + tl.program_id(0), last, tl.num_programs(0)):
        unit = work // KV_HEADS
        kv_head = work % KV_HEADS
        is_row = m // GROUP < tl.load(unit_pairs + unit)
        pair = tl.load(unit_first + unit) + m // GROUP
        row = tl.load(pair_row + pair, mask=is_row, other=0)
        tile = tl.load(unit_tile + unit)
        limit = tl.load(pair_limit + pair, mask=is_row, other=0) - tile * TILE
        head = kv_head * GROUP + m % GROUP
        shown = is_row[:, None] & (d < D)[None, :]
        at = (row * (KV_HEADS * GROUP) + head)[:, None] * D + d[None, :]
        queries = tl.load(q + at, mask=shown, other=0.0) * scale
        top, total, acc = fold(
            tl.full([M], float("-inf"), tl.float32),
            tl.zeros([M], tl.float32),
            tl.zeros([M, DP], tl.float32),
            queries,
            limit,
            tl.minimum(tl.max(limit, 0), TILE),
            k + kv_head * (D * 16),
            v + kv_head * (D * 16),
            block_ids + tl.load(unit_block + unit),
            k_stride,
            v_stride,
            D,
            DP,
            N,
            PARTS,
            EMULATED,
        )
        o, lse = normalised(top, total, acc)
        # A row that sees nothing of the tile has no state there.
        sees = is_row & (limit > 0)
        state = (tl.load(pair_state + pair, mask=is_row, other=0) + tile).to(tl.int64)
        slot = state * (KV_HEADS * GROUP) + head
        tl.store(state_lse + slot, lse, mask=sees)
        tl.store(state_o + slot[:, None] * D + d[None, :], o, mask=shown & sees[:, None])


@device_function
def merged(
    o_a: tl.tensor, lse_a: tl.tensor, o_b: tl.tensor, lse_b: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """`cluster.attention.state.merge` of one row's states."""
    top = tl.maximum(lse_a, lse_b)
    pivot = tl.where(top == float("-inf"), 0.0, top)
    weight_a, weight_b = tl.exp(lse_a - pivot), tl.exp(lse_b - pivot)
    total = weight_a + weight_b
    divisor = tl.where(total == 0.0, 1.0, total)
    lse = tl.where(total == 0.0, float("-inf"), pivot + tl.log(divisor))
    return (o_a * weight_a + o_b * weight_b) / divisor, lse


@device_function
def merge_states(  # noqa: PLR0913, PLR0917 - a kernel is told everything
    state_o: tl.tensor,
    state_lse: tl.tensor,
    closes: tl.tensor,
    row_first: tl.tensor,
    row_states: tl.tensor,
    o: tl.tensor,
    lse: tl.tensor,
    num_rows: tl.tensor,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    AHEAD: tl.constexpr,
) -> None:
    """Folds the states of a (row, head), with loads of `AHEAD` of them under way together. Rows
    beyond `num_rows` and rows without states get the unit."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    d = tl.arange(0, DP)
    is_planned = row < num_rows
    first = tl.load(row_first + row, mask=is_planned, other=0).to(tl.int64)
    count = tl.load(row_states + row, mask=is_planned, other=0)
    total_o, total_lse = tl.zeros([DP], tl.float32), tl.full([], float("-inf"), tl.float32)
    segment_o, segment_lse = total_o, total_lse
    for start in range(0, count, AHEAD):
        for nth in tl.static_range(AHEAD):
            is_state = start + nth < count
            state = first + start + nth
            slot = state * HEADS + head
            tile_lse = tl.load(state_lse + slot, mask=is_state, other=float("-inf"))
            tile_o = tl.load(state_o + slot * D + d, mask=is_state & (d < D), other=0.0)
            is_last = tl.load(closes + state, mask=is_state, other=0) == 1
            segment_o, segment_lse = merged(segment_o, segment_lse, tile_o, tile_lse)
            # The unit is exact, so merging it costs no bit, and there is no branch to wait for.
            closed_o = tl.where(is_last, segment_o, 0.0)
            closed_lse = tl.where(is_last, segment_lse, float("-inf"))
            total_o, total_lse = merged(total_o, total_lse, closed_o, closed_lse)
            segment_o = tl.where(is_last, 0.0, segment_o)
            segment_lse = tl.where(is_last, float("-inf"), segment_lse)
    slot = row.to(tl.int64) * HEADS + head
    tl.store(lse + slot, total_lse)
    tl.store(o + slot * D + d, total_o, mask=d < D)

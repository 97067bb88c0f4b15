"""The reference: plain torch, any device and head shape; every other kernel is held against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.attention.layout import RunGroup, group_runs
from cluster.attention.plan import AttentionPlan
from cluster.attention.split import Fold
from cluster.attention.state import TILE_TOKENS, State, merge, select, unit_like
from cluster.blocks.pool import BLOCK_TOKENS

# Scores held at once, in floats: what bounds the memory of a long prompt's chunk.
MAX_SCORES = 2**21


@dataclass(frozen=True, slots=True)
class ReferenceBackend:
    """`AttentionBackend` in torch, for blocks on `device`."""

    device: torch.device | str = "cpu"
    name: str = "torch"

    def prepare(self, plan: AttentionPlan, /) -> ReferenceAttention:
        return ReferenceAttention(tuple(g.to(self.device) for g in group_runs(plan)))

    def append(self, k_cache: Tensor, v_cache: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        blocks = torch.div(slots, BLOCK_TOKENS, rounding_mode="floor")
        places = slots % BLOCK_TOKENS
        k_cache[blocks, :, :, places] = k.to(k_cache.dtype)
        v_cache[blocks, :, places] = v.to(v_cache.dtype)

    def fold(self, fold: Fold, parts: State, rows: State, /) -> None:
        fold_parts(fold, parts, rows)


@dataclass(frozen=True, slots=True)
class ReferenceAttention:
    """A step's plan in padded tensors."""

    groups: tuple[RunGroup, ...]

    def attend(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, /) -> State:
        return attend(q, k_cache, v_cache, self.groups)


def fold_parts(fold: Fold, parts: State, rows: State) -> None:
    """All rows' first parts, then their second ones, as long as a row has more."""
    device = parts.o.device
    first, counts = fold.offsets[:-1], fold.offsets.diff()
    for i in range(int(counts.max()) if len(counts) else 0):
        has_more = counts > i
        index = fold.parts[first[has_more] + i].to(device)
        row = fold.rows[has_more].to(device)
        part = State(parts.o[index], parts.lse[index])
        state = merge(State(rows.o[row], rows.lse[row]), part) if i else part
        rows.o[row], rows.lse[row] = state.o, state.lse


def attend(q: Tensor, k_cache: Tensor, v_cache: Tensor, groups: Sequence[RunGroup]) -> State:
    """Attention as `cluster.attention.backend` says."""
    num_rows, num_heads, head_dim = q.shape
    out = State(q.new_zeros(q.shape), q.new_full((num_rows, num_heads), -torch.inf))
    for group in groups:
        state = _attend_group(q, k_cache, v_cache, group)
        real = group.rows >= 0
        out.o[group.rows[real]] = state.o[real].view(-1, num_heads, head_dim)
        out.lse[group.rows[real]] = state.lse[real].view(-1, num_heads)
    return out


def _attend_group(q: Tensor, k_cache: Tensor, v_cache: Tensor, group: RunGroup) -> State:
    """[runs, height, kv_heads, group_size, ...]: the fold over tiles, then over segments."""
    num_runs, height = group.rows.shape
    kv_heads, head_dim = k_cache.shape[1:3]
    queries = q[group.rows.clamp(min=0)].view(num_runs, height, kv_heads, -1, head_dim)
    # [runs, kv_heads, height * group_size, head_dim]
    queries = queries.transpose(1, 2).reshape(num_runs, kv_heads, -1, head_dim)
    queries = queries * head_dim**-0.5
    total: State | None = None
    segment: State | None = None
    for index, tile in _tiles(queries, k_cache, v_cache, group):
        segment = tile if segment is None else merge(segment, tile)
        closes = group.closes[index]
        if not closes.any():
            continue
        if closes.all():
            total = segment if total is None else merge(total, segment)
            segment = None
            continue
        unit = unit_like(segment)
        total = unit if total is None else total
        total = merge(total, select(closes, segment, unit))
        segment = select(closes, unit, segment)
    if total is None:
        raise ValueError("a run group holds at least one tile")
    o = total.o.view(num_runs, kv_heads, height, -1, head_dim).transpose(1, 2)
    return State(o, total.lse.view(num_runs, kv_heads, height, -1).transpose(1, 2))


def _tiles(
    queries: Tensor, k_cache: Tensor, v_cache: Tensor, group: RunGroup
) -> Iterator[tuple[int, State]]:
    """Each tile's state, [runs, kv_heads, height * group_size, ...], computed a batch at a time."""
    num_tiles = group.blocks.shape[0]
    per_tile = queries[..., 0].numel() * TILE_TOKENS
    batch = max(1, MAX_SCORES // per_tile)
    for start in range(0, num_tiles, batch):
        part = slice(start, min(start + batch, num_tiles))
        states = _tile_states(queries, k_cache, v_cache, group, part)
        for i in range(part.stop - start):
            yield start + i, State(states.o[i], states.lse[i])


def _tile_states(
    queries: Tensor, k_cache: Tensor, v_cache: Tensor, group: RunGroup, part: slice
) -> State:
    """[tiles, runs, kv_heads, height * group_size, ...] for the tiles of `part`."""
    num_runs, kv_heads, rows, head_dim = queries.shape
    blocks = group.blocks[part]
    num_tiles = blocks.shape[0]
    flat = (num_tiles * num_runs * kv_heads, -1)
    # [tiles * runs * kv_heads, head_dim, 256]
    keys = k_cache[blocks].permute(0, 1, 3, 4, 2, 5).reshape(flat[0], head_dim, TILE_TOKENS)
    # [tiles, runs, kv_heads, 256, head_dim]
    values = (
        v_cache[blocks]
        .transpose(2, 3)
        .reshape(num_tiles, num_runs, kv_heads, TILE_TOKENS, head_dim)
    )
    # A slot on padding may hold anything, NaN as well, and 0 * NaN is not 0.
    values = values.masked_fill(group.key_mask[part][:, :, None, :, None], 0.0)
    batched = queries.expand(num_tiles, -1, -1, -1, -1).reshape(*flat, head_dim)
    scores = torch.bmm(batched, keys.float())
    scores = scores.view(
        num_tiles, num_runs, kv_heads, -1, rows // group.rows.shape[1], TILE_TOKENS
    )
    scores.masked_fill_(group.mask[part][:, :, None, :, None, :], -torch.inf)
    top = scores.amax(-1, keepdim=True)
    pivot = top.masked_fill_(top == -torch.inf, 0.0)
    # In place: a long chunk's scores are tens of megabytes, and fresh pages cost more than sums.
    weights = scores.sub_(pivot).exp_()
    total = weights.sum(-1)
    o = torch.bmm(weights.view(*flat, TILE_TOKENS), values.reshape(*flat, head_dim).float())
    o = o.view(num_tiles, num_runs, kv_heads, rows, head_dim)
    total = total.view(num_tiles, num_runs, kv_heads, rows)
    lse = pivot.view(total.shape) + torch.log(total)
    return State(o / total.masked_fill(total == 0.0, 1.0).unsqueeze(-1), lse)

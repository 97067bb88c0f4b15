"""Attention whose plan is always at the same addresses, as a recorded CUDA graph wants it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from cluster.attention.cuda.backend import TritonAttention, TritonBackend
from cluster.attention.cuda.layout import lay_out_units, long_runs
from cluster.attention.cuda.plan_buffer import Room
from cluster.attention.cuda.shape import HeadShape
from cluster.attention.plan import AttentionPlan
from cluster.attention.state import TILE_TOKENS


class Kind(NamedTuple):
    """Which kernels a plan needs: each kind is a graph of its own."""

    has_single: bool
    has_shared: bool


@dataclass(frozen=True, slots=True)
class Extent:
    """The largest step that is to fit: rows, tokens of a context, and blocks of the pool."""

    rows: int
    context_tokens: int
    blocks: int


def room_for(shape: HeadShape, extent: Extent, memory_bytes: int = 2**28) -> Room:
    """Room for every step of that extent, as far as the states fit `memory_bytes`."""
    state_bytes = shape.num_heads * (shape.head_dim + 1) * 4
    tiles = -(-extent.context_tokens // TILE_TOKENS)
    states = min(extent.rows * tiles, memory_bytes // state_bytes)
    return Room(
        rows=extent.rows,
        pairs=extent.rows * max(1, tiles),
        units=states,
        states=states,
        blocks=extent.blocks,
    )


class FixedPlan:
    """One buffer for the plans of all steps, of which one is computed at a time."""

    def __init__(self, backend: TritonBackend, room: Room) -> None:
        self._backend = backend
        self._units = backend.units(room, has_single=True, has_shared=True)

    def offer(self, plan: AttentionPlan) -> Kind | None:
        """Takes the plan in and says what it needs; None when it has long runs or too much."""
        if len(long_runs(plan)):
            return None
        layout = lay_out_units(plan, self._backend.tiles.rows(self._backend.shape))
        if not self._units.buffer.room.holds(Room.needed_by(layout)):
            return None
        self._units.buffer.fill(layout)
        return Kind(bool(layout.num_single), bool(layout.num_shared))

    def attention(self, kind: Kind) -> TritonAttention:
        """Attention over whatever plan of that kind was taken in last."""
        units = replace(self._units, has_single=kind.has_single, has_shared=kind.has_shared)
        return TritonAttention(units)

    def append(self, k_cache: Tensor, v_cache: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        self._backend.append(k_cache, v_cache, slots, k, v)

"""Attention of short runs over a plan buffer: states of tiles, then their merge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.attention.cuda.decode import attend_units, merge_states
from cluster.attention.cuda.launch import launch, num_processors
from cluster.attention.cuda.plan_buffer import PlanBuffer
from cluster.attention.cuda.shape import HeadShape, Tiles
from cluster.attention.state import TILE_TOKENS, State

# Programs that take turns, for each multiprocessor: more than fit at once, so that none idles.
PROGRAMS_PER_PROCESSOR = 8
# Parts that a query is cut in where keys are 16-bit: decode waits for memory, so two cost nothing.
PARTS = 2


@dataclass(frozen=True, slots=True)
class UnitAttention:
    """The kernels over whatever plan the buffer holds. A kind of units that no plan will have needs
    no launch: that is what `has_single` and `has_shared` say."""

    buffer: PlanBuffer
    shape: HeadShape
    tiles: Tiles
    has_single: bool
    has_shared: bool
    states: State
    num_programs: int

    @classmethod
    def over(
        cls, buffer: PlanBuffer, shape: HeadShape, tiles: Tiles, has_single: bool, has_shared: bool
    ) -> UnitAttention:
        room, device = buffer.room, buffer.device
        size = (room.states, shape.num_heads)
        states = State(
            torch.empty((*size, shape.head_dim), device=device), torch.empty(size, device=device)
        )
        most = PROGRAMS_PER_PROCESSOR * num_processors(device)
        num_programs = max(1, min(room.units * shape.num_kv_heads, most))
        return cls(buffer, shape, tiles, has_single, has_shared, states, num_programs)

    def attend(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, out: State) -> None:
        """Writes every row of `out`: the unit where a row has no states."""
        if self.has_single:
            self._attend_units(q, k_cache, v_cache, 0)
        if self.has_shared:
            self._attend_units(q, k_cache, v_cache, 1)
        shape, plan = self.shape, self.buffer.plan
        launch(merge_states, (q.shape[0], shape.num_heads))(
            self.states.o,
            self.states.lse,
            plan.closes,
            plan.row_first,
            plan.row_states,
            out.o,
            out.lse,
            self.buffer.room.rows,
            shape.num_heads,
            shape.head_dim,
            shape.padded_dim,
            self.tiles.states_ahead,
            num_warps=1,
        )

    def _attend_units(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, shared: int) -> None:
        shape, plan, tiles = self.shape, self.buffer.plan, self.tiles
        launch(attend_units, (self.num_programs,))(
            q,
            k_cache,
            v_cache,
            self.states.o,
            self.states.lse,
            plan.bounds,
            plan.unit_block,
            plan.unit_tile,
            plan.unit_first,
            plan.unit_pairs,
            plan.pair_row,
            plan.pair_limit,
            plan.pair_state,
            plan.block_ids,
            k_cache.stride(0),
            v_cache.stride(0),
            shape.head_dim**-0.5,
            shared,
            shape.num_kv_heads,
            shape.group,
            shape.head_dim,
            shape.padded_dim,
            shape.queries(tiles.rows(shape) if shared else 1),
            tiles.keys,
            TILE_TOKENS,
            PARTS,
            q.device.type == "cpu",
            num_warps=tiles.warps,
            num_stages=tiles.decode_stages,
        )

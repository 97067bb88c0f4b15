"""`AttentionBackend` for CUDA devices: Triton kernels over blocks where they lie.

A step's short runs are folded tile by tile (`units`), its long ones by blocks of rows
(`long_runs`), or by flash-attn where that is installed and takes the cache's dtype (`flash`). All
sums are float32 and in a fixed order: the same step gives the same bits. On the cpu the kernels run
in Triton's interpreter, for tests: Triton asks for it when a kernel's module is imported.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.attention.cuda.append import append
from cluster.attention.cuda.flash import DTYPES as FLASH_DTYPES
from cluster.attention.cuda.flash import FlashAttention, attend_run, find_flash_attention
from cluster.attention.cuda.layout import lay_out_units
from cluster.attention.cuda.long_runs import LongRuns
from cluster.attention.cuda.plan_buffer import PlanBuffer, Room
from cluster.attention.cuda.shape import HeadShape, Tiles, tiles_for
from cluster.attention.cuda.units import UnitAttention
from cluster.attention.plan import AttentionPlan
from cluster.attention.reference import fold_parts
from cluster.attention.split import Fold
from cluster.attention.state import State

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TritonBackend:
    """For one model's heads on one device. `flash` is flash-attn's function, when there is one."""

    shape: HeadShape
    device: torch.device
    tiles: Tiles
    flash: FlashAttention | None = None
    name: str = "triton"

    @classmethod
    def on(cls, shape: HeadShape, device: torch.device) -> TritonBackend:
        """As fast as it gets: with flash-attn where it imports."""
        flash = find_flash_attention()
        log.info("prefill attention is %s", "Triton's" if flash is None else "flash-attn's")
        return cls(shape, device, tiles_for(shape), flash)

    def prepare(self, plan: AttentionPlan, /) -> TritonAttention:
        layout = lay_out_units(plan, self.tiles.rows(self.shape))
        units = self.units(Room.needed_by(layout), bool(layout.num_single), bool(layout.num_shared))
        units.buffer.fill(layout)
        flash = self.flash if self.shape.dtype in FLASH_DTYPES else None
        long_runs = LongRuns.of(plan, self.shape, self.tiles, self.device)
        return TritonAttention(units, long_runs, flash)

    def units(self, room: Room, has_single: bool, has_shared: bool) -> UnitAttention:
        """Attention of short runs for plans yet to be filled in, up to `room`."""
        buffer = PlanBuffer(room, self.device)
        return UnitAttention.over(buffer, self.shape, self.tiles, has_single, has_shared)

    def append(self, k_cache: Tensor, v_cache: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """As the contract says; `k` and `v` may be of any float dtype."""
        append(self.shape, (k_cache, v_cache), slots, k, v)

    def fold(self, fold: Fold, parts: State, rows: State, /) -> None:
        fold_parts(fold, parts, rows)


@dataclass(frozen=True, slots=True)
class TritonAttention:
    """A step's plan on the device."""

    units: UnitAttention
    long_runs: LongRuns | None = None
    flash: FlashAttention | None = None

    def attend(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, /) -> State:
        self.units.shape.check(k_cache, v_cache)
        q = q.contiguous()
        out = State(torch.empty_like(q), q.new_empty(q.shape[:2]))
        self.units.attend(q, k_cache, v_cache, out)
        if self.long_runs is None:
            return out
        if self.flash is None:
            self.long_runs.attend(q, k_cache, v_cache, out)
        else:
            for number in self.long_runs.numbers:
                attend_run(self.flash, self.long_runs.plan, number, (q, k_cache, v_cache), out)
        return out

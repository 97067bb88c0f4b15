"""Attention of long runs: which programs there are, and their launch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.attention.cuda.launch import launch
from cluster.attention.cuda.layout import long_runs
from cluster.attention.cuda.prefill import attend_rows
from cluster.attention.cuda.shape import HeadShape, Tiles
from cluster.attention.plan import AttentionPlan
from cluster.attention.state import State

# Prefill waits for the matrix units: queries and weights are rounded to the cache's dtype.
PARTS = 1


@dataclass(frozen=True, slots=True)
class LongRuns:
    """Long runs of a plan, which is here on the host and `on_device`. A program takes a block of
    the rows of run `part_run` from `part_start` on, both int32 [parts]."""

    shape: HeadShape
    tiles: Tiles
    plan: AttentionPlan
    on_device: AttentionPlan
    numbers: tuple[int, ...]
    parts: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls, plan: AttentionPlan, shape: HeadShape, tiles: Tiles, device: torch.device
    ) -> LongRuns | None:
        """None when no run is long."""
        numbers = tuple(long_runs(plan).tolist())
        if not numbers:
            return None
        rows = plan.run_rows[:, 1].tolist()
        step = tiles.rows(shape)
        parts = [(run, start) for run in numbers for start in range(0, rows[run], step)]
        sent = torch.tensor(parts, dtype=torch.int32).T.contiguous().to(device)
        return cls(shape, tiles, plan, _sent(plan, device), numbers, (sent[0], sent[1]))

    def attend(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, out: State) -> None:
        """Writes the rows of long runs."""
        shape, plan, tiles = self.shape, self.on_device, self.tiles
        part_run, part_start = self.parts
        launch(attend_rows, (part_run.shape[0], shape.num_kv_heads))(
            q,
            k_cache,
            v_cache,
            out.o,
            out.lse,
            part_run,
            part_start,
            plan.run_rows,
            plan.run_offsets,
            plan.run_segments,
            plan.segment_tokens,
            plan.segment_offsets,
            plan.block_ids,
            k_cache.stride(0),
            v_cache.stride(0),
            shape.head_dim**-0.5,
            shape.num_kv_heads,
            shape.group,
            shape.head_dim,
            shape.padded_dim,
            shape.queries(tiles.rows(shape)),
            tiles.keys,
            PARTS,
            q.device.type == "cpu",
            num_warps=tiles.warps,
            num_stages=tiles.prefill_stages,
        )


def _sent(plan: AttentionPlan, device: torch.device) -> AttentionPlan:
    return AttentionPlan(
        run_rows=plan.run_rows.to(device),
        run_offsets=plan.run_offsets.to(device),
        run_segments=plan.run_segments.to(device),
        segment_tokens=plan.segment_tokens.to(device),
        segment_offsets=plan.segment_offsets.to(device),
        block_ids=plan.block_ids.to(device),
    )

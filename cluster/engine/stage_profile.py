"""What the parts of a step cost here (`cluster.scheduling.stages`), measured once and remembered.

A few forward passes give each curve its points; every step corrects them from then on. Where the
clock sees the stages of a step, each curve is measured by itself. Where it sees the whole alone,
attention is what a step takes longer than its linear operators.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import Home
from cluster.engine.bench import Bench, Timed
from cluster.engine.notes import note_in, remembered
from cluster.scheduling.plan import Chunk
from cluster.scheduling.stages import (
    LEAST_S,
    Curve,
    HostCosts,
    StageCosts,
    keys_of,
    measured_curve,
)

log = logging.getLogger(__name__)

ROWS = (1, 4, 16, 64, 128)
# Chunks of prompts, and decoding rows: after how many tokens, and how many.
PROMPTS = ((0, 16), (0, 128), (2048, 128))
DECODES = ((16, 1), (512, 1), (512, 8), (2048, 8))


@dataclass(frozen=True, slots=True)
class DeviceCosts:
    """Those of `StageCosts` that do not depend on who attends on the host."""

    linear: Curve
    prefill: Curve
    decode: Curve
    exchange_s: float
    step_s: float

    def with_host(self, host: HostCosts) -> StageCosts:
        return StageCosts(
            self.linear,
            self.prefill,
            self.decode,
            host.keys,
            host_row_s=host.row_s,
            exchange_s=self.exchange_s,
            step_s=self.step_s,
            is_beside=host.is_beside,
        )


def device_costs(bench: Bench, folder: Path | None, name: str) -> DeviceCosts:
    """As remembered in the folder under this name, or measured now: seconds. The host has blocks
    that may be read."""

    def measure() -> DeviceCosts:
        begun_s = bench.clock.now_s()
        costs = measured(bench)
        log.info("stages profiled in %.1f s", bench.clock.now_s() - begun_s)
        return costs

    return remembered(note_in(folder, f"{name}-stages"), measure, _written, _read)


def measured(bench: Bench) -> DeviceCosts:
    rows = sorted({min(count, bench.most_rows) for count in ROWS})
    bench.timed([bench.chunk(0, rows[-1])])
    alone = {count: bench.timed([bench.chunk(0, count)]) for count in rows}
    linear = measured_curve({count: _linear_s(timed) for count, timed in alone.items()})

    def attention_s(*chunks: Chunk) -> float:
        timed = bench.timed(chunks)
        if timed.attention_s is not None:
            return timed.attention_s
        return timed.whole_s - linear.at(sum(len(chunk.token_ids) for chunk in chunks))

    room = bench.context_tokens - rows[-1]
    prompts = {(min(alpha, room), min(beta, rows[-1])) for alpha, beta in PROMPTS}
    decodes = {(min(alpha, room), min(count, rows[-1])) for alpha, count in DECODES}
    row, beside = bench.chunk(0, 1), bench.chunk(min(BLOCK_TOKENS, room), 1, Home.HOST)
    return DeviceCosts(
        linear,
        measured_curve({keys_of(*prompt): attention_s(bench.chunk(*prompt)) for prompt in prompts}),
        measured_curve(
            {n * (alpha + 1): attention_s(*_decode(bench, alpha, n)) for alpha, n in decodes}
        ),
        exchange_s=max(LEAST_S, attention_s(beside) - attention_s(row)),
        step_s=_rest_s(alone[rows[0]]),
    )


def _decode(bench: Bench, alpha: int, count: int) -> list[Chunk]:
    """A row each, none over another's blocks as far as there are enough."""
    stride = blocks_for(alpha) + 1
    return [bench.chunk(alpha, 1, first=i * stride) for i in range(count)]


def _linear_s(timed: Timed) -> float:
    return timed.whole_s if timed.linear_s is None else timed.linear_s


def _rest_s(timed: Timed) -> float:
    if timed.linear_s is None or timed.attention_s is None:
        return 0.0
    return max(0.0, timed.whole_s - timed.linear_s - timed.attention_s)


def _written(costs: DeviceCosts) -> Mapping[str, object]:
    curves = {"linear": costs.linear, "prefill": costs.prefill, "decode": costs.decode}
    content: dict[str, object] = {
        name: {"points": curve.points, "seconds": curve.seconds} for name, curve in curves.items()
    }
    return {**content, "exchange_s": costs.exchange_s, "step_s": costs.step_s}


def _read(content: Mapping[str, Any]) -> DeviceCosts:
    def curve(name: str) -> Curve:
        points, seconds = content[name]["points"], content[name]["seconds"]
        return Curve(tuple(map(int, points)), list(map(float, seconds)))

    return DeviceCosts(
        curve("linear"),
        curve("prefill"),
        curve("decode"),
        exchange_s=float(content["exchange_s"]),
        step_s=float(content["step_s"]),
    )

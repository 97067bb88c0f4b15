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
from cluster.scheduling.curves import Curve, Trend, measured_curve
from cluster.scheduling.plan import Chunk
from cluster.scheduling.stages import HostCosts, StageCosts, keys_of

log = logging.getLogger(__name__)

ROWS = (1, 4, 16, 64, 128)
# Chunks of prompts, and decoding rows: after how many tokens, and how many.
PROMPTS = ((0, 16), (0, 128), (2048, 128))
DECODES = ((16, 1), (512, 1), (512, 8), (2048, 8))
# Rows beside what they attend on the host.
EXCHANGES = (1, 8, 64)


@dataclass(frozen=True, slots=True)
class DeviceCosts:
    """Those of `StageCosts` that do not depend on who attends on the host."""

    linear: Curve
    prefill: Curve
    decode: Curve
    exchange: Curve
    rest: Trend

    def with_host(self, host: HostCosts) -> StageCosts:
        return StageCosts(
            self.linear,
            self.prefill,
            self.decode,
            host.keys,
            host_row_s=host.row_s,
            exchange=self.exchange,
            rest=self.rest,
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
        if timed.times is not None:
            return timed.times.device_s
        return timed.whole_s - linear.at(sum(len(chunk.token_ids) for chunk in chunks))

    room = bench.context_tokens - rows[-1]
    prompts = {(min(alpha, room), min(beta, rows[-1])) for alpha, beta in PROMPTS}
    decodes = {(min(alpha, room), min(count, rows[-1])) for alpha, count in DECODES}

    def drawn(count: int) -> Timed:
        return bench.timed([bench.chunk(0, 1)] * count)

    def exchange_s(count: int) -> float:
        beside = bench.timed([bench.chunk(min(BLOCK_TOKENS, room), 1, Home.HOST)] * count)
        if beside.times is not None:
            return beside.times.exchange_s
        return beside.whole_s - drawn(count).whole_s

    return DeviceCosts(
        linear,
        measured_curve({keys_of(*prompt): attention_s(bench.chunk(*prompt)) for prompt in prompts}),
        measured_curve(
            {n * (alpha + 1): attention_s(*_decode(bench, alpha, n)) for alpha, n in decodes}
        ),
        measured_curve({n: exchange_s(n) for n in sorted({min(n, rows[-1]) for n in EXCHANGES})}),
        _rest({count: drawn(count) for count in (1, rows[-1])}),
    )


def _decode(bench: Bench, alpha: int, count: int) -> list[Chunk]:
    """A row each, none over another's blocks as far as there are enough."""
    stride = blocks_for(alpha) + 1
    return [bench.chunk(alpha, 1, first=i * stride) for i in range(count)]


def _linear_s(timed: Timed) -> float:
    return timed.whole_s if timed.times is None else timed.times.linear_s


def _rest(drawn: Mapping[int, Timed]) -> Trend:
    """By rows drawn, as far as a forward pass has it: without deciding and drawing."""
    few, many = min(drawn), max(drawn)
    few_s, many_s = (_rest_s(drawn[count]) for count in (few, many))
    unit_s = max(0.0, many_s - few_s) / max(1, many - few)
    return Trend(max(0.0, few_s - few * unit_s), unit_s)


def _rest_s(timed: Timed) -> float:
    return 0.0 if timed.times is None else max(0.0, timed.whole_s - timed.times.busy_s)


def _written(costs: DeviceCosts) -> Mapping[str, object]:
    curves = {
        "linear": costs.linear,
        "prefill": costs.prefill,
        "decode": costs.decode,
        "exchange": costs.exchange,
    }
    content: dict[str, object] = {
        name: {"points": curve.points, "seconds": curve.seconds} for name, curve in curves.items()
    }
    return {**content, "rest": {"base_s": costs.rest.base_s, "unit_s": costs.rest.unit_s}}


def _read(content: Mapping[str, Any]) -> DeviceCosts:
    def curve(name: str) -> Curve:
        points, seconds = content[name]["points"], content[name]["seconds"]
        return Curve(tuple(map(int, points)), list(map(float, seconds)))

    return DeviceCosts(
        curve("linear"),
        curve("prefill"),
        curve("decode"),
        curve("exchange"),
        Trend(float(content["rest"]["base_s"]), float(content["rest"]["unit_s"])),
    )

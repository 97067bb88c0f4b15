"""Milliseconds that deciding takes: `plan` and `record` of a step with as many requests as a big
worker has, a thousand running and ten thousand waiting.

Nothing is computed: the clock is the simulator's, so that a mode that looks at costs has some to
look at. Without pressure the device's pool has room for all that run; with it, for half of them,
and the host for as many again, so that in `gpu_only` the seats are not all taken.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from random import Random

from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.hardware import G5, H200, LLAMA_3_8B, stage_costs
from benchmarks.offload_sim_clock import SimulatedEngine, work_of
from benchmarks.offload_sim_load import request_of
from benchmarks.result import Outcome, Row, Verdict
from cluster.blocks.pool import BlockPool, blocks_for
from cluster.engine.pauses import ShortPauses
from cluster.knowledge.cache import no_cache
from cluster.request import Request
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload, OffloadMode

SEED = 0
NUM_RUNNING, NUM_WAITING = 1_000, 10_000
PROMPT_TOKENS, ANSWER_TOKENS = 128, 400
STEP_TOKENS = 2048
AIM_MS = 1.0
STEPS = {Scale.QUICK: 60, Scale.FULL: 300}
# The device's blocks, as a share of what all that run need at most.
ROOM = {"with room": 1.1, "under pressure": 0.5}


@dataclass(slots=True)
class Stopwatch:
    """The scheduler's own milliseconds of each step, and of each part."""

    engine: SimulatedEngine
    plan_ms: list[float]
    record_ms: list[float]

    def step(self) -> None:
        scheduler = self.engine.scheduler
        begun = time.perf_counter()
        plan = scheduler.plan(self.engine.now_s)
        planned = time.perf_counter()
        works = [work_of(batch) for batch in plan.batches]
        times, seconds = self.engine.taken(plan, works)
        self.engine.now_s += seconds
        sampled = {chunk.request_id: 1 for chunk in plan.chunks if chunk.sampling is not None}
        recording = time.perf_counter()
        scheduler.measured(times)
        scheduler.record(sampled, self.engine.now_s)
        ended = time.perf_counter()
        self.plan_ms.append(1e3 * (planned - begun))
        self.record_ms.append(1e3 * (ended - recording))


def run(scale: Scale, console: Console) -> Outcome:
    """One row a mode and a pool; the collector of cycles is set as a worker sets it."""
    pauses = ShortPauses()
    pauses.begin()
    rows = []
    for room in ROOM:
        for mode in OffloadMode:
            rows.append(_row(room, mode, scale))
            console.print(f"{room}, {mode}: {rows[-1]['p50_ms']:.2f} ms a step")
    pauses.end()
    return Outcome(rows, verdicts(rows), SEED)


def verdicts(rows: list[Row]) -> list[Verdict]:
    return [
        Verdict(
            f"{row['mode']} {row['pool']}: a step is decided and recorded in {AIM_MS:.0f} ms "
            "(middle)",
            f"{float(row['p50_ms']):.2f} ms (p99 {float(row['p99_ms']):.2f}) with "
            f"{row['running']} running, {row['waiting']} waiting",
            float(row["p50_ms"]) <= AIM_MS,
        )
        for row in rows
    ]


def _row(room: str, mode: OffloadMode, scale: Scale) -> Row:
    engine = _filled(room, mode)
    load = engine.scheduler.load()
    watch = Stopwatch(engine, [], [])
    for _ in range(STEPS[scale]):
        watch.step()
    both = [p + r for p, r in zip(watch.plan_ms, watch.record_ms, strict=True)]
    return {
        "pool": room,
        "mode": mode.value,
        "running": load.num_running,
        "waiting": load.num_waiting,
        "plan_p50_ms": statistics.median(watch.plan_ms),
        "record_p50_ms": statistics.median(watch.record_ms),
        "p50_ms": statistics.median(both),
        "p99_ms": statistics.quantiles(both, n=100, method="inclusive")[98],
    }


def _filled(room: str, mode: OffloadMode) -> SimulatedEngine:
    """Steps until whoever can run does. The machine is one where the host is worth asking."""
    limits = IterationLimits(STEP_TOKENS, NUM_RUNNING, NUM_WAITING, 2**12)
    needed = NUM_RUNNING * blocks_for(PROMPT_TOKENS + ANSWER_TOKENS)
    pool = BlockPool(int(ROOM[room] * needed))
    costs = [stage_costs(H200, G5["g5.16xlarge"], LLAMA_3_8B) for _ in range(2)]
    offload = Offload(mode, host_share=1.0, costs=costs[0])
    scheduler = IterationScheduler(limits, no_cache(pool, host_blocks=needed), offload)
    engine = SimulatedEngine(scheduler, costs[1], mode)
    for request in _requests():
        engine.arrived(request)
    for _ in range(NUM_RUNNING * PROMPT_TOKENS // STEP_TOKENS + 20):
        engine.step()
    return engine


def _requests() -> list[Request]:
    random = Random(SEED)
    return [
        request_of(number, random.randint(PROMPT_TOKENS // 2, PROMPT_TOKENS), ANSWER_TOKENS)
        for number in range(NUM_RUNNING + NUM_WAITING)
    ]

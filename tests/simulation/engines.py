"""Simulated engines under memory pressure, small enough for a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from benchmarks.hardware import A10G, G5, LLAMA_3_8B, stage_costs
from benchmarks.offload_sim_clock import SimulatedEngine, Step
from benchmarks.offload_sim_load import Lengths, Load, request_of
from cluster.blocks.pool import BlockPool
from cluster.knowledge.cache import no_cache
from cluster.request import Request
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload, OffloadMode
from cluster.scheduling.stages import StageCosts

PROGRESS_STEPS = 32


@dataclass(frozen=True, slots=True)
class Size:
    device_blocks: int
    host_blocks: int
    step_tokens: int = 2048
    max_running: int = 128


def true_costs(host: str = "g5.16xlarge") -> StageCosts:
    return stage_costs(A10G, G5[host], LLAMA_3_8B)


def engine(
    mode: OffloadMode, size: Size, believed: StageCosts | None = None, host: str = "g5.16xlarge"
) -> SimulatedEngine:
    limits = IterationLimits(size.step_tokens, size.max_running, 4096, 4096)
    cache = no_cache(BlockPool(size.device_blocks), host_blocks=size.host_blocks)
    costs = believed or true_costs(host)
    offload = Offload(mode, PROGRESS_STEPS, 1.0, costs)
    return SimulatedEngine(IterationScheduler(limits, cache, offload), true_costs(host), mode)


def load(prompt: int, answer: int, count: int, seed: int = 0) -> list[Request]:
    lengths = Load(Lengths(prompt, answer), count, seed=seed).arrivals()
    return [arrival.request for arrival in lengths]


def one(prompt: int, answer: int, number: int = 0) -> Request:
    return request_of(number, prompt, answer)


def arrive(engine: SimulatedEngine, requests: list[Request]) -> SimulatedEngine:
    for request in requests:
        engine.arrived(request)
    return engine


def to_the_end(
    engine: SimulatedEngine, look: Callable[[Step], None] = lambda _: None, most_steps: int = 20_000
) -> None:
    """Every answer is as long as was asked, and nothing is held at the end."""
    while engine.scheduler.has_work:
        assert engine.num_steps < most_steps, "it does not come to an end"
        look(engine.step())
        engine.scheduler.check()
    for life in engine.lives.values():
        assert life.finished_s is not None
        assert life.num_tokens == life.max_tokens
    load_left = engine.scheduler.load()
    assert load_left.num_free_blocks == load_left.num_blocks
    host = engine.scheduler.cache.host.pool
    assert host.num_free == host.num_blocks


def rate(engine: SimulatedEngine, begin: int, end: int) -> float:
    """Tokens a second of the steps between the two."""
    begun_s, num_tokens = inf, 0
    while engine.num_steps < end:
        assert engine.scheduler.load().num_waiting, "the load is too short"
        step = engine.step()
        if engine.num_steps == begin:
            begun_s = engine.now_s
        num_tokens += step.num_tokens if engine.num_steps > begin else 0
    return num_tokens / (engine.now_s - begun_s)

"""How offloading is measured: the host's speed, the loads, what runs come to, and the verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from math import inf
from pathlib import Path

import pytest
import torch

from benchmarks.catalogue import Scale
from benchmarks.offload_cells import ALL, Case, cases
from benchmarks.offload_host import HeldBackPort
from benchmarks.offload_load import AZURE, Grid, Load, traces
from benchmarks.offload_numbers import Interval, num_cut, numbers
from benchmarks.offload_play import Life, Played, Seen
from benchmarks.offload_rig import GPU_ONLY, TWO_THREADS, UNCAPPED, Setup, Way, rig
from benchmarks.offload_verdicts import Results, verdicts
from benchmarks.result import CannotRun, Verdict
from cluster.attention.plan import Run
from cluster.attention.split import PartPlan, split_attention
from cluster.attention.state import State
from cluster.blocks.segment import Home, SegmentView
from cluster.clock import Clock
from cluster.engine.options import WeightFormat
from cluster.ids import BlockId, RequestId
from cluster.kernels import kernels_available
from cluster.scheduling.offload import OffloadMode
from cluster.scheduling.plan import PlanKind
from tests.tiny_model import tiny_config

NEO, ADAPTIVE = Way(OffloadMode.NEO, 1.0), Way(OffloadMode.ADAPTIVE, 1.0)


# The host's speed.


@dataclass
class TickingClock(Clock):
    """A tenth of a millisecond passes whenever it is looked at: nobody has to sleep."""

    at_s: float = 0.0

    def now_s(self) -> float:
        self.at_s += 1e-4
        return self.at_s


@dataclass
class Worker:
    """A port to somebody who takes so long for a layer, and answers at once."""

    layer_s: float
    busy_s: float = 0.0
    posted: list[int] = field(default_factory=list)

    def carries(self, plan: PartPlan, /) -> bool:
        return True

    def prepare(self, plan: PartPlan, /) -> Worker:
        return Worker(self.layer_s)

    def post(self, layer: int, q: torch.Tensor, /) -> None:
        self.posted.append(layer)

    def collect(self, layer: int, /) -> State:
        self.busy_s += self.layer_s
        return State(torch.zeros(1, 1, 1), torch.zeros(1, 1))

    def close(self) -> None: ...


def plan() -> PartPlan:
    own = SegmentView((BlockId(0),), 1, Home.DEVICE)
    there = SegmentView((BlockId(0),), 1, Home.HOST)
    return split_attention([Run(0, 1, (there, own))]).parts[Home.HOST]


def test_a_host_of_a_tenth_of_the_speed_answers_after_ten_times_as_long() -> None:
    clock = TickingClock()
    exchange = HeldBackPort(Worker(1e-3), 0.1, clock).prepare(plan())
    exchange.post(0, torch.zeros(1))
    begun_s = clock.at_s
    exchange.collect(0)
    assert 10e-3 <= clock.at_s - begun_s < 11e-3
    assert exchange.busy_s == pytest.approx(10e-3)


def test_what_is_collected_late_has_been_computed_meanwhile() -> None:
    clock = TickingClock()
    exchange = HeldBackPort(Worker(1e-3), 0.1, clock).prepare(plan())
    exchange.post(0, torch.zeros(1))
    clock.at_s += 8e-3
    begun_s = clock.at_s
    exchange.collect(0)
    assert 1.8e-3 <= clock.at_s - begun_s < 2.2e-3


def test_a_host_does_one_thing_after_the_other() -> None:
    clock = TickingClock()
    port = HeldBackPort(Worker(1e-3), 0.5, clock)
    first, second = port.prepare(plan()), port.prepare(plan())
    first.post(0, torch.zeros(1))
    second.post(0, torch.zeros(1))
    begun_s = clock.at_s
    first.collect(0)
    second.collect(0)
    assert 4e-3 <= clock.at_s - begun_s + 2e-4 < 4.5e-3


def test_a_host_of_full_speed_is_not_held_back() -> None:
    clock = TickingClock()
    exchange = HeldBackPort(Worker(0.0), 1.0, clock).prepare(plan())
    exchange.post(0, torch.zeros(1))
    exchange.collect(0)
    assert clock.at_s < 1e-3


# Loads.


def test_a_load_is_the_same_whenever_it_is_drawn() -> None:
    load = Load(Grid(100, 20), 30, 2.0)
    assert load.arrivals() == load.arrivals()
    assert load.arrivals() != replace(load, seed=1).arrivals()
    for arrival in load.arrivals():
        assert 75 <= arrival.request.num_prompt_tokens <= 125
        assert 15 <= arrival.request.sampling.max_tokens <= 25


def test_a_rate_stretches_the_time_between_requests_and_nothing_else() -> None:
    slow, fast = (Load(Grid(100, 20), 30, rate).arrivals() for rate in (1.0, 4.0))
    assert slow[-1].at_s == pytest.approx(30.0)
    assert [a.at_s for a in slow] == pytest.approx([4 * a.at_s for a in fast])
    assert [a.request for a in slow] == [a.request for a in fast]
    assert {a.at_s for a in Load(Grid(100, 20), 30, inf).arrivals()} == {0.0}


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / AZURE
    folder.mkdir()
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    lines += ["2023-11-16 18:17:03.9799600,2404,5", "2023-11-16 18:17:04.0319600,1590,4"]
    lines += ["2023-11-16 18:17:05.0319600,90000,8", "2023-11-16 18:17:09.9799600,3,49"]
    for name in ("code", "conv"):
        file = folder / f"AzureLLMInferenceTrace_{name}.csv"
        file.write_text("\n".join([*lines, lines[1]]) + "\n")
    monkeypatch.setenv("THOTH_DATA", str(tmp_path))
    return folder


def test_a_trace_keeps_its_bursts_and_has_a_quarter_of_the_tokens(azure: Path) -> None:
    code, _ = traces()
    first = min((load(code, seed) for seed in range(20)), key=lambda drawn: -drawn[0][0])
    # One that is too long even so is left out; whatever is there has a token.
    assert first == [(601, 1), (397, 1), (1, 12)]
    assert str(code) == "Azure code / 4"


def load(trace: object, seed: int) -> list[tuple[int, int]]:
    drawn = Load(trace, 3, 0.5, seed=seed)  # type: ignore[arg-type]
    requests = [arrival.request for arrival in drawn.arrivals()]
    return [(r.num_prompt_tokens, r.sampling.max_tokens) for r in requests]


def test_arrivals_of_a_trace_keep_their_rhythm(azure: Path) -> None:
    arrivals = Load(traces()[0], 3, 0.5).arrivals()
    assert arrivals[-1].at_s == pytest.approx(6.0)
    assert arrivals[1].at_s == pytest.approx(6.0 * 0.052 / 6.0)


def test_without_the_traces_they_are_skipped_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, azure: Path
) -> None:
    with_traces, left_out = cases(Scale.FULL)
    assert not left_out
    monkeypatch.delenv("THOTH_DATA")
    with pytest.raises(CannotRun, match="THOTH_DATA"):
        traces()
    without, left_out = cases(Scale.FULL)
    assert "THOTH_DATA" in left_out
    assert len(with_traces) == len(without) + 4


# What is measured.


def test_every_setup_is_built_once() -> None:
    for scale in Scale:
        setups = [setup for setup, _ in groupby(cases(scale)[0], key=lambda c: c.setup(24))]
        assert len(setups) == len(set(setups))


def test_a_case_has_all_ways_in_turn_but_no_pool_beyond_one_for_everything() -> None:
    capped, free = (Case(Grid(10, 10), cap, shares=(1.0,)) for cap in (1280, ALL))
    assert capped.ways == (GPU_ONLY, NEO, ADAPTIVE, UNCAPPED, TWO_THREADS)
    assert free.ways == (GPU_ONLY, NEO, ADAPTIVE)
    setup = capped.setup(2)
    assert setup.blocks(GPU_ONLY) == setup.blocks(TWO_THREADS) == 80
    assert setup.blocks(UNCAPPED) == free.setup(2).blocks(ADAPTIVE) == 132


# What runs come to.


def step(kind: PlanKind = PlanKind.GPU_ONLY, rows: int = 1) -> Seen:
    return Seen(kind, (((RequestId("a"),),), rows), 0.01, 0.02, 1, 2)


def played(seconds: float, *, ids: int = 7, steps: tuple[Seen, ...] = (step(),)) -> Played:
    """Two answers; the second came late and has one token."""
    first = Life(0.0, [0.5 * seconds, seconds], [ids, ids])
    return Played([first, Life(0.25 * seconds, [0.5 * seconds], [ids])], steps)


def test_an_interval_leaves_out_what_the_order_of_few_allows() -> None:
    assert [num_cut(count) for count in (1, 5, 6, 8, 9, 12, 20)] == [0, 0, 0, 0, 1, 2, 5]
    interval = Interval.of([5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 9.0, 7.0, 8.0])
    assert (interval.low, interval.middle, interval.high) == (2.0, 5.0, 8.0)
    with pytest.raises(ValueError, match="no observations"):
        Interval.of([])


def test_seconds_are_taken_from_each_arrival() -> None:
    found = numbers([played(2.0), played(4.0)])
    assert found["requests_per_s"] == pytest.approx((2 / 2.0 + 2 / 4.0) / 2)
    assert found["tokens_per_s"] == pytest.approx((3 / 2.0 + 3 / 4.0) / 2)
    assert found["ttft_ms"] == pytest.approx(1e3 * (1.0 + 0.5 + 2.0 + 1.0) / 4)
    assert found["request_p99_ms"] == pytest.approx(4e3)
    assert found["token_ms"] == pytest.approx(1e3 * (1.0 + 0.5 + 2.0 + 1.0) / 4)
    assert (found["gap_p50_ms"], found["gap_max_ms"]) == (1000.0, 2000.0)
    assert (found["gpu_only"], found["two_batch"], found["preempted"]) == (1.0, 0.0, 1.0)
    assert (found["predicted_ms"], found["measured_ms"]) == (10.0, 20.0)


def verdicts_of(case: Case, **ways: list[Played]) -> dict[str, Verdict]:
    rounds = {GPU_ONLY: ways["alone"], NEO: ways["neo"], ADAPTIVE: ways["adaptive"]}
    return {verdict.aim: verdict for verdict in verdicts(Results({case: rounds}))}


def about(found: dict[str, Verdict], words: str) -> Verdict:
    (aim,) = [aim for aim in found if words in aim]
    return found[aim]


def test_adaptive_is_ahead_only_where_all_of_the_interval_is() -> None:
    alone, neo = [played(2.0)] * 6, [played(1.5)] * 6
    ahead = verdicts_of(Case(Grid(9, 9)), alone=alone, neo=neo, adaptive=[played(1.0)] * 6)
    assert about(ahead, "ahead of neo").met
    assert about(ahead, "nowhere behind").met
    late = [*[played(1.0)] * 5, played(1.6)]
    behind = verdicts_of(Case(Grid(9, 9)), alone=alone, neo=neo, adaptive=late)
    assert not about(behind, "ahead of neo").met
    assert "0 of 1; the worst 1.500 (0.938 to 1.500)" in about(behind, "ahead of neo").measured
    lost = verdicts_of(Case(Grid(9, 9)), alone=alone, neo=neo, adaptive=[played(2.1)] * 6)
    assert not about(lost, "nowhere behind").met


def test_at_a_rate_it_is_latency_that_tells_two_ways_apart() -> None:
    case, alone = Case(Grid(9, 9), rate=0.7), [played(2.0)]
    late = Life(0.0, [0.1, 2.0], [7, 7])
    slow = [replace(played(2.0), lives=[late, late])]
    found = verdicts_of(case, alone=alone, neo=slow, adaptive=alone)
    assert about(found, "ahead of neo").measured.startswith("1 of 1; the worst 1.333")
    found = verdicts_of(case, alone=alone, neo=alone, adaptive=slow)
    assert not about(found, "nowhere behind").met


def test_without_pressure_plans_are_compared_step_by_step() -> None:
    case, alone = Case(Grid(9, 9), ALL), [played(2.0)]
    same = verdicts_of(case, alone=alone, neo=alone, adaptive=[played(2.0)])
    assert about(same, "exactly gpu_only's").met
    assert not [aim for aim in same if "ahead of neo" in aim]
    for other in (step(rows=2), step(PlanKind.ONE_BATCH)):
        differing = [played(2.0, steps=(other,))]
        found = verdicts_of(case, alone=alone, neo=alone, adaptive=differing)
        assert not about(found, "exactly gpu_only's").met
    slow = verdicts_of(case, alone=alone, neo=alone, adaptive=[played(2.03)])
    assert not about(slow, "99% of gpu_only").met
    assert about(slow, "p99").met
    slower = verdicts_of(case, alone=alone, neo=alone, adaptive=[played(2.1)])
    assert not about(slower, "p99").met


def test_an_answer_of_other_tokens_is_told() -> None:
    alone, other = [played(1.0)], [played(1.0, ids=8)]
    same = verdicts_of(Case(Grid(9, 9)), alone=alone, neo=alone, adaptive=alone)
    assert about(same, "same tokens").met
    found = about(
        verdicts_of(Case(Grid(9, 9)), alone=alone, neo=other, adaptive=alone), "same tokens"
    )
    assert not found.met
    assert "not neo, 9 in, 9 out" in found.measured


# The whole of it.


@pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")
def test_a_crowd_is_answered_alike_with_a_slow_host_and_without(tmp_path: Path) -> None:
    slow = [Way(mode, 0.5) for mode in (OffloadMode.NEO, OffloadMode.ADAPTIVE)]
    ways = [GPU_ONLY, *slow, UNCAPPED]
    setup = Setup(WeightFormat.INT8, cap_tokens=160, most_tokens=1600)
    load = Load(Grid(48, 16), 10, vocab=512)
    try:
        with rig(tmp_path, tiny_config()) as machine, machine.engines(setup, ways):
            runs = {way: machine.play(way, load) for way in ways}
    except CannotRun as reason:
        pytest.skip(str(reason))
    assert len({run.ids for run in runs.values()}) == 1
    assert sum(step.num_host_rows for step in runs[slow[0]].steps) > 0
    assert not any(step.num_host_rows for step in runs[GPU_ONLY].steps)
    assert len(runs[UNCAPPED].steps) < len(runs[GPU_ONLY].steps)

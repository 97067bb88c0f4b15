"""Requests on the host, through whole lives on a clock of true costs: wrong profiles are corrected,
a host that slows down is noticed, and no size of any pool keeps a request from its answer."""

from __future__ import annotations

import pytest

from benchmarks.offload_sim_clock import Step, published_s
from cluster.blocks.pool import BLOCK_TOKENS
from cluster.scheduling.curves import Curve
from cluster.scheduling.offload import OffloadMode
from cluster.scheduling.plan import PlanKind
from cluster.scheduling.stages import StageTimes, Work
from tests.simulation.engines import (
    PROGRESS_STEPS,
    Size,
    arrive,
    engine,
    load,
    one,
    rate,
    to_the_end,
    true_costs,
)

GPU_ONLY, NEO, ADAPTIVE = OffloadMode
OFFLOADING = pytest.mark.parametrize("mode", [NEO, ADAPTIVE])
# A fifth of what runs fits the device.
PRESSED = Size(device_blocks=100, host_blocks=1500, max_running=32)


def test_two_stages_last_as_long_as_the_longer_part_of_each() -> None:
    first, second = StageTimes(3.0, 2.0, 4.0), StageTimes(1.0, 0.0, 5.0)
    assert published_s((first, second)) == 5.0 + 4.0
    assert published_s((first,)) == 3.0 + 4.0
    assert published_s((StageTimes(3.0, 2.0),)) == 5.0


@pytest.mark.parametrize("mode", [GPU_ONLY, NEO, ADAPTIVE])
def test_what_a_plan_predicts_is_what_its_chunks_need(mode: OffloadMode) -> None:
    run = arrive(engine(mode, PRESSED), load(200, 40, 100))
    for _ in range(100):
        step = run.step()
        assert step.plan.why.works == step.works
        first, second = (*step.works, Work(), Work())[:2]
        predicted = true_costs().step_seconds(first, second)
        assert step.plan.why.seconds == pytest.approx(predicted)


def test_adaptive_is_gpu_only_where_there_is_room() -> None:
    roomy = Size(device_blocks=1000, host_blocks=2000, max_running=48)
    rates = {
        mode: rate(arrive(engine(mode, roomy), load(200, 40, 400)), 20, 200)
        for mode in (GPU_ONLY, ADAPTIVE)
    }
    assert rates[ADAPTIVE] >= 0.99 * rates[GPU_ONLY]


def test_under_pressure_a_quick_host_is_worth_something() -> None:
    rates = {
        mode: rate(arrive(engine(mode, PRESSED), load(200, 40, 400)), 50, 250)
        for mode in OffloadMode
    }
    assert rates[NEO] > 1.1 * rates[GPU_ONLY]
    assert rates[ADAPTIVE] >= 0.99 * rates[NEO]


@pytest.mark.parametrize("host", ["g5.2xlarge", "g5.16xlarge"])
@pytest.mark.parametrize("factor", [4.0, 0.25])
@pytest.mark.parametrize("part", ["host", "linear"])
def test_a_wrong_profile_costs_little_after_fifty_steps(
    part: str, factor: float, host: str
) -> None:
    wrong = true_costs(host)
    curve: Curve = getattr(wrong, part)
    curve.scale *= factor
    right, corrected = (
        rate(arrive(engine(ADAPTIVE, PRESSED, believed, host), load(200, 40, 300)), 50, 200)
        for believed in (None, wrong)
    )
    assert corrected >= 0.95 * right


def test_a_host_that_becomes_slower_is_noticed_within_twenty_steps() -> None:
    believed = true_costs()
    run = arrive(engine(ADAPTIVE, PRESSED, believed), load(200, 40, 500))
    kinds = {run.step().plan.why.kind for _ in range(120)}
    assert kinds - {PlanKind.GPU_ONLY}, "the host is in use before"
    run.truth.host.scale *= 4
    last = [run.step() for _ in range(20)][-1]
    keys = 10_000
    assert believed.host.at(keys) == pytest.approx(run.truth.host.at(keys), rel=0.5)
    assert last.plan.why.seconds == pytest.approx(last.seconds, rel=0.5)


def test_a_host_that_became_quicker_while_nobody_was_there_is_noticed() -> None:
    believed = true_costs()
    believed.host.scale *= 1000
    run = arrive(engine(ADAPTIVE, PRESSED, believed), load(200, 40, 500))
    kinds = [run.step().plan.why.kind for _ in range(300)]
    assert set(kinds[:8]) == {PlanKind.GPU_ONLY}
    assert set(kinds) - {PlanKind.GPU_ONLY}
    assert believed.host.at(10_000) == pytest.approx(run.truth.host.at(10_000), rel=0.1)


@OFFLOADING
@pytest.mark.parametrize(
    "size",
    [
        Size(device_blocks=4, host_blocks=64, step_tokens=16, max_running=4),
        Size(device_blocks=16, host_blocks=16, step_tokens=32, max_running=8),
        Size(device_blocks=32, host_blocks=8, step_tokens=32, max_running=8),
        Size(device_blocks=32, host_blocks=0, step_tokens=64, max_running=8),
        Size(device_blocks=8, host_blocks=256, step_tokens=64, max_running=16),
        Size(device_blocks=6, host_blocks=7, step_tokens=5, max_running=3),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tiny_pools_come_to_an_end(mode: OffloadMode, size: Size, seed: int) -> None:
    most = (size.device_blocks - 1) * BLOCK_TOKENS
    prompt = min(90, most // 2)
    answer = min(40, (most - round(1.1 * prompt)) * 10 // 11)
    to_the_end(arrive(engine(mode, size), load(prompt, answer, 40, seed)))


@OFFLOADING
def test_a_prompt_longer_than_a_step_and_than_the_device_is_answered(mode: OffloadMode) -> None:
    size = Size(device_blocks=8, host_blocks=128, step_tokens=64, max_running=8)
    requests = [one(600, 10, 0), *(one(40, 20, n) for n in range(1, 10))]
    to_the_end(arrive(engine(mode, size), requests))


@OFFLOADING
def test_an_answer_outgrows_the_device(mode: OffloadMode) -> None:
    size = Size(device_blocks=8, host_blocks=128, step_tokens=64, max_running=8)
    requests = [one(100, 300, 0), *(one(40, 20, n) for n in range(1, 10))]
    to_the_end(arrive(engine(mode, size), requests))


@OFFLOADING
@pytest.mark.parametrize("max_running", [1, 2])
def test_more_come_than_may_run(mode: OffloadMode, max_running: int) -> None:
    size = Size(device_blocks=12, host_blocks=64, step_tokens=32, max_running=max_running)
    to_the_end(arrive(engine(mode, size), load(60, 20, 30)))


@OFFLOADING
@pytest.mark.parametrize("host", ["g5.2xlarge", "g5.16xlarge"])
def test_nobody_waits_longer_for_a_token_than_was_promised(mode: OffloadMode, host: str) -> None:
    run = arrive(engine(mode, PRESSED, host=host), load(200, 40, 80))
    to_the_end(run)
    assert max(life.longest_gap_steps for life in run.lives.values()) <= PROGRESS_STEPS


@pytest.mark.parametrize("answer", [100, 200])
def test_nobody_is_preempted_who_can_lie_on_a_slow_host(answer: int) -> None:
    """A host that is too slow to be worth its rows is quicker than to compute all anew."""
    size = Size(device_blocks=700, host_blocks=4000, max_running=24)
    run = arrive(engine(ADAPTIVE, size, host="g5.2xlarge"), load(1000, answer, 40))
    to_the_end(run, none_preempted)
    assert max(life.longest_gap_steps for life in run.lives.values()) <= PROGRESS_STEPS


def none_preempted(step: Step) -> None:
    assert not step.plan.preempted


@pytest.mark.parametrize("host", ["g5.2xlarge", "g5.16xlarge"])
@pytest.mark.parametrize(("prompt", "answer"), [(200, 150), (100, 300)])
def test_where_the_device_is_full_adaptive_is_ahead_of_both(
    prompt: int, answer: int, host: str
) -> None:
    seconds = {}
    for mode in OffloadMode:
        run = arrive(engine(mode, PRESSED, host=host), load(prompt, answer, 100))
        while run.scheduler.has_work:
            run.step()
        seconds[mode] = run.now_s
    assert seconds[ADAPTIVE] < min(seconds[NEO], seconds[GPU_ONLY])


def test_prompts_are_spread_over_steps_while_others_wait() -> None:
    size = Size(device_blocks=3000, host_blocks=0)
    without = {}
    for mode in (GPU_ONLY, ADAPTIVE):
        run = arrive(engine(mode, size), load(1000, 100, 200))
        late = [run.step() for _ in range(250)][50:]
        without[mode] = sum(max(len(c.token_ids) for c in s.plan.chunks) == 1 for s in late)
    assert without[ADAPTIVE] < 0.8 * without[GPU_ONLY]


def test_costs_that_are_wrong_by_four_are_two_values() -> None:
    """What the tests above multiply is not shared between engines."""
    one_of, other = true_costs(), true_costs()
    one_of.host.scale *= 4
    assert other.host.at(100) * 4 == pytest.approx(one_of.host.at(100))

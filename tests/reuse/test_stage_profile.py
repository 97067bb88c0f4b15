"""What a step's parts cost: measured on a forward pass, by stages or whole, and remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cluster.clock import ManualClock
from cluster.engine.bench import Bench
from cluster.engine.forward import Computed
from cluster.engine.stage_profile import DeviceCosts, device_costs
from cluster.engine.step import Step
from cluster.scheduling.curves import Curve, Trend, line
from cluster.scheduling.stages import HostCosts, StageCosts, StageTimes, Work, keys_of

ROW_S, KEY_S, EXCHANGE_S, STEP_S, DRAWN_S = 1.0, 1e-3, 0.25, 2.0, 0.125
NOBODY = HostCosts(Curve((16,), [3.0]), 0.5, is_beside=True)


@dataclass
class Staged:
    """A forward pass whose rows take a second, and every key of each a thousandth."""

    clock: ManualClock
    is_seen: bool = True
    num_steps: int = field(default=0)

    def logits(self, step: Step, /) -> Tensor:
        return self.compute([step]).logits

    def compute(self, steps: Sequence[Step], /) -> Computed:
        (step,) = steps
        self.num_steps += 1
        linear_s = ROW_S * len(step.token_ids)
        attention_s = KEY_S * int((step.positions + 1).sum())
        num_beside = 0 if step.attention.fold is None else len(step.attention.fold.rows)
        exchange_s = EXCHANGE_S * (1 + num_beside) if num_beside else 0.0
        rest_s = STEP_S + DRAWN_S * len(step.draws)
        self.clock.advance(linear_s + attention_s + exchange_s + rest_s)
        seen = StageTimes(linear_s, attention_s, exchange_s=exchange_s)
        times = (seen,) if self.is_seen else ()
        return Computed(torch.zeros(1, 1), times)


def profile(staged: Staged, folder: Path | None = None) -> DeviceCosts:
    bench = Bench(staged, 512, 4096, 256, staged.clock)
    return device_costs(bench, folder, "this")


def test_each_stage_has_its_own_seconds() -> None:
    costs = profile(Staged(ManualClock()))
    for rows in (1, 16, 100, 1000):
        assert costs.linear.at(rows) == pytest.approx(ROW_S * rows)
    for prompt in ((0, 16), (0, 128), (2048, 128)):
        assert costs.prefill.at(keys_of(*prompt)) == pytest.approx(KEY_S * keys_of(*prompt))
    for alpha, count in ((16, 1), (512, 8), (2048, 8)):
        keys = count * (alpha + 1)
        assert costs.decode.at(keys) == pytest.approx(KEY_S * keys)
    for drawn in (1, 16, 100):
        assert costs.rest.at(drawn) == pytest.approx(STEP_S + DRAWN_S * drawn)
    for exchanged in (1, 8, 64):
        assert costs.exchange.at(exchanged) == pytest.approx(EXCHANGE_S * (1 + exchanged))


def test_where_the_whole_alone_is_seen_attention_is_what_a_step_takes_longer() -> None:
    costs = profile(Staged(ManualClock(), is_seen=False))
    alone_s = STEP_S + DRAWN_S + ROW_S * 128 + KEY_S * keys_of(0, 128)
    assert costs.linear.at(128) == pytest.approx(alone_s)
    assert costs.prefill.at(keys_of(2048, 128)) == pytest.approx(KEY_S * 2048 * 128)
    # A row beside 16 tokens of the host, against a row alone.
    assert costs.exchange.at(1) == pytest.approx(2 * EXCHANGE_S + 16 * KEY_S)
    assert costs.rest.at(100) == 0.0


def test_a_small_pool_and_a_short_context_bound_what_is_tried() -> None:
    staged = Staged(ManualClock())
    costs = device_costs(Bench(staged, 2, 40, 256, staged.clock), None, "this")
    assert costs.linear.points == (1, 4, 16, 32)
    assert max(costs.prefill.points) == keys_of(8, 32)


def test_it_is_measured_once(tmp_path: Path) -> None:
    staged = Staged(ManualClock())
    first = profile(staged, tmp_path)
    num_steps = staged.num_steps
    assert profile(staged, tmp_path) == first
    assert staged.num_steps == num_steps
    (note,) = tmp_path.iterdir()
    note.write_text('{"linear": {"points": [2, 1], "seconds": [1, 1]}}')
    assert profile(staged, tmp_path).linear == first.linear
    assert staged.num_steps == 2 * num_steps


def test_the_host_s_part_is_of_whoever_attends_there() -> None:
    costs = profile(Staged(ManualClock())).with_host(NOBODY)
    assert costs.host_s(2, 16) == pytest.approx(4.0)
    faster = HostCosts(Curve((16,), [1.0]), 0.0, is_beside=False)
    costs.attended_by(faster)
    assert (costs.host_s(2, 16), costs.is_beside) == (1.0, False)
    costs.host.observed(16, 2.0)
    learnt_s = costs.host_s(1, 16)
    costs.attended_by(NOBODY)
    assert costs.host_s(2, 16) == pytest.approx(4.0)
    costs.attended_by(faster)
    assert costs.host_s(1, 16) == learnt_s > 1.0


def test_what_was_measured_wrong_at_start_comes_right() -> None:
    """The exchange ten times too dear, and nothing known of what follows the layers."""
    alone, beside = Work(8, 0, 800, drawn=8), Work(4, 0, 0, 4, 400, drawn=4)
    curves = line(1e-3), line(1e-6), line(1e-5), line(1e-6)
    true = StageCosts(*curves, exchange=line(1e-4, 1e-4), rest=Trend(2e-3, 1e-4))
    costs = StageCosts(*curves, exchange=line(1e-3, 1e-3))
    for i in range(100):
        first = replace(alone, drawn=8 - i % 4)
        rest_s = true.rest.at(first.drawn + beside.drawn)
        costs.observed((first, beside), (true.times(first), true.times(beside)), rest_s)
    assert costs.step_seconds(alone, beside) == pytest.approx(
        true.step_seconds(alone, beside), rel=0.02
    )
    assert costs.exchange.at(4) == pytest.approx(5e-4, rel=0.02)
    assert costs.rest.at(20) == pytest.approx(4e-3, rel=0.05)


def test_a_disturbed_measurement_does_not_lift_those_of_more() -> None:
    """Whatever disturbs one forward pass, more rows do not become cheaper than few."""

    @dataclass
    class Disturbed(Staged):
        def compute(self, steps: Sequence[Step], /) -> Computed:
            computed = super().compute(steps)
            is_few = len(steps[0].token_ids) == 4
            times = tuple(replace(t, linear_s=t.linear_s + 90.0 * is_few) for t in computed.times)
            return replace(computed, times=times)

    costs = profile(Disturbed(ManualClock()))
    assert costs.linear.at(4) == pytest.approx(16 * ROW_S)
    assert costs.linear.at(16) == pytest.approx(16 * ROW_S)

"""What a worker remembers of the steps of a real engine, and how it is asked."""

from __future__ import annotations

import math

import pytest

from actors.worker_steps import WorkerSteps, record_of
from cluster.clock import MonotonicClock
from cluster.engine.engine import Engine, StepReport
from cluster.errors import InvalidArgument
from cluster.ids import RequestId
from cluster.models.config import decoder_config
from cluster.request import Request, Sampling
from cluster.scheduling.limits import IterationLimits
from cluster.telemetry.steps import StepRecord
from protos.thoth.v1 import worker_pb2
from tests.engines import TORCH
from tests.tiny_model import tiny_config

CONFIG = decoder_config(tiny_config())


def engine() -> Engine:
    limits = IterationLimits(step_tokens=16, max_running=4, max_waiting=4, context_tokens=128)
    return TORCH.engine(CONFIG, limits, num_blocks=32, clock=MonotonicClock())


def run(engine: Engine, *names: str) -> list[StepReport]:
    for name in names:
        segments = (tuple(range(1, 9)),)
        engine.submit(Request(RequestId(name), segments, Sampling(max_tokens=3), math.inf))
    reports = []
    while engine.has_work:
        reports.append(engine.step())
    return reports


def asked(steps: WorkerSteps, now_s: float, **said: str | float) -> tuple[StepRecord, ...]:
    request = worker_pb2.DescribeStepsRequest(**said)  # type: ignore[arg-type]
    return steps.asked(request, now_s)


def test_a_record_says_of_a_step_what_its_report_does() -> None:
    reports = run(engine(), "a", "b")
    for report in reports:
        record = record_of(report, 3)
        assert record.seconds == report.seconds
        assert record.ended_s == pytest.approx(report.begun_s - report.decide_s + report.seconds)
        assert tuple(batch.measured for batch in record.batches) == report.times
        took = sum(b.measured.linear_s + b.measured.device_s for b in record.batches if b.measured)
        assert took > 0.0
        assert record.decide_s > 0.0
        assert record.draw_s > 0.0
        assert took + record.decide_s + record.draw_s < record.seconds
    first, *_, last = (record_of(report, 1) for report in reports)
    assert first.first_tokens == first.batches[0].request_ids == ("a", "b")
    assert first.batches[0].work.rows == 16
    assert last.finished == ("a", "b")


def test_steps_are_counted_and_told_by_request_and_by_time() -> None:
    served, steps = engine(), WorkerSteps()
    for name in ("a", "b"):
        for report in run(served, name):
            steps.stepped(report)
    now_s = served.clock.now_s()
    assert [step.number for step in asked(steps, now_s)] == [1, 2, 3, 4, 5, 6]
    assert [step.number for step in asked(steps, now_s, request_id="b")] == [4, 5, 6]
    assert asked(steps, now_s, request_id="c") == ()
    assert asked(steps, now_s + 10.0, seconds=9.0) == ()
    for seconds in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidArgument, match="seconds is"):
            asked(steps, now_s, seconds=seconds)


def test_a_step_that_computed_nothing_is_remembered_too() -> None:
    record = record_of(StepReport(seconds=0.5, begun_s=2.0, decide_s=0.25), 1)
    assert (record.started_s, record.ended_s, record.batches) == (1.75, 2.25, ())

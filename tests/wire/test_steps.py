"""A worker's steps are the same on the other side, and its requests are named once."""

from __future__ import annotations

from hypothesis import given

from cluster.ids import RequestId
from cluster.scheduling.stages import StageTimes, Work
from cluster.telemetry.steps import StepRecord, SubBatch
from cluster.wire.steps import steps_from_pb, steps_to_pb
from protos.thoth.v1 import worker_pb2
from tests.telemetry.recorded import histories


def sent(steps: tuple[StepRecord, ...], now_s: float) -> worker_pb2.DescribeStepsResponse:
    message = steps_to_pb(steps, now_s).SerializeToString()
    return worker_pb2.DescribeStepsResponse.FromString(message)


@given(histories())
def test_steps_are_the_same_on_the_other_side(steps: tuple[StepRecord, ...]) -> None:
    answer = sent(steps, 12.5)
    assert steps_from_pb(answer) == steps
    assert answer.now_s == 12.5
    assert len(set(answer.request_ids)) == len(answer.request_ids)


def test_as_many_steps_as_are_remembered_fit_into_one_message() -> None:
    ids = tuple(RequestId(f"req-{n:024x}") for n in range(256))
    batch = SubBatch(
        ids[:128], Work(128, 1, 2**30, 128, 2**30, 128, 128), StageTimes(1, 1, 1, 1, 1)
    )
    step = StepRecord(1e6, 1.0, said="x" * 80, batches=(batch, batch), first_tokens=ids[:4])
    assert len(steps_to_pb((step,) * 1024, 1.0).SerializeToString()) * 8 < 8 * 2**20

"""What is remembered of the last steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.ids import RequestId
from cluster.scheduling.stages import StageTimes, Work
from cluster.telemetry.steps import RecentSteps, StepRecord, SubBatch, steps_of
from tests.telemetry.recorded import IDS, histories


def step(number: int, *request_ids: str) -> StepRecord:
    """A second long, and a second after the one before."""
    ids = tuple(map(RequestId, request_ids))
    batch = SubBatch(ids, Work(len(ids)), StageTimes())
    return StepRecord(2.0 * number, 1.0, batches=(batch,), number=number)


def numbers(steps: tuple[StepRecord, ...]) -> list[int]:
    return [each.number for each in steps]


def test_only_so_many_are_remembered() -> None:
    recent = RecentSteps(most=3)
    for number in range(9):
        recent.add(step(number))
    assert numbers(recent.last(None, 17.0)) == [6, 7, 8]


def test_what_is_too_old_is_forgotten_also_while_nothing_runs() -> None:
    recent = RecentSteps(oldest_s=5.0)
    for number in range(9):
        recent.add(step(number))
    assert numbers(recent.last(None, 17.0)) == [6, 7, 8]
    assert numbers(recent.last(None, 20.0)) == [7, 8]
    assert recent.last(None, 99.0) == ()


def test_of_the_last_seconds_are_the_steps_that_ended_in_them() -> None:
    recent = RecentSteps()
    for number in range(9):
        recent.add(step(number))
    assert numbers(recent.last(3.0, 18.0)) == [7, 8]
    assert recent.last(0.5, 18.0) == ()


def test_steps_in_which_a_request_had_no_rows_are_part_of_its_way() -> None:
    steps = (step(0, "a"), step(1, "a", "b"), step(2, "a"), step(3, "b"), step(4, "a"))
    assert numbers(steps_of(steps, RequestId("b"))) == [1, 2, 3]
    assert steps_of(steps, RequestId("c")) == ()


@given(histories(), IDS, st.integers(1, 4), st.floats(0.001, 9.0))
def test_what_comes_out_went_in_and_is_in_order(
    steps: tuple[StepRecord, ...], request_id: RequestId, most: int, seconds: float
) -> None:
    recent = RecentSteps(most=most, oldest_s=8.0)
    for each in steps:
        recent.add(each)
    now_s = steps[-1].ended_s if steps else 0.0
    last = recent.last(seconds, now_s)
    assert last == steps[len(steps) - len(last) :]
    assert len(last) <= most
    assert all(each.ended_s >= now_s - min(seconds, 8.0) for each in last)
    own = steps_of(last, request_id)
    assert sum(each.computes(request_id) for each in own) == sum(
        each.computes(request_id) for each in last
    )

"""Who gets which cores of a node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.numa import Core, CorePlan, format_ids, plan_cores


def cores(count: int) -> list[Core]:
    return [(cpu,) for cpu in range(count)]


def said(plan: CorePlan) -> tuple[str, str, str]:
    return format_ids(plan.rest), format_ids(plan.gpu_worker), format_ids(plan.attention)


@pytest.mark.parametrize(
    ("count", "rest", "gpu_worker", "attention"),
    [
        (1, "0", "0", "0"),
        (2, "0-1", "0", "1"),
        (3, "0", "1", "2"),
        (4, "0", "1", "2-3"),
        (8, "0", "1", "2-7"),
        (64, "0-7", "8", "9-63"),
    ],
)
def test_a_node_is_shared_as_the_table_says(
    count: int, rest: str, gpu_worker: str, attention: str
) -> None:
    assert said(plan_cores(cores(count), reserved=1)) == (rest, gpu_worker, attention)


@pytest.mark.parametrize(
    ("reserved", "rest", "gpu_worker", "attention"),
    [(0, "0", "", "1-7"), (3, "0", "1-3", "4-7"), (6, "0", "1-6", "7"), (99, "0", "1-6", "7")],
)
def test_the_gpu_worker_gets_what_is_reserved_while_the_others_keep_a_core(
    reserved: int, rest: str, gpu_worker: str, attention: str
) -> None:
    assert said(plan_cores(cores(8), reserved)) == (rest, gpu_worker, attention)


def test_hyperthreads_of_a_core_stay_together() -> None:
    paired = [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert said(plan_cores(paired, reserved=1)) == ("0,4", "1,5", "2-3,6-7")


@pytest.mark.parametrize(
    ("paired", "expected"),
    [([(0, 1)], ("0-1", "0", "1")), ([(0, 2), (1, 3)], ("0", "2", "1,3"))],
)
def test_of_one_or_two_cores_the_hyperthreads_are_given_away(
    paired: list[Core], expected: tuple[str, str, str]
) -> None:
    assert said(plan_cores(paired, reserved=1)) == expected


@given(st.integers(3, 300), st.integers(0, 400))
def test_more_than_two_cores_are_all_given_to_one_each(count: int, reserved: int) -> None:
    plan = plan_cores(cores(count), reserved)
    assert sorted([*plan.rest, *plan.gpu_worker, *plan.attention]) == list(range(count))
    assert plan.rest
    assert plan.attention
    assert len(plan.gpu_worker) <= reserved


@pytest.mark.parametrize(("count", "reserved"), [(0, 1), (4, -1)])
def test_what_cannot_be_shared_is_refused(count: int, reserved: int) -> None:
    with pytest.raises(ValueError, match="cannot be shared"):
        plan_cores(cores(count), reserved)

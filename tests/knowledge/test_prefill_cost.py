"""T(alpha, beta) against values worked out by hand."""

from __future__ import annotations

import pytest

from cluster.errors import InvalidArgument
from cluster.knowledge.prefill_cost import PrefillCost


@pytest.fixture
def cost() -> PrefillCost:
    return PrefillCost((0, 100), (10, 30), [[1.0, 2.0], [3.0, 8.0]])


@pytest.mark.parametrize(
    ("alpha", "beta", "seconds"),
    [
        (0, 10, 1.0),
        (0, 30, 2.0),
        (100, 10, 3.0),
        (100, 30, 8.0),
        (0, 20, 1.5),  # halfway along beta
        (50, 10, 2.0),  # halfway along alpha
        (50, 20, 3.5),  # the mean of all four
        (25, 15, 0.5625 * 1 + 0.1875 * 2 + 0.1875 * 3 + 0.0625 * 8),
        (900, 10, 3.0),  # clamped
        (900, 20, 5.5),
        (0, 1, 1.0),
        (50, 3, 2.0),
    ],
)
def test_a_chunk_is_bilinear_within_the_grid_and_clamped_outside(
    cost: PrefillCost, alpha: int, beta: int, seconds: float
) -> None:
    assert cost.chunk_s(alpha, beta) == pytest.approx(seconds)
    assert cost.prefill_s(alpha, beta) == pytest.approx(seconds)


def test_nothing_to_compute_costs_nothing(cost: PrefillCost) -> None:
    assert cost.prefill_s(50, 0) == 0.0


def test_a_long_prefill_is_the_sum_of_its_chunks(cost: PrefillCost) -> None:
    # Chunks of 30, 30 and 10 after 40, 70 and 100 tokens.
    by_hand = (0.6 * 2 + 0.4 * 8) + (0.3 * 2 + 0.7 * 8) + 3.0
    assert cost.prefill_s(40, 70) == pytest.approx(by_hand)


def test_a_measured_point_moves_by_a_tenth_of_its_error(cost: PrefillCost) -> None:
    cost.observed(0, 10, 2.0)
    assert cost.seconds == [[pytest.approx(1.1), 2.0], [3.0, 8.0]]
    cost.observed(0, 10, 0.55)
    assert cost.seconds[0][0] == pytest.approx(1.1 * 0.95)


def test_a_chunk_between_points_corrects_each_by_its_share(cost: PrefillCost) -> None:
    # 3.5 are foretold and twice as much is met: a quarter of a tenth for each of the four.
    cost.observed(50, 20, 7.0)
    expected = [[1.025, 2.05], [3.075, 8.2]]
    assert cost.seconds == [pytest.approx(row) for row in expected]


def test_a_chunk_that_met_something_else_moves_a_point_by_a_bounded_step(
    cost: PrefillCost,
) -> None:
    cost.observed(0, 10, 1000.0)
    assert cost.seconds[0][0] == pytest.approx(1.0 * (1 + 0.1 * 7))
    cost.observed(100, 30, 1e-9)
    assert cost.seconds[1][1] == pytest.approx(8.0 * (1 - 0.1 * 7 / 8))


@pytest.mark.parametrize(("alpha", "beta"), [(0, 9), (0, 31), (101, 10), (0, 0)])
def test_a_chunk_outside_the_grid_moves_no_point(cost: PrefillCost, alpha: int, beta: int) -> None:
    cost.observed(alpha, beta, 50.0)
    assert cost.seconds == [[1.0, 2.0], [3.0, 8.0]]


def test_a_machine_twice_as_slow_is_learnt(cost: PrefillCost) -> None:
    for _ in range(100):
        for alpha in (0, 30, 100):
            for beta in (10, 17, 30):
                cost.observed(
                    alpha,
                    beta,
                    2
                    * PrefillCost((0, 100), (10, 30), [[1.0, 2.0], [3.0, 8.0]]).chunk_s(
                        alpha, beta
                    ),
                )
    assert cost.seconds == [pytest.approx(row, rel=0.01) for row in ([2.0, 4.0], [6.0, 16.0])]


def test_no_time_at_all_changes_nothing(cost: PrefillCost) -> None:
    cost.observed(0, 10, 0.0)
    assert cost.seconds[0][0] == 1.0


@pytest.mark.parametrize(
    ("alphas", "betas", "seconds", "field"),
    [
        ((), (1,), [], "alphas"),
        ((0,), (), [[]], "betas"),
        ((0, 0), (1,), [[1.0], [1.0]], "alphas"),
        ((5, 0), (1,), [[1.0], [1.0]], "alphas"),
        ((-1,), (1,), [[1.0]], "alphas"),
        ((0,), (0,), [[1.0]], "betas"),
        ((0,), (1, 2), [[1.0]], "seconds"),
        ((0, 1), (1,), [[1.0]], "seconds"),
        ((0,), (1,), [[-1.0]], "seconds"),
    ],
)
def test_a_grid_that_is_none_is_refused(
    alphas: tuple[int, ...], betas: tuple[int, ...], seconds: list[list[float]], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        PrefillCost(alphas, betas, seconds)
    assert caught.value.field == field

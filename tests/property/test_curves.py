"""What a step costs is never less than nothing, however measurements were disturbed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduling.curves import Curve, Trend, measured_curve

QUANTITIES = st.integers(0, 2**24)
SECONDS = st.floats(0.0, 10.0)
MEASURED = st.dictionaries(st.integers(0, 2**20), st.floats(-1.0, 10.0), min_size=1, max_size=6)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Any: also such as fall."""
    seconds = draw(st.dictionaries(st.integers(0, 2**20), SECONDS, min_size=1, max_size=6))
    return Curve(tuple(sorted(seconds)), [seconds[point] for point in sorted(seconds)])


@given(curves(), st.lists(st.tuples(QUANTITIES, SECONDS), max_size=20), QUANTITIES)
def test_no_quantity_takes_less_than_no_time(
    curve: Curve, seen: list[tuple[int, float]], quantity: int
) -> None:
    for each, seconds in seen:
        curve.observed(each, seconds)
    assert curve.at(quantity) >= 0.0


def test_what_falls_is_level_beyond_its_last_point() -> None:
    curve = Curve((16, 128), [3.0, 1.0])
    assert [curve.at(quantity) for quantity in (16, 72, 128, 129, 2**20)] == [3, 2, 1, 1, 1]


@given(MEASURED, QUANTITIES, QUANTITIES)
def test_of_what_was_measured_more_never_takes_less(
    seconds: dict[int, float], one: int, other: int
) -> None:
    curve = measured_curve(seconds)
    few, many = sorted((one, other))
    assert curve.at(few) <= curve.at(many) * (1 + 1e-9)
    for quantity, took in seconds.items():
        assert curve.at(quantity) > 0.0 or not quantity
        assert curve.at(quantity) <= max(took, 1e-6) * (1 + 1e-9)


@given(st.lists(st.tuples(st.integers(0, 512), SECONDS), max_size=50), st.integers(0, 2**16))
def test_a_trend_never_takes_less_than_no_time_nor_less_for_more(
    seen: list[tuple[int, float]], quantity: int
) -> None:
    trend = Trend(1e-3, 1e-5)
    for each, seconds in seen:
        trend.observed(each, seconds)
    assert 0.0 <= trend.at(quantity) <= trend.at(quantity + 1)


@given(st.lists(st.integers(1, 64), min_size=200, max_size=200))
def test_a_trend_finds_a_line_through_what_varies(quantities: list[int]) -> None:
    if max(quantities) - min(quantities) < 8:
        quantities = [*range(1, 65), *quantities[64:]]
    trend = Trend()
    for quantity in quantities * 2:
        trend.observed(quantity, 2e-3 + 1e-4 * quantity)
    assert trend.at(quantities[-1]) == pytest.approx(2e-3 + 1e-4 * quantities[-1], rel=0.1)

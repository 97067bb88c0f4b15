"""What a step costs is never less than nothing, however measurements were disturbed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduling.curves import Curve, measured_curve

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

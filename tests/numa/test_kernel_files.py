"""Sets as Linux writes them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.numa.kernel_files import format_ids, parse_ids

NUMBERS = st.frozensets(st.integers(0, 99_999))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", set()),
        ("\n", set()),
        ("0\n", {0}),
        ("0-3,8,10-11\n", {0, 1, 2, 3, 8, 10, 11}),
        ("7-7", {7}),
    ],
)
def test_a_set_is_numbers_and_ranges(text: str, ids: set[int]) -> None:
    assert parse_ids(text) == ids


@given(NUMBERS)
def test_what_is_written_is_read_back(ids: frozenset[int]) -> None:
    assert parse_ids(format_ids(ids)) == ids


@given(st.frozensets(st.integers(0, 12)))
def test_neighbours_are_one_range(ids: frozenset[int]) -> None:
    starts = [number for number in ids if number - 1 not in ids]
    assert len([part for part in format_ids(ids).split(",") if part]) == len(starts)


@pytest.mark.parametrize(
    "torn", ["a", "3-1", "1,,2", "-1", "1-", "0-", "1 2", "0x1", "0-9999999999"]
)
def test_what_linux_would_not_write_is_refused(torn: str) -> None:
    with pytest.raises(ValueError, match=r"is neither a number nor a range|runs backwards"):
        parse_ids(torn)


@given(st.text(alphabet="0123456789,- \n\x00\ufffd", max_size=12))
def test_no_text_does_anything_else(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_ids(format_ids(parse_ids(text))) == parse_ids(text)

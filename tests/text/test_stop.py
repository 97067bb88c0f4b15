"""Stop strings, against a model that looks at the whole text after every character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidArgument
from cluster.text.stop import StopMatcher, StopResult

LETTERS = st.text("ab.", max_size=30)
STOPS = st.lists(st.text("ab.", min_size=1, max_size=4), max_size=4).map(tuple)


def cut_naively(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    for end in range(1, len(text) + 1):
        met = [len(s) for s in stop if text[:end].endswith(s)]
        if met:
            return text[: end - max(met)], True
    return text, False


@given(pieces=st.lists(LETTERS, max_size=8), stop=STOPS)
def test_pieces_are_cut_where_the_whole_text_would_be(
    pieces: list[str], stop: tuple[str, ...]
) -> None:
    matcher = StopMatcher(stop)
    results = [matcher.push(piece) for piece in pieces]
    released = "".join(result.text for result in results) + matcher.flush()
    stopped = any(result.stopped for result in results)
    assert (released, stopped) == cut_naively("".join(pieces), stop)


@given(pieces=st.lists(LETTERS, max_size=8), stop=STOPS)
def test_only_what_may_begin_a_stop_string_is_held_back(
    pieces: list[str], stop: tuple[str, ...]
) -> None:
    matcher, seen, released = StopMatcher(stop), "", ""
    for piece in pieces:
        result = matcher.push(piece)
        seen, released = seen + piece, released + result.text
        if result.stopped:
            return
        held = seen[len(released) :]
        assert not held or any(s.startswith(held) for s in stop)
        assert len(held) < max(map(len, stop), default=1)


def test_after_a_stop_string_everything_is_swallowed() -> None:
    matcher = StopMatcher(("END",))
    assert matcher.push("one E") == StopResult("one ", False)
    assert matcher.push("ND two") == StopResult("", True)
    assert matcher.push("three") == StopResult("", True)
    assert matcher.flush() == ""


def test_what_turned_out_to_be_no_stop_string_is_released() -> None:
    matcher = StopMatcher(("END",))
    assert matcher.push("EN") == StopResult("", False)
    assert matcher.push("D".lower()) == StopResult("ENd", False)
    assert matcher.push("E") == StopResult("", False)
    assert matcher.flush() == "E"


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        StopMatcher(("END", ""))
    assert caught.value.field == "stop"

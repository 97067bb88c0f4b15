"""What makes a list of events a Chrome trace that its viewers draw as it is meant."""

from __future__ import annotations

from collections import Counter
from typing import Any

PHASES = {"X", "M", "b", "e", "n"}


def complete(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == "X"]


def check_trace(events: list[dict[str, Any]]) -> None:
    """Fields, signs, nesting on every lane, and pairs of asynchronous ends."""
    for event in events:
        assert event["ph"] in PHASES
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["name"]
        assert event["ts"] >= 0.0
        assert event["ph"] != "X" or event["dur"] >= 0.0
    lanes = {(event["pid"], event["tid"]) for event in events}
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert lanes == named
    for lane in lanes:
        _check_nesting([e for e in complete(events) if (e["pid"], e["tid"]) == lane])
    _check_pairs([event for event in events if event["ph"] in {"b", "e", "n"}])


def _check_nesting(events: list[dict[str, Any]]) -> None:
    """A slice lies inside the one before it, or begins where that has ended. In nanoseconds."""
    open_until: list[int] = []
    for event in events:
        start = round(event["ts"] * 1e3)
        end = start + round(event["dur"] * 1e3)
        while open_until and open_until[-1] <= start:
            open_until.pop()
        assert not open_until or end <= open_until[-1], event
        open_until.append(end)


def _check_pairs(events: list[dict[str, Any]]) -> None:
    """Every begin has an end, not before it, under the same id, category and name."""
    depth = Counter[tuple[str, str, str]]()
    for event in events:
        assert event["cat"] == "request"
        key = (event["cat"], event["id"], event["name"])
        depth[key] += {"b": 1, "e": -1, "n": 0}[event["ph"]]
        assert depth[key] >= 0
    assert not +depth

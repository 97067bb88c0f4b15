"""Stop strings in text that arrives in pieces.

The answer ends before the stop string that is complete first; of those that are complete at the
same character, before the longest. An end of the text with which a stop string begins is held back,
so the pieces may be cut anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class StopResult:
    """Text that may be shown now, and whether a stop string was met right after it."""

    text: str
    stopped: bool


class StopMatcher:
    """Raises InvalidArgument for an empty stop string."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        if "" in stop:
            raise InvalidArgument(
                "a stop string is empty", field="stop", limit="stop strings of at least 1 character"
            )
        self._stop = stop
        self._held = ""
        self._stopped = False

    def push(self, text: str) -> StopResult:
        """Takes the next piece. After a stop string was met, everything is swallowed."""
        if self._stopped:
            return StopResult("", True)
        seen = self._held + text
        start = self._first_match(seen)
        if start is not None:
            self._held, self._stopped = "", True
            return StopResult(seen[:start], True)
        cut = len(seen) - self._num_undecided(seen)
        self._held = seen[cut:]
        return StopResult(seen[:cut], False)

    def flush(self) -> str:
        """The text held back, when no more will come."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, text: str) -> int | None:
        """Where the stop string starts that ends first; the earliest of several."""
        ends = [(at + len(s), at) for s in self._stop if (at := text.find(s)) >= 0]
        return min(ends)[1] if ends else None

    def _num_undecided(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        longest = min(len(text), max((len(s) - 1 for s in self._stop), default=0))
        return next((n for n in range(longest, 0, -1) if self._begins(text[-n:])), 0)

    def _begins(self, end: str) -> bool:
        return any(s.startswith(end) for s in self._stop)

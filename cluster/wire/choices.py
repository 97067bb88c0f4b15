"""The pieces of a stream, put together to whole answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.request import FinishReason
from cluster.wire.answers import Choice, ChoiceFinished, Delta, Finished, StreamEvent, TokenLogprob


@dataclass(slots=True)
class _Part:
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None


class Choices:
    """Takes the events of one stream in their order; has all of it after the last."""

    def __init__(self) -> None:
        self._parts: dict[int, _Part] = {0: _Part()}

    @property
    def num_pieces(self) -> int:
        return sum(len(part.pieces) for part in self._parts.values())

    def add(self, event: StreamEvent) -> None:
        match event:
            case Delta():
                part = self._part(event.choice)
                part.pieces.append(event.text)
                part.logprobs.extend(event.logprobs)
            case ChoiceFinished():
                self._part(event.choice).finish_reason = event.finish_reason
            case Finished():
                # A single choice has no end of its own.
                self._part(0).finish_reason = event.finish_reason

    def whole(self) -> tuple[Choice, ...]:
        """In order of their index; those that did not end are not there."""
        return tuple(
            Choice(index, "".join(part.pieces), part.finish_reason, tuple(part.logprobs))
            for index, part in sorted(self._parts.items())
            if part.finish_reason is not None
        )

    def _part(self, index: int) -> _Part:
        return self._parts.setdefault(index, _Part())

"""What can go wrong, as one tree::

ProverError
├── SourceError    a problem file cannot be read: file, line, column, construct
├── Inadmissible   a definition does not define: named, with the reason
├── Rejected       a certificate does not prove what it says: the path to the step, the reason
├── SortClash      a term would not be well-sorted
├── OutOfFuel      an evaluation took more steps or seconds than it was given
├── Undecided      an evaluation met what has no value: a comparison of functions
├── Unusable       a problem, or a store of lemmas, that cannot be used: its message
└── Failed         a search that another process could not end: what it died of
"""

from __future__ import annotations

from dataclasses import dataclass


class ProverError(Exception):
    """The root: every message is for a person."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a construct begins: lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class SourceError(ProverError):
    """A problem file cannot be read. `construct` names the smallest part that is to blame."""

    def __init__(self, message: str, place: Place, construct: str = "") -> None:
        self.message, self.place, self.construct = message, place, construct
        super().__init__(f"{place}: {construct + ': ' if construct else ''}{message}")


class Inadmissible(ProverError):
    """A function or data type that must not be reasoned about; `name` is its name."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


class Rejected(ProverError):
    """A certificate that proves nothing; `path` leads to the step that fails."""

    def __init__(self, reason: str, path: str = "") -> None:
        self.reason, self.path = reason, path
        super().__init__(f"{path}: {reason}" if path else reason)


class SortClash(ProverError):
    """A term would not be well-sorted."""


class OutOfFuel(ProverError):
    """An evaluation took more steps or seconds than it was given."""


class Undecided(ProverError):
    """Functions were compared, and evaluation cannot tell whether they are equal."""


class Unusable(ProverError):
    """A problem that another process could not use, with the message of the error it met; or a
    store of lemmas that cannot be read or written."""


class Failed(ProverError):
    """A search that came to no verdict because something is wrong with the prover itself."""

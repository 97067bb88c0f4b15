"""What is asked of a branch and what comes of it, and who finds lemmas for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from prover.program import Equality
from prover.rewriting.steps import Proof
from prover.search.branch import Branch
from prover.search.conjecture import Conjecture
from prover.search.hypotheses import Case
from prover.terms import Term, Variable


@dataclass(frozen=True, slots=True)
class Refine:
    """The case must say which constructor this variable has, and be proved again."""

    variable: Variable


@dataclass(frozen=True, slots=True)
class Stuck:
    """Nothing was found for this goal."""

    goal: Equality


@dataclass(frozen=True, slots=True)
class Found:
    """A proved lemma of which a goal is an instance, perhaps with its sides exchanged."""

    name: str
    statement: Conjecture
    by: Mapping[Variable, Term]
    backward: bool
    kind: Literal["lemma", "ih"] = "lemma"  # a member of the group that is being proved


Outcome = Proof | Refine | Stuck
Find = Callable[[Sequence[Conjecture], int], Found | None]

Learn = Callable[[Sequence[Term], Case, int], bool]
Join = Callable[[Branch, Case], Found | None]
Fit = Callable[[Branch, Case, int], Iterator[Branch]]


@dataclass(frozen=True, slots=True)
class Task:
    """Where a branch stands in the proof of a lemma: its case, and how many lemmas deep it may go.

    `refinable` variables are those of the case's patterns. Without a case there is no induction,
    and `itself` is the conjecture that no lemma may be made of. Where others are proved together
    with it, `join` says which of them a goal is.
    """

    depth: int
    case: Case | None = None
    refinable: Mapping[Variable, None] | None = None
    itself: Conjecture | None = None
    tried: tuple[str, ...] = ()
    join: Join | None = None

    def having_tried(self, what: str) -> Task:
        return replace(self, tried=(*self.tried, what))

    @property
    def is_rewritten(self) -> bool:
        """Whether the goal is no longer what the statement says of the case."""
        return any(way in self.tried for way in ("rules", "outward", "facts"))

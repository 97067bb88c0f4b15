"""Stronger conjectures, which induction often needs.

Common subterms become variables, and the occurrences of one variable become two. Every one that is
given survived the tests; none of them need be true.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from prover.positions import Position, places, replace_at
from prover.program import Equality
from prover.search.conjecture import Conjecture, Names, names_of
from prover.search.splitting import is_call
from prover.search.trial import Trial
from prover.terms import Apply, Term, Variable, rebuild

_MOST_OCCURRENCES = 6


class Generaliser:
    """Of one program's conjectures."""

    def __init__(self, names: Names, trial: Trial) -> None:
        self.names, self.trial = names, trial

    def stronger(self, conjecture: Conjecture) -> Iterator[Conjecture]:
        """What the conjecture is an instance of, the most general first."""
        general = self.without_common_calls(conjecture)
        yield from self.apart(general)
        if general is not conjecture:
            yield general

    def without_common_calls(self, conjecture: Conjecture) -> Conjecture:
        """Calls that occur twice become variables, the largest first, while tests allow it."""
        refused: dict[Term, None] = {}
        while True:
            term = next((t for t in _common_calls(conjecture) if t not in refused), None)
            if term is None:
                return conjecture
            general = self._without(conjecture, term)
            if self.trial.may_hold(general):
                conjecture = general
            else:
                refused[term] = None

    def _without(self, conjecture: Conjecture, term: Term) -> Conjecture:
        taken = names_of(conjecture.variables())
        return replaced(conjecture, term, self.names.fresh(term.sort, taken))

    def apart(self, conjecture: Conjecture) -> Iterator[Conjecture]:
        """One variable becomes two: in all ways that keep it on both sides."""
        if conjecture.conditions:
            return
        for variable in conjecture.variables():
            left = places(conjecture.left, variable)
            right = places(conjecture.right, variable)
            if min(len(left), len(right)) == 0 or len(left) + len(right) > _MOST_OCCURRENCES:
                continue
            if max(len(left), len(right)) < 2:
                continue
            new = self.names.fresh(variable.sort, names_of(conjecture.variables()))
            for some in _parts(left):
                for others in _parts(right):
                    general = Conjecture(
                        _renamed(conjecture.left, some, new),
                        _renamed(conjecture.right, others, new),
                    )
                    if self.trial.may_hold(general):
                        yield general


def replaced(conjecture: Conjecture, term: Term, new: Variable) -> Conjecture:
    """The conjecture with a variable in place of each occurrence of a term."""

    def leaf(part: Term) -> Term | None:
        return new if part is term else None

    return Conjecture(
        rebuild(conjecture.left, leaf),
        rebuild(conjecture.right, leaf),
        tuple(
            Equality(rebuild(c.left, leaf), rebuild(c.right, leaf)) for c in conjecture.conditions
        ),
    )


def _common_calls(conjecture: Conjecture) -> list[Term]:
    counted: dict[Term, int] = {}
    for side in conjecture.terms():
        stack = [side]
        while stack:
            part = stack.pop()
            if isinstance(part, Apply):
                if is_call(part) and not part.is_ground:
                    counted[part] = counted.get(part, 0) + 1
                stack.extend(reversed(part.arguments))
    common = [term for term, number in counted.items() if number > 1]
    return sorted(common, key=lambda term: -term.size)


def _parts(places: list[Position]) -> Iterator[tuple[Position, ...]]:
    """Some of the places, but neither none nor, if there are several, the first."""
    if len(places) == 1:
        yield from ((), tuple(places))
        return
    for count in range(1, len(places)):
        yield from combinations(places[1:], count)
    yield tuple(places[:1])


def _renamed(term: Term, places: tuple[Position, ...], new: Variable) -> Term:
    for at in places:
        term = replace_at(term, at, new)
    return term

"""Induction hypotheses of a case: the statement again, for what is smaller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prover.patterns import match
from prover.program import Equality
from prover.rewriting.rules import Rule, hypothesis
from prover.search.conjecture import Conjecture
from prover.terms import Apply, Term, Variable, substitute, subterms, variables


@dataclass(frozen=True, slots=True)
class Member:
    """A statement that is proved together with others, each by induction on one variable."""

    name: str
    conjecture: Conjecture
    on: Variable


@dataclass(frozen=True, slots=True)
class Case:
    """Of the induction that proves a lemma: the patterns of the variables it is on, in order.

    The other `members` of its group are hypotheses, too, for what is smaller than its only pattern.
    """

    lemma: str
    conjecture: Conjecture
    patterns: Mapping[Variable, Term]
    members: Sequence[Member] = ()

    def descents(self) -> Iterator[dict[Variable, Term]]:
        """Instances of the induction variables that are smaller than the case, nearest first."""
        same: dict[Variable, Term] = {}
        for variable, pattern in self.patterns.items():
            for part in subterms(pattern):
                if part is not pattern and part.sort is variable.sort:
                    yield {**same, variable: part}
            same[variable] = pattern

    def rules(self, backward: bool) -> tuple[Rule, ...]:
        """The hypotheses as rules in one direction, as far as they can be."""
        found = []
        for name, conjecture, instance in self._hypotheses():
            smaller = conjecture.instance(instance)
            sides = (smaller.conclusion, smaller.conditions)
            statement = conjecture.statement(name)
            rule = hypothesis(f"ih:{name}", statement, instance, sides, backward)
            if rule is not None:
                found.append(rule)
        return tuple(found)

    def _hypotheses(self) -> Iterator[tuple[str, Conjecture, dict[Variable, Term]]]:
        for instance in self.descents():
            yield self.lemma, self.conjecture, instance
        for member in self.members:
            if member.name != self.lemma:
                (pattern,) = self.patterns.values()
                for part in subterms(pattern):
                    if part is not pattern and part.sort is member.on.sort:
                        yield member.name, member.conjecture, {member.on: part}

    def instances(
        self, goal: tuple[Term, ...]
    ) -> Iterator[tuple[dict[Variable, Term], Conjecture]]:
        """Hypotheses for values of all variables that occur in the goal."""
        met: dict[Conjecture, None] = {}
        for instance in self.descents():
            smaller = self.conjecture.instance(instance)
            fixed = {v: v for term in instance.values() for v in variables(term)}
            free = [v for v in self.conjecture.variables() if v not in instance]
            for by in self._choices(smaller, free, fixed, goal):
                ground = smaller.instance(by)
                if ground not in met:
                    met[ground] = None
                    yield {**instance, **by}, ground

    def _choices(
        self,
        smaller: Conjecture,
        free: list[Variable],
        fixed: Mapping[Variable, Variable],
        goal: tuple[Term, ...],
    ) -> Iterator[dict[Variable, Term]]:
        """Values for the free variables: those of the case, and those with which a part occurs."""
        yield {v: self.patterns.get(v, v) for v in free}
        if not free:
            return
        conditions = (side for c in smaller.conditions for side in (c.left, c.right))
        speaking = conditions if isinstance(smaller.left, Variable) else (smaller.left,)
        for part in (part for side in speaking for part in subterms(side)):
            if isinstance(part, Apply) and all(v in variables(part) for v in free):
                for term in (t for side in goal for t in subterms(side)):
                    bound: dict[Variable, Term] = dict(fixed)
                    if match(part, term, bound):
                        yield {v: bound[v] for v in free}


def instance_of(equality: Equality, by: Mapping[Variable, Term]) -> Equality:
    return Equality(substitute(equality.left, by), substitute(equality.right, by))

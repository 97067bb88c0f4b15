"""Statements about functions that call each other, proved together.

A case of `even n = not (odd n)` leaves `odd n = not (even n)`, whose own case leaves the first one
again. Neither is a lemma for the other: each is a hypothesis, for the values that are smaller than
the case. So what a case leaves joins the group where it says the same of the functions of one
component as the statements that are there, and on a part of the case's pattern. Every member is
then proved by induction on its own variable. A case descends by one constructor at least to the
member that it uses, whichever that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prover.components import components
from prover.patterns import match
from prover.positions import is_strict_subterm
from prover.program import Program
from prover.search.branch import Branch
from prover.search.conjecture import Conjecture
from prover.search.hypotheses import Case, Member
from prover.search.remainder import remainders
from prover.search.tasks import Found
from prover.search.tools import Tools
from prover.terms import Apply, Symbol, Term, Variable, subterms

_MOST_MEMBERS = 6


class Mutual:
    """Which functions of a program call each other."""

    def __init__(self, program: Program) -> None:
        found = [each for each in components(program) if len(each) > 1]
        self._group = {symbol: number for number, each in enumerate(found) for symbol in each}

    def concerns(self, conjecture: Conjecture) -> bool:
        """Whether it speaks of one of them."""
        parts = (part for side in conjecture.terms() for part in subterms(side))
        return any(isinstance(part, Apply) and part.symbol in self._group for part in parts)

    def same_shape(self, one: Conjecture, other: Conjecture) -> bool:
        """Whether they differ only in variables, and in functions that call each other."""
        if len(one.conditions) != len(other.conditions):
            return False
        named: dict[Variable, Term] = {}
        stack = list(zip(one.terms(), other.terms(), strict=True))
        while stack:
            left, right = stack.pop()
            if isinstance(left, Variable):
                if not isinstance(right, Variable) or named.setdefault(left, right) is not right:
                    return False
                continue
            if isinstance(right, Variable) or not self._alike(left.symbol, right.symbol):
                return False
            if len(left.arguments) != len(right.arguments):
                return False
            stack += zip(left.arguments, right.arguments, strict=True)
        return len(dict.fromkeys(named.values())) == len(named)

    def _alike(self, one: Symbol, other: Symbol) -> bool:
        if one is other:
            return True
        if one.name == other.name and one.kind is other.kind:  # builtins at other sorts
            return True
        return one in self._group and self._group[one] == self._group.get(other)


class Together:
    """A group in the making, of which the first member is there."""

    def __init__(self, tools: Tools, mutual: Mutual, first: Member) -> None:
        self.tools, self.mutual = tools, mutual
        self.members = [first]

    def join(self, branch: Branch, case: Case) -> Found | None:
        """The member of which the goal is an instance for something smaller; a new one, perhaps."""
        goals = [Conjecture(branch.left, branch.right), *remainders(branch)]
        for goal in goals:
            for member in self.members:
                found = _instance(member, goal, case)
                if found is not None:
                    return found
        for goal in goals[1:]:
            new = self._new_member(goal, case)
            if new is not None:
                self.members.append(new)
                return _instance(new, goal, case)
        return None

    def _new_member(self, goal: Conjecture, case: Case) -> Member | None:
        if len(self.members) >= _MOST_MEMBERS or not self.tools.trial.survives(goal):
            return None
        (pattern,) = case.patterns.values()
        for member in self.members:
            if member.name != case.lemma:
                continue
            for said in (member.conjecture, member.conjecture.flipped()):
                if self.mutual.same_shape(said, goal):
                    for variable in goal.variables():
                        if is_strict_subterm(variable, pattern):
                            return self._named(goal, variable)
        return None

    def _named(self, goal: Conjecture, variable: Variable) -> Member:
        named, meant = self.tools.names.canonical(goal)
        (on,) = (new for new, old in meant.items() if old is variable)
        return Member(self.tools.names.lemma(), named, on)


def _instance(member: Member, goal: Conjecture, case: Case) -> Found | None:
    (pattern,) = case.patterns.values()
    for backward in (False, True):
        said = member.conjecture
        sides = (said.right, said.left) if backward else (said.left, said.right)
        for by in _matches(sides, goal):
            whole = all(variable in by for variable in said.variables())
            if whole and is_strict_subterm(by[member.on], pattern):
                return Found(member.name, said, by, backward, "ih")
    return None


def _matches(sides: tuple[Term, Term], goal: Conjecture) -> Iterator[Mapping[Variable, Term]]:
    bound: dict[Variable, Term] = {}
    if match(sides[0], goal.left, bound) and match(sides[1], goal.right, bound):
        yield bound

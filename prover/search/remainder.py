"""What is left of a goal when nothing more is certain: conjectures to make lemmas of."""

from __future__ import annotations

from collections.abc import Iterator

from prover.program import Equality
from prover.search.branch import Branch
from prover.search.conjecture import Conjecture
from prover.terms import variables


def remainders(branch: Branch) -> Iterator[Conjecture]:
    """What is left to prove: alone, and under those facts that tests say are needed."""
    bare = Conjecture(branch.left, branch.right)
    may_hold = branch.tools.trial.may_hold
    if may_hold(bare):
        yield bare
    known = _relevant(bare, branch.conditions())
    whole = Conjecture(branch.left, branch.right, known)
    if not known or not may_hold(whole) or (may_hold(bare) and not branch.has_hypotheses):
        return
    if not may_hold(bare):
        for condition in reversed(known):
            fewer = tuple(c for c in whole.conditions if c is not condition)
            less = Conjecture(branch.left, branch.right, fewer)
            if may_hold(less):
                whole = less
    yield whole


def _relevant(goal: Conjecture, known: tuple[Equality, ...]) -> tuple[Equality, ...]:
    """The equalities that speak of the goal's variables, or of those that such ones speak of."""
    spoken = dict.fromkeys(goal.variables())
    found: dict[Equality, None] = {}
    for _ in known:
        for equality in known:
            mentioned = variables(equality.left, equality.right)
            if equality not in found and any(v in spoken for v in mentioned):
                found[equality] = None
                spoken |= dict.fromkeys(mentioned)
    return tuple(e for e in known if e in found)

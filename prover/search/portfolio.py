"""Directed first, then by enumeration with what it left of the budget."""

from __future__ import annotations

import time

from prover.program import Program, Statement
from prover.search import directed, enumerative
from prover.verdict import Budget, Unknown, Verdict

_FIRST = 0.6  # of the budget; a directed search that finds nothing more ends long before


def search(program: Program, goal: Statement, budget: Budget, seed: int = 0) -> Verdict:
    """The verdict of the first that comes to one; of two that do not, that of the directed one.

    The program has passed `checks.check`.
    """
    began_s = time.monotonic()
    first = Budget(int(budget.steps * _FIRST), budget.seconds * _FIRST)
    verdict = directed.search(program, goal, first, seed)
    if not isinstance(verdict, Unknown):
        return verdict
    left_s = budget.seconds - (time.monotonic() - began_s)
    rest = Budget(budget.steps - first.steps, left_s)
    second = enumerative.search(program, goal, rest, seed)
    return verdict if isinstance(second, Unknown) else second

"""Directed first; then with guessed lemmas too, as far as the budget goes.

What the second search leaves of a goal may become a lemma, as in the first; the baseline is plain.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from prover.program import Program, Statement
from prover.search import directed
from prover.search.directed import deep_recursion
from prover.search.enumerative import Enumeration
from prover.search.lemmas import Lemma
from prover.verdict import Budget, Unknown, Verdict

_FIRST = 0.6  # of the budget; a directed search that finds nothing more ends long before


class _Nested(Enumeration):
    depth = 2


def search(
    program: Program,
    goal: Statement,
    budget: Budget,
    seed: int = 0,
    known: Sequence[Lemma] = (),
) -> Verdict:
    """The verdict of the first that comes to one; where neither does, that of the directed one.

    The program has passed `checks.check`, and the checker has accepted what is known.
    """
    began_s = time.monotonic()
    first = Budget(int(budget.steps * _FIRST), budget.seconds * _FIRST)
    verdict = directed.search(program, goal, first, seed, known)
    if not isinstance(verdict, Unknown):
        return verdict
    left_s = budget.seconds - (time.monotonic() - began_s)
    rest = Budget(budget.steps - first.steps, left_s)
    with deep_recursion():
        second = _Nested(program, goal, rest, seed).knowing(known).run()
    return verdict if isinstance(second, Unknown) else second

"""Enumeration beside a directed search: what it leaves of a goal may become a lemma, too.

The baseline of `enumerative` is plain; this one is the second of the portfolio.
"""

from __future__ import annotations

from collections.abc import Sequence

from prover.program import Program, Statement
from prover.search.directed import deep_recursion
from prover.search.enumerative import Enumeration
from prover.search.lemmas import Lemma
from prover.verdict import Budget, Verdict


class _Nested(Enumeration):
    depth = 2


def search(
    program: Program,
    goal: Statement,
    budget: Budget,
    seed: int = 0,
    known: Sequence[Lemma] = (),
) -> Verdict:
    """A proof that the checker accepted, values that refute the goal, or neither.

    The program has passed `checks.check`, and the checker has accepted what is known.
    """
    with deep_recursion():
        return _Nested(program, goal, budget, seed).knowing(known).run()

"""Tests of conjectures on values, before any work is done for them."""

from __future__ import annotations

import random
from collections.abc import Mapping

from prover.errors import ProverError
from prover.evaluator import Evaluator
from prover.program import Program, Statement
from prover.search.conjecture import Conjecture
from prover.terms import Term, Variable

_TRIALS = 40


class Trial:
    """Whether a conjecture survives small values. What was tested once is remembered."""

    def __init__(self, program: Program, seed: int = 0) -> None:
        self.program, self.seed = program, seed
        self.evaluator = Evaluator(program, fuel=2_000_000, seconds=60.0, seed=seed)
        self._known: dict[Conjecture, bool] = {}

    def may_hold(self, conjecture: Conjecture) -> bool:
        if conjecture not in self._known:
            statement = conjecture.statement("trial")
            self._known[conjecture] = self.refute(statement) is None
        return self._known[conjecture]

    def refute(self, statement: Statement) -> Mapping[Variable, Term] | None:
        """Values that meet the conditions and make the sides differ."""
        draw = random.Random(self.seed)
        for number in range(_TRIALS * (1 + 3 * len(statement.conditions))):
            depth = number % 4
            values = {
                variable: self.evaluator.small(variable.sort, draw.randrange(1 << 40), depth)
                for variable in statement.variables
            }
            try:
                if self.evaluator.refutes(statement, values):
                    return values
            except ProverError:
                continue
        return None

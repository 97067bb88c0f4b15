"""Tests of conjectures on values, before any work is done for them."""

from __future__ import annotations

from prover.samples.samples import Samples
from prover.search.conjecture import Conjecture


class Trial:
    """Whether a conjecture survives values. What was tested once is remembered."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self._known: dict[Conjecture, bool] = {}
        self._survives: dict[Conjecture, bool] = {}

    def may_hold(self, conjecture: Conjecture) -> bool:
        """The quick test: as far as the standing samples tell."""
        if conjecture not in self._known:
            left, right = conjecture.left, conjecture.right
            self._known[conjecture] = self.samples.may_hold(left, right, conjecture.conditions)
        return self._known[conjecture]

    def survives(self, conjecture: Conjecture) -> bool:
        """The longer test, before a proof is begun."""
        if conjecture not in self._survives:
            statement = conjecture.statement("")
            self._survives[conjecture] = (
                self.may_hold(conjecture) and self.samples.counterexample(statement, 1) is None
            )
        return self._survives[conjecture]

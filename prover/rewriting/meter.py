"""What a search may spend: steps decide, so that the same search ends alike everywhere."""

from __future__ import annotations

import time

from prover.errors import ProverError
from prover.verdict import Budget, Reason


class Spent(ProverError):
    """A search came to the end of its budget."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(f"the search ended: {reason.value}")


class Meter:
    """Counts steps of inference, and looks at the clock now and then."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.steps = 0
        self._ends_s = time.monotonic() + budget.seconds

    def spend(self, steps: int = 1) -> None:
        """Raises Spent past the budget."""
        before = self.steps
        self.steps += steps
        if self.steps > self.budget.steps:
            raise Spent(Reason.STEPS)
        if before // 64 != self.steps // 64 and time.monotonic() > self._ends_s:
            raise Spent(Reason.TIMEOUT)

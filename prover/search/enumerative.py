"""Heuristic lemma enumeration, the baseline: lemmas are guessed, smallest first, for no purpose.

Equations over the functions that the goal speaks of are taken from samples; each is tried by plain
induction, with what was proved before as rules, and the goal is tried again after each success.
What failed is tried again once there is more to prove it with. No lemma is looked for because a
proof is stuck: that is what the directed search does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from prover.program import Program, Statement
from prover.samples.samples import Samples
from prover.search.accumulators import Accumulators
from prover.search.branch import Branch
from prover.search.conjecture import Conjecture
from prover.search.directed import Search, deep_recursion
from prover.search.hypotheses import Case
from prover.search.lemmas import Lemma
from prover.search.loop import Loop
from prover.search.tools import Tools
from prover.synthesis.conjectures import lemmas, vocabulary
from prover.terms import Term
from prover.verdict import Budget, Verdict

_MOST_TERMS = 200_000
_CALLS_OF_A_STEP = 64
_MORE_EFFORT = 12


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
        return Enumeration(program, goal, budget, seed).knowing(known).run()


class _NoAccumulators(Accumulators):
    def learn(self, _conjecture: Conjecture, _depth: int) -> bool:
        return False


def _no_tactics(_terms: Sequence[Term], _case: Case, _depth: int) -> bool:
    return False


def _no_fit(_branch: Branch, _case: Case, _depth: int) -> Iterator[Branch]:
    return iter(())


class PlainLoop(Loop):
    """Induction, simplification and generalisation, and no lemma that is made for a purpose."""

    def __init__(self, tools: Tools, samples: Samples) -> None:
        super().__init__(tools, samples)
        self.accumulators = _NoAccumulators(tools, samples, self.find, self.remarks)
        self.discharge.learn, self.discharge.fit = _no_tactics, _no_fit


class Enumeration(Search):
    """`depth` is how many lemmas a proof may leave for what remains of its goals: none in the
    baseline, for such a lemma has a purpose."""

    loop_type = PlainLoop
    depth: ClassVar[int] = 0

    def __init__(self, program: Program, goal: Statement, budget: Budget, seed: int) -> None:
        super().__init__(program, goal, budget, seed)
        self._normaliser = self.loop.tools.normaliser({})
        self._waiting: list[Conjecture] = []

    def attempt(self) -> Lemma | None:
        """The goal proved, first without any guessed lemma."""
        lemma = self.loop.prove(self.goal, self.depth)
        if lemma is not None:
            return lemma
        self.doubt(_MORE_EFFORT)
        words = vocabulary(self.program, self.goal)
        spent = self.samples.steps
        for equation in lemmas(self.samples, words, self._normaliser.normal, _MOST_TERMS):
            self.loop.tools.meter.spend(1 + (self.samples.steps - spent) // _CALLS_OF_A_STEP)
            spent = self.samples.steps
            if self._learns(Conjecture(equation.left, equation.right)):
                lemma = self.loop.prove(self.goal, self.depth)
                if lemma is not None:
                    return lemma
        return None

    def _learns(self, conjecture: Conjecture) -> bool:
        """Whether the conjecture, or one that failed before, is proved now."""
        if not self._proves(conjecture):
            self._waiting.append(conjecture)
            return False
        progress = True
        while progress:
            self.loop.lemmas.forget_failures()
            before = self._waiting
            self._waiting = [each for each in before if not self._proves(each)]
            progress = len(self._waiting) < len(before)
        return True

    def _proves(self, conjecture: Conjecture) -> bool:
        return self.loop.find([conjecture], self.depth) is not None

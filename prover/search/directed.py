"""The directed search: lemmas are found for what a proof is stuck on, and for nothing else."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, Self

from prover.checker import verify
from prover.errors import ProverError
from prover.evaluator import Evaluator
from prover.program import Program, Statement
from prover.rewriting.meter import Meter, Spent
from prover.rewriting.rules import RuleBook
from prover.samples.samples import Samples
from prover.search.certificate import certificate
from prover.search.conjecture import Conjecture, Names
from prover.search.explain import Explainer
from prover.search.lemmas import Lemma, LemmaCase
from prover.search.loop import Loop
from prover.search.renaming import renamed
from prover.search.tools import Tools
from prover.search.trial import Trial
from prover.terms import Term, Variable, substitute
from prover.verdict import Budget, Proved, Reason, Refuted, Unknown, Verdict

_DEEPEST = 7
_EFFORT, _MORE_EFFORT = 2, 12  # before anything is tried, and when little lemmas did not help
_CALLS_OF_A_STEP = 64  # of evaluation
_WITH_LAWS = 2  # the depth from which on laws of the operators are known
_FRAMES = 20_000
_SELDOM = (50_000, 20, 100)  # how often garbage is looked for


def search(
    program: Program,
    goal: Statement,
    budget: Budget,
    seed: int = 0,
    known: Sequence[Lemma] = (),
) -> Verdict:
    """A proof that the checker accepted, values that refute the goal, or neither.

    The program has passed `checks.check`, and the checker has accepted what is known. Raises
    Rejected where the search is wrong.
    """
    with deep_recursion():
        return Search(program, goal, budget, seed).knowing(known).run()


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Python's limits as a search needs them: deep calls, and many small objects that stay."""
    before, often = sys.getrecursionlimit(), gc.get_threshold()
    sys.setrecursionlimit(max(before, _FRAMES))
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
        gc.set_threshold(*often)


class Wrong(ProverError):
    """The goal is false: these values refute it."""

    def __init__(self, values: Mapping[Variable, Term]) -> None:
        self.values = values
        super().__init__("the goal is refuted")


class Search:
    """One search for one goal: `attempt` says how it goes, `loop_type` what may be used."""

    loop_type: ClassVar[type[Loop]] = Loop

    def __init__(self, program: Program, goal: Statement, budget: Budget, seed: int) -> None:
        self.program, self.asked = program, goal
        names = Names(program)
        plain, self._called = names.canonical(Conjecture.of(goal))
        self.goal = plain.statement(goal.name)  # whatever its variables are called
        book = RuleBook(program)
        self.samples = Samples(program, seed)
        tools = Tools(program, book, Meter(budget), names, Trial(self.samples))
        self.loop = self.loop_type(tools, self.samples)

    def knowing(self, lemmas: Sequence[Lemma]) -> Self:
        """With lemmas that the checker has accepted."""
        for lemma in lemmas:
            self.loop.know(lemma)
        return self

    def run(self) -> Verdict:
        try:
            self.doubt(_EFFORT)
            lemma = self.attempt()
        except Wrong as wrong:
            return self._refuted(wrong.values)
        except Spent as spent:
            return Unknown(spent.reason, self.loop.stuck)
        return Unknown(Reason.STUCK, self.loop.stuck) if lemma is None else self._proved(lemma)

    def attempt(self) -> Lemma | None:
        """The goal proved: lemmas may rest on each other ever deeper."""
        self.loop.operators.reach(self.goal)
        for depth in range(_DEEPEST):
            if depth == _WITH_LAWS:
                self.loop.operators.learn_laws()
            lemma = self._at(depth)
            if lemma is not None:
                return lemma
            self.loop.lemmas.forget_failures()
            if depth == 1:
                self.doubt(_MORE_EFFORT)
        return None

    def _at(self, depth: int) -> Lemma | None:
        """The goal proved at one depth: by operators that stay whole, then by definitions alone."""
        lemma = None
        if self.loop.operators.symbols and depth > 0:
            with self.loop.operators.whole():
                self.loop.start_over()
                lemma = self.loop.prove(self.goal, depth)
            self.loop.start_over()
        return lemma or self.loop.prove(self.goal, depth)

    def doubt(self, effort: int) -> None:
        """Raises Wrong for values that refute the goal."""
        before = self.samples.steps
        values = self.samples.refute(self.asked, effort)
        if values is not None:
            raise Wrong(values)
        self.loop.tools.meter.spend((self.samples.steps - before) // _CALLS_OF_A_STEP)

    def _refuted(self, values: Mapping[Variable, Term]) -> Refuted:
        evaluator = Evaluator(self.program)
        conclusion = self.asked.conclusion
        left, right = (substitute(s, values) for s in (conclusion.left, conclusion.right))
        return Refuted(values, evaluator.value(left), evaluator.value(right))

    def _proved(self, lemma: Lemma) -> Proved:
        """Raises Rejected where the search has written what is no proof: it is wrong then."""
        ((_, proof),) = ((case.patterns, case.proof) for case in lemma.cases)
        said = renamed(proof, self._called, self.loop.tools.names)
        lemmas = self.loop.lemmas.needed(Lemma(self.asked, (), (LemmaCase((), said),)))
        data = certificate(self.goal.name, lemmas)
        verified = verify(self.program, data)
        explainer = Explainer(self.loop.tools.book, lemmas, self.loop.remarks.by_lemma)
        return Proved(data, str(verified), tuple(explainer.lines()))

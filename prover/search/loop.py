"""The loop: a conjecture is simplified, generalised, proved by induction; what is left recurs.

Depth bounds how many lemmas rest on each other. A failure is remembered for its depth, a proved
lemma for good, and as a rule for all that follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from prover.patterns import match
from prover.program import Equality, Statement
from prover.samples.samples import Samples
from prover.search.accumulators import Accumulators
from prover.search.branch import Branch
from prover.search.conjecture import Conjecture, names_of
from prover.search.discharge import Discharge
from prover.search.fit import Fitter
from prover.search.generalise import Generaliser
from prover.search.hypotheses import Member
from prover.search.induction import Induction, candidates
from prover.search.lemmas import Lemma, LemmaCase, Lemmas
from prover.search.operators import Operators
from prover.search.remarks import Remarks
from prover.search.tactics import Tactics
from prover.search.tasks import Found, Outcome, Task
from prover.search.together import Mutual, Together
from prover.search.tools import Tools
from prover.terms import Term, Variable, substitute

_MOST_NESTED = 10
_LARGEST = 60
_MOST_CANDIDATES = 4
_MOST_CHOICES = 1


class Loop:
    """Proves conjectures; all that one search knows."""

    def __init__(self, tools: Tools, samples: Samples) -> None:
        self.tools = tools
        self.lemmas = Lemmas()
        self.remarks = Remarks()
        self.tactics = Tactics(tools, samples, self.find, self.remarks)
        self.accumulators = Accumulators(tools, samples, self.find, self.remarks)
        self.operators = Operators(tools, samples, self.find)
        fitter = Fitter(tools, samples, self.find)
        self.discharge = Discharge(
            tools, self.find, self.tactics.learn, fitter.fit, self.note_stuck
        )
        self.mutual = Mutual(tools.program)
        self.generaliser = Generaliser(tools.names, tools.trial)
        self.stuck: Equality | None = None
        self._open: list[Conjecture] = []

    def start_over(self) -> None:
        """Tries again what failed: now there is more, or other, to prove it with."""
        self.lemmas.forget_failures()
        self.tactics.forget()
        self.accumulators.forget()

    def note_stuck(self, goal: Equality) -> None:
        """Remembers the smallest goal that nothing was found for."""
        size = goal.left.size + goal.right.size
        if self.stuck is None or size < self.stuck.left.size + self.stuck.right.size:
            self.stuck = goal

    def know(self, lemma: Lemma) -> None:
        """A lemma that is proved, and a rule from now on."""
        self.lemmas.add(lemma)
        self.tools.book.learn(f"lemma:{lemma.name}", lemma.statement)

    def prove(self, goal: Statement, depth: int) -> Lemma | None:
        """The goal as a lemma, resting on those that were found on the way."""
        conjecture = Conjecture.of(goal)
        branch = self._root(conjecture)
        outcome: Outcome | None = None
        if self.mutual.concerns(conjecture):  # whose calls are best left as they stand
            outcome = self.discharge.leave(branch, Task(depth))
        outcome = outcome or self.discharge.close(branch, Task(depth))
        if isinstance(outcome, tuple):
            return Lemma(goal, (), (LemmaCase((), outcome),))
        return None

    def find(self, wanted: Sequence[Conjecture], depth: int) -> Found | None:
        """A lemma of which one of the conjectures is an instance: known, or proved now."""
        self.tools.meter.spend(10)
        choices = [(general, each) for each in wanted for general in self._choices(each)]
        choices.sort(key=lambda choice: choice[0].size)
        for general, each in choices:
            found = self._find_just(general, depth)
            if found is not None:
                return self._specialised(found, general, each)
        return None

    def _choices(self, conjecture: Conjecture) -> tuple[Conjecture, ...]:
        """What may be proved in its stead; itself only where nothing stronger stands the tests."""
        stronger = (*self.generaliser.stronger(conjecture), conjecture)
        standing = [each for each in stronger if self.tools.trial.survives(each)]
        return tuple(standing[:_MOST_CHOICES])

    def _specialised(self, found: Found, general: Conjecture, wanted: Conjecture) -> Found | None:
        bound: dict[Variable, Term] = {}
        pairs = zip(general.terms(), wanted.terms(), strict=True)
        if not all(match(one, other, bound) for one, other in pairs):
            return None
        by = {variable: substitute(term, bound) for variable, term in found.by.items()}
        return Found(found.name, found.statement, by, found.backward)

    def _find_just(self, wanted: Conjecture, depth: int) -> Found | None:
        for backward in (False, True):
            sides = wanted.flipped() if backward else wanted
            named, by = self.tools.names.canonical(sides)
            known = self.lemmas.by_conjecture.get(named)
            if known is not None:
                return Found(known.name, named, by, backward)
        named, by = self.tools.names.canonical(wanted)
        lemma = self._attempt(named, depth)
        return None if lemma is None else Found(lemma.name, named, by, False)

    def _attempt(self, conjecture: Conjecture, depth: int) -> Lemma | None:
        if conjecture in self._open or len(self._open) >= _MOST_NESTED:
            return None
        if conjecture.size > _LARGEST or self.lemmas.has_failed(conjecture, depth):
            return None
        if not self.tools.trial.survives(conjecture):
            self.lemmas.fail(conjecture)
            return None
        self._open.append(conjecture)
        with self.operators.opened(conjecture):
            lemma = next(self._proofs(conjecture, depth), None)
        self._open.pop()
        if lemma is None:
            self.lemmas.fail(conjecture, depth)
        else:
            self.know(lemma)
        return lemma

    def _proofs(self, conjecture: Conjecture, depth: int) -> Iterator[Lemma]:
        statement = conjecture.statement(self.tools.names.lemma())
        if self.mutual.concerns(conjecture):
            for variable in self._candidates(conjecture):
                yield from self._together(Member(statement.name, conjecture, variable), depth)
        branch = self._root(conjecture)
        outcome = self.discharge.close(branch, Task(depth, itself=conjecture))
        if isinstance(outcome, tuple):
            yield Lemma(statement, (), (LemmaCase((), outcome),))
        if depth > 0 and self.accumulators.learn(conjecture, depth - 1):
            yield from self._proofs(conjecture, depth)
        for variable in self._candidates(conjecture):
            lemma = Induction(self.tools, self.discharge, statement, variable).prove(depth)
            if lemma is not None:
                yield lemma

    def _together(self, first: Member, depth: int) -> Iterator[Lemma]:
        """The first statement as a lemma, after those that are proved together with it."""
        group = Together(self.tools, self.mutual, first)
        proved: list[Lemma] = []
        for member in group.members:  # which grow as they are proved
            statement = member.conjecture.statement(member.name)
            induction = Induction(self.tools, self.discharge, statement, member.on)
            induction.together = group
            lemma = induction.prove(depth)
            if lemma is None:
                return
            proved.append(lemma)
        names = tuple(member.name for member in group.members)
        own, *others = (replace(lemma, together=names) for lemma in proved)
        for lemma in others:
            self.know(lemma)
        yield own

    def _candidates(self, conjecture: Conjecture) -> list[Variable]:
        program = self.tools.program
        wanted = candidates(self.tools.book, conjecture)
        return [v for v in wanted if program.constructors(v.sort)][:_MOST_CANDIDATES]

    def _root(self, conjecture: Conjecture) -> Branch:
        taken = names_of(conjecture.variables())
        branch = Branch(self.tools, conjecture.left, conjecture.right, taken)
        for index, condition in enumerate(conjecture.conditions, 1):
            branch.assume(f"condition-{index}", condition)
        return branch

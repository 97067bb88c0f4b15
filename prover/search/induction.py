"""Induction on a variable, with cases that are split further where their proofs ask for it."""

from __future__ import annotations

from prover.program import Statement
from prover.rewriting.rules import RuleBook
from prover.rewriting.steps import Proof
from prover.search import splitting
from prover.search.branch import Branch
from prover.search.conjecture import Conjecture, names_of
from prover.search.discharge import Discharge
from prover.search.hypotheses import Case
from prover.search.lemmas import Lemma, LemmaCase
from prover.search.tasks import Outcome, Refine, Stuck, Task
from prover.search.together import Together
from prover.search.tools import Tools
from prover.terms import Apply, Term, Variable, substitute, subterms, variables

_MOST_REFINED = 2
_MOST_CASES = 24

Patterns = dict[Variable, Term]


def candidates(book: RuleBook, conjecture: Conjecture) -> list[Variable]:
    """The variables whose constructors calls wait for, most wanted first.

    One that also stands where it would not be taken apart counts less: there the hypothesis would
    not fit.
    """
    score: dict[Variable, float] = {}
    for side, weight in ((conjecture.left, 2.0), (conjecture.right, 2.0)):
        for wait in splitting.waits(book, side):
            if isinstance(wait.argument, Variable):
                score[wait.argument] = score.get(wait.argument, 0.0) + weight
    for condition in conjecture.conditions:
        for wait in splitting.waits(book, condition.left, condition.right):
            if isinstance(wait.argument, Variable):
                score[wait.argument] = score.get(wait.argument, 0.0) + 1.0
    for variable in score:
        score[variable] -= 0.5 * _passed_on(book, conjecture, variable)
    return sorted(score, key=lambda variable: -score[variable])


def _passed_on(book: RuleBook, conjecture: Conjecture, variable: Variable) -> int:
    """How many calls take the variable without waiting for it."""
    found = 0
    for side in (conjecture.left, conjecture.right):
        waiting = dict.fromkeys(
            w.call for w in splitting.waits(book, side) if w.argument is variable
        )
        for part in subterms(side):
            if isinstance(part, Apply) and part.symbol in book.defined and part not in waiting:
                found += any(argument is variable for argument in part.arguments)
    return found


class Induction:
    """One attempt to prove a statement by induction on a variable.

    With other statements that are proved `together` with it, it is on that variable alone.
    """

    together: Together | None = None

    def __init__(
        self, tools: Tools, discharge: Discharge, statement: Statement, variable: Variable
    ) -> None:
        self.tools, self.discharge = tools, discharge
        self.statement = statement
        self.conjecture = Conjecture.of(statement)
        self.on = [variable]
        self.taken = names_of(statement.variables)

    def prove(self, depth: int) -> Lemma | None:
        """The lemma, or none where one of its cases cannot be proved."""
        waiting = list(reversed(self._refined({}, self.on[0])))
        done: list[tuple[Patterns, Proof]] = []
        while waiting:
            patterns = waiting.pop()
            outcome = self._case(patterns, depth)
            if isinstance(outcome, Refine):
                waiting += reversed(self._refined(patterns, outcome.variable))
            elif isinstance(outcome, Stuck) or len(done) + len(waiting) >= _MOST_CASES:
                return None
            else:
                done.append((patterns, outcome))
        cases = tuple(
            LemmaCase(tuple(patterns.get(v, v) for v in self.on), proof) for patterns, proof in done
        )
        return Lemma(self.statement, tuple(self.on), cases)

    def _case(self, patterns: Patterns, depth: int) -> Outcome:
        goal = self.conjecture.instance(patterns)
        branch = Branch(self.tools, goal.left, goal.right, self.taken)
        ordered = {variable: patterns.get(variable, variable) for variable in self.on}
        members = self.together.members if self.together else ()
        case = Case(self.statement.name, self.conjecture, ordered, members)
        for instance in case.descents():
            branch.protected |= dict.fromkeys(variables(*instance.values()))
        for index, condition in enumerate(goal.conditions, 1):
            branch.assume(f"condition-{index}", condition)
        join = self.together.join if self.together else None
        task = Task(depth, case, self._refinable(patterns), join=join)
        return self.discharge.close(branch, task)

    def _refinable(self, patterns: Patterns) -> dict[Variable, None]:
        """Variables that a case may still be split on."""
        found: dict[Variable, None] = {}
        if self.together is None:
            found |= {v: None for v in self.conjecture.variables() if v not in patterns}
        for pattern in patterns.values():
            if _height(pattern) < _MOST_REFINED:
                found |= dict.fromkeys(variables(pattern))
        return found

    def _refined(self, patterns: Patterns, variable: Variable) -> list[Patterns]:
        """The patterns with each constructor in place of a variable."""
        if not any(variable in variables(pattern) for pattern in patterns.values()):
            patterns = {**patterns, variable: variable}
            if variable not in self.on:
                self.on.append(variable)
        found = []
        for constructor in self.tools.program.constructors(variable.sort):
            fields = []
            for sort in constructor.arguments:
                field = self.tools.names.part_of(variable, sort, self.taken)
                self.taken[field.name] = None
                fields.append(field)
            by: dict[Variable, Term] = {variable: constructor(*fields)}
            found.append({v: substitute(pattern, by) for v, pattern in patterns.items()})
        return found


def _height(term: Term) -> int:
    if isinstance(term, Variable):
        return 0
    return 1 + max((_height(argument) for argument in term.arguments), default=0)

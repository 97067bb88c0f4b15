"""Whether a statement may hold, from what its terms are on many values.

Nothing here is trusted: what is refuted was evaluated again by an `Evaluator` of its own, and what
may hold is still to be proved. The bounds count steps, never time, so that the answers to the same
questions in the same order are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable

from prover.errors import OutOfFuel, Undecided
from prover.evaluator import Evaluator
from prover.program import Equality, Program, Statement
from prover.samples import assignments, models, trials
from prover.samples.batch import Batch, Column, first_difference
from prover.samples.machine import Machine
from prover.samples.pool import Pool
from prover.samples.values import as_term
from prover.terms import Term, Variable, substitute, variables

_STANDING_ROWS = 72
_MOST_SPENT = 1_000_000  # calls remembered before all is forgotten
_MOST_SIGNATURES = 16
_MOST_VARIABLES = 1_000


class Samples:
    """Values of one program's terms. `seed` draws the larger samples, not the free functions."""

    def __init__(self, program: Program, seed: int = 0) -> None:
        self.program, self.seed = program, seed
        self._spent_before = 0
        self._refuted: dict[tuple[Statement, int], trials.Values | None] = {}
        self._model: models.Model = ()
        self._renew()
        self._is_doubtful = bool(program.left_out or models.constrained(program))
        if program.assumptions:
            self._is_doubtful |= not self._keeps_assumptions(Machine(program))
            self._model = models.find(program, self._keeps_assumptions)
            self._renew()

    @property
    def steps(self) -> int:
        """How many calls of functions all evaluations took so far."""
        return self._spent_before + self._machine.spent

    def refute(self, statement: Statement, effort: int = 1) -> trials.Values | None:
        """Values that meet the conditions and make the sides differ, confirmed independently.

        None also where no value of a free function is known to keep the assumptions.
        """
        values = self.counterexample(statement, effort)
        if values is None or self._is_doubtful or not self._is_confirmed(statement, values):
            return None
        return values

    def counterexample(self, statement: Statement, effort: int = 1) -> trials.Values | None:
        """The same by this evaluation alone, in the model that was made for the assumptions."""
        renamed, names = _renamed(statement)
        if (renamed, effort) not in self._refuted:
            self._forget_if_full()
            self._refuted[renamed, effort] = trials.failing(
                self._pool, renamed, effort, str(self.seed)
            )
        found = self._refuted[renamed, effort]
        return None if found is None else {names[each]: found[each] for each in found}

    def may_hold(self, left: Term, right: Term, conditions: tuple[Equality, ...] = ()) -> bool:
        """The quick test: the sides are the same on the standing samples that meet the conditions.

        Conditions that hardly any of them meets are met by further samples, as far as they can.
        """
        self._forget_if_full()
        if not conditions:
            self._give_columns(variables(left, right))
            return first_difference(self._standing, left, right) is None
        statement = Statement("", variables(left, right), conditions, Equality(left, right))
        renamed, _ = _renamed(statement)
        batch = self._meeting(renamed)
        conclusion = renamed.conclusion
        return first_difference(batch, conclusion.left, conclusion.right) is None

    def signature(self, term: Term, among: tuple[Variable, ...]) -> tuple[object, ...] | None:
        """The values of a term of these variables: the same for equal terms. None where one fails.

        Terms, so that signatures are compared fast; a sample that fails makes no signature.
        """
        batch = self.batch(among)
        column = batch.column(term)
        return (
            None
            if None in column
            else tuple(as_term(value) for value in column if value is not None)
        )

    def batch(self, among: tuple[Variable, ...]) -> Batch:
        """Standing samples of these variables, small and large; the same for the same sorts."""
        if among not in self._batches:
            if len(self._batches) > _MOST_SIGNATURES:
                del self._batches[next(iter(self._batches))]
            columns = {each: self._column(each, place) for place, each in enumerate(among)}
            self._batches[among] = Batch(self._machine, columns, _STANDING_ROWS)
        return self._batches[among]

    def _meeting(self, statement: Statement) -> Batch:
        """One batch of rows that meet the conditions of a renamed statement, remembered."""
        key = (statement.conditions, statement.variables)
        if key not in self._conditional:
            if len(self._conditional) > _MOST_SIGNATURES:
                del self._conditional[next(iter(self._conditional))]
            self._conditional[key] = trials.meeting(self._pool, statement, str(self.seed))
        return self._conditional[key]

    def _is_confirmed(self, statement: Statement, values: trials.Values) -> bool:
        try:
            return Evaluator(self.program).refutes(statement, values)
        except (OutOfFuel, Undecided):
            return False

    def _keeps_assumptions(self, machine: Machine) -> bool:
        """Whether no sample shows that an assumption fails on this machine."""
        pool = Pool(machine)
        renamed = [_renamed(each)[0] for each in self.program.assumptions]
        return all(trials.failing(pool, each, 1, "assumptions") is None for each in renamed)

    # Memory

    def _forget_if_full(self) -> None:
        if self._machine.spent > _MOST_SPENT:
            self._spent_before += self._machine.spent
            self._renew()

    def _renew(self) -> None:
        self._machine = models.machine_of(self.program, self._model)
        self._pool = Pool(self._machine, str(self.seed))
        self._standing = Batch(self._machine, {}, _STANDING_ROWS)
        self._batches: dict[tuple[Variable, ...], Batch] = {}
        self._conditional: dict[object, Batch] = {}

    def _give_columns(self, among: Iterable[Variable]) -> None:
        if len(self._standing.given) > _MOST_VARIABLES:
            self._standing = Batch(self._machine, {}, _STANDING_ROWS)
        given = self._standing.given
        for variable in among:
            if variable not in given:
                given[variable] = self._column(variable, len(given))

    def _column(self, variable: Variable, place: int) -> Column:
        seed = f"{self.seed} {place}"
        return assignments.standing(self._pool, variable.sort, _STANDING_ROWS, seed)


def _renamed(statement: Statement) -> tuple[Statement, dict[Variable, Variable]]:
    """The statement with variables named by place, and what they were called."""
    sides = [side for each in statement.equalities() for side in (each.left, each.right)]
    met = dict.fromkeys((*variables(*sides), *statement.variables))
    to = {old: Variable(f"v{number}", old.sort) for number, old in enumerate(met)}
    first, *conditions = (
        Equality(substitute(each.left, to), substitute(each.right, to))
        for each in (statement.conclusion, *statement.conditions)
    )
    renamed = Statement("", tuple(to.values()), tuple(conditions), first)
    return renamed, {new: old for old, new in to.items()}

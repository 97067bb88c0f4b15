"""Terms with the same value as a given one, made of given leaves.

Candidates come by size; each is right on all samples, and what a fresh sample refutes becomes a
sample itself before the enumeration starts anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prover.program import Equality, Statement
from prover.samples.batch import Batch, Column
from prover.samples.samples import Samples
from prover.synthesis.bank import Bank, Entry
from prover.synthesis.wanted import Wanted
from prover.terms import Sort, Symbol, Term, Variable, substitute, variables

_NUM_ROWS = 24
_SMALLER_ROWS = 45  # of the standing ones; the others are larger and test what is found
_FEWEST_ROWS = 8
_MOST_RESTARTS = 4
_MOST_SIZE = 9

Leaf = tuple[Term, Term]
Point = Mapping[Variable, Term]
Asked = dict[tuple[Sort, Column], list[Wanted]]


@dataclass(frozen=True, slots=True)
class Task:
    """A term is wanted that is equal to `target`. A leaf is what stands in the found term and
    what it stands for: a hole and `t[s]`, or a variable and itself. At most `most` terms are
    computed, and none that is equal to a forbidden one."""

    target: Term
    leaves: tuple[Leaf, ...]
    operators: tuple[Symbol, ...]
    most: int
    forbidden: tuple[Term, ...] = ()

    @property
    def variables(self) -> tuple[Variable, ...]:
        return variables(self.target, *(meaning for _, meaning in self.leaves))


@dataclass(frozen=True, slots=True)
class Rows:
    """The samples of a task: where its target and the meaning of each leaf have values."""

    batch: Batch
    target: Column
    leaves: tuple[Column, ...]

    def collisions(self) -> Iterator[tuple[int, int]]:
        """Pairs of rows with the same leaves and different targets: then no term is right."""
        first: dict[Column, int] = {}
        for row in range(self.batch.num_rows):
            key = tuple(column[row] for column in self.leaves)
            other = first.setdefault(key, row)
            if self.target[other] != self.target[row]:
                yield other, row


def rows_of(task: Task, samples: Samples, points: Sequence[Point] = ()) -> Rows | None:
    """Standing samples, and these points; None where too few have values."""
    among = task.variables
    batch = samples.batch(among)
    values = batch.machine.values
    extra = [tuple(values.of(point[each]) for each in among) for point in points]
    given = {
        variable: batch.given[variable][:_SMALLER_ROWS] + tuple(row[place] for row in extra)
        for place, variable in enumerate(among)
    }
    batch = Batch(batch.machine, given, _SMALLER_ROWS + len(extra))
    meanings = [batch.column(meaning) for _, meaning in task.leaves]
    columns = [batch.column(task.target), *meanings, *given.values()]
    whole = [row for row in zip(*columns, strict=True) if None not in row]
    if len(whole) < _FEWEST_ROWS:
        return None
    whole = _spread(list(dict.fromkeys(whole)), len(extra))
    columns = [tuple(column) for column in zip(*whole, strict=True)]
    kept = dict(zip(among, columns[1 + len(meanings) :], strict=True))
    batch = Batch(batch.machine, kept, len(whole))
    return Rows(batch, columns[0], tuple(columns[1 : 1 + len(meanings)]))


def _spread(rows: list[Column], num_last: int) -> list[Column]:
    """At most so many rows, from the smallest to the largest, the last ones whole."""
    if len(rows) <= _NUM_ROWS:
        return rows
    end = len(rows) - num_last
    chosen = [rows[place * end // _NUM_ROWS] for place in range(_NUM_ROWS)]
    return chosen + rows[end:]


def fitting(task: Task, samples: Samples) -> Iterator[Term]:
    """Terms over the leaves with the value of the target, smallest first."""
    points: list[Point] = []
    given: dict[Term, None] = {}
    left = task.most
    for _ in range(_MOST_RESTARTS):
        rows = rows_of(task, samples, points)
        if rows is None or next(rows.collisions(), None) is not None:
            return
        wanted = Wanted(task.target.sort, rows.target)
        asked: Asked = {}
        for each in wanted.columns():
            asked.setdefault((each.sort, each.column), []).append(each)
        bank = Bank(rows.batch, task.operators, left, asked)
        for term in _hits(wanted, asked, _grown(task, rows, bank)):
            point = _failing(task, term, samples)
            if point is not None:
                points.append(point)
                break
            if term not in given:
                given[term] = None
                yield term
        else:
            return
        left = bank.left


def _hits(wanted: Wanted, asked: Asked, grown: Iterator[Entry]) -> Iterator[Term]:
    """Every term that is right on these rows, also where an earlier one was."""
    for term, column in grown:
        for each in asked.get((term.sort, column), ()):
            if each is wanted:
                yield term
            elif each.found is None:
                each.found = term
                if (whole := wanted.assembled()) is not None:
                    yield whole


def _grown(task: Task, rows: Rows, bank: Bank) -> Iterator[Entry]:
    for forbidden in task.forbidden:
        bank.forbid(forbidden.sort, rows.batch.column(forbidden))
    leaves = [(leaf, column) for (leaf, _), column in zip(task.leaves, rows.leaves, strict=True)]
    for symbol in task.operators:
        column = rows.batch.whole(symbol, ()) if not symbol.arguments else None
        if column is not None:
            leaves.append((symbol(), column))
    for leaf, column in leaves:
        bank.add(leaf, column)
        yield leaf, column
    for size in range(2, _MOST_SIZE + 1):
        yield from bank.grow(size)


def _failing(task: Task, term: Term, samples: Samples) -> Point | None:
    """Values for which a candidate is wrong."""
    by = {leaf: meaning for leaf, meaning in task.leaves if isinstance(leaf, Variable)}
    conclusion = Equality(task.target, substitute(term, by))
    statement = Statement("", task.variables, (), conclusion)
    return samples.counterexample(statement)

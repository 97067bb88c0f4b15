"""Tries a statement on rows of values: the smallest first, then larger ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from prover.program import Equality, Statement
from prover.samples import assignments
from prover.samples.assignments import Row
from prover.samples.batch import Batch, Column, first_difference, kept
from prover.samples.machine import Machine
from prover.samples.pool import Pool
from prover.samples.values import as_term
from prover.terms import Sort, Term, Variable

_CHUNK_ROWS = 64
_SMALL, _LARGE = 4 * _CHUNK_ROWS, 2 * _CHUNK_ROWS  # rows for each effort
_ENOUGH_ROWS = 24  # that meet conditions

Values = dict[Variable, Term]


def failing(pool: Pool, statement: Statement, effort: int, seed: str) -> Values | None:
    """Values of all variables that meet the conditions and make the sides differ."""
    left, right = statement.conclusion.left, statement.conclusion.right
    for batch in _batches(pool, statement.conditions, statement.variables, effort, seed):
        row = first_difference(batch, left, right)
        if row is not None:
            columns = [(variable, batch.given[variable]) for variable in statement.variables]
            return {v: as_term(value) for v, c in columns if (value := c[row]) is not None}
    return None


def meeting(pool: Pool, statement: Statement, seed: str) -> Batch:
    """One batch of rows that meet the conditions: few or none where that is rare."""
    among = statement.variables
    rows: list[Row] = []
    for batch in _batches(pool, statement.conditions, among, 1, seed):
        rows += zip(*(batch.given[each] for each in among), strict=True)
        if len(rows) > _ENOUGH_ROWS:
            break
    return _as_batch(pool.machine, among, rows)


def _batches(
    pool: Pool, conditions: Sequence[Equality], among: tuple[Variable, ...], effort: int, seed: str
) -> Iterator[Batch]:
    """Rows without those that miss a condition."""
    sorts = [each.sort for each in among]
    for rows in _rows(pool, tuple(sorts), effort, seed):
        batch = kept(_as_batch(pool.machine, among, rows), conditions)
        if batch.num_rows:
            yield batch


def _rows(pool: Pool, sorts: tuple[Sort, ...], effort: int, seed: str) -> Iterator[list[Row]]:
    """The same chunks for the same sorts: drawn when first asked for, then remembered."""
    small = itertools.islice(assignments.smallest(pool, sorts), effort * _SMALL)
    large = assignments.drawn(pool, sorts, effort * _LARGE, seed) if sorts else iter(())
    drawn = itertools.chain(_chunks(small), _chunks(large))
    known, waiting = pool.rows.setdefault((sorts, effort, seed), ([], drawn))
    for place in itertools.count():
        if place == len(known):
            chunk = next(waiting, None)
            if chunk is None:
                return
            known.append(chunk)
        yield known[place]


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, _CHUNK_ROWS)):
        yield chunk


def _as_batch(machine: Machine, among: tuple[Variable, ...], rows: Sequence[Row]) -> Batch:
    columns: dict[Variable, Column] = {
        variable: tuple(row[place] for row in rows) for place, variable in enumerate(among)
    }
    return Batch(machine, columns, len(rows))

"""Auxiliary values for a step lemma that has none: what a fold must carry along.

Where two samples have the same holes, fields and parameters and yet different targets, no phi over
them exists. An auxiliary l(x) that differs on such samples makes one possible: phi over the
holes, the fields and l(s) (Ji, Zhao, Zhu, Xiong, Hu: AutoLifter, 2021). It is looked for among the
small terms of x, and found for each recursive field alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from prover.samples.batch import Batch, Column
from prover.samples.samples import Samples
from prover.synthesis.bank import Bank
from prover.synthesis.fitting import Task, rows_of
from prover.terms import Kind, Term, Variable, substitute, variables

_MOST_SIZE = 4
_MOST_COLLISIONS = 40


def auxiliaries(
    task: Task, samples: Samples, variable: Variable, recursive: tuple[Variable, ...]
) -> Iterator[Term]:
    """Terms of the variable that tell apart every pair of samples on which the task fails."""
    rows = rows_of(task, samples)
    if rows is None:
        return
    collisions = list(itertools.islice(rows.collisions(), _MOST_COLLISIONS))
    if not collisions:
        return
    others = [leaf for leaf, meaning in task.leaves if leaf is meaning]
    for term in _small_terms(task, samples, variable, others):
        columns = _columns(term, variable, recursive, rows.batch)
        if columns is not None and _separates(columns, collisions):
            yield term


def _small_terms(
    task: Task, samples: Samples, variable: Variable, others: list[Term]
) -> Iterator[Term]:
    """Functions of the variable and of what else is there: no constructor is put around it."""
    among = (variable, *(v for v in variables(*others) if v is not variable))
    batch = samples.batch(among)
    functions = [symbol for symbol in task.operators if symbol.kind is Kind.FUNCTION]
    bank = Bank(batch, functions, task.most)
    for leaf in (variable, *others):
        bank.add(leaf, batch.column(leaf))
    for symbol in task.operators:
        column = batch.whole(symbol, ()) if not symbol.arguments else None
        if column is not None:
            bank.add(symbol(), column)
    for size in range(2, _MOST_SIZE + 1):
        for term, column in bank.grow(size):
            if bank.of(term.sort, column) is term and variable in variables(term):
                yield term


def _columns(
    term: Term, variable: Variable, recursive: tuple[Variable, ...], batch: Batch
) -> list[Column] | None:
    """What the auxiliary is for each recursive field; None where it has no value."""
    columns = [batch.column(substitute(term, {variable: field})) for field in recursive]
    return None if any(None in column for column in columns) else columns


def _separates(columns: list[Column], collisions: list[tuple[int, int]]) -> bool:
    return all(any(column[one] != column[other] for column in columns) for one, other in collisions)

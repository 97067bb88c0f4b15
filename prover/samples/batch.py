"""Many assignments side by side: a term's value in each of them is one column."""

from __future__ import annotations

from collections.abc import Sequence

from prover.builtins import TRUE
from prover.program import Equality
from prover.samples.machine import Machine
from prover.samples.values import Ground, same
from prover.terms import Apply, Kind, Symbol, Term, Variable, subterms

Column = tuple[Ground | None, ...]

_FUEL_EACH = 2_000
_FUEL_WHOLE = 20_000  # for all rows of a column together, before each is computed alone
_FUEL_LATE = 50  # for each further row, once some took too long
_MOST_FAILED = 4
_MOST_TERMS = 20_000


class Batch:
    """Columns of a row for each assignment. None stands where a value cannot be computed."""

    def __init__(self, machine: Machine, columns: dict[Variable, Column], num_rows: int) -> None:
        self.machine, self.num_rows = machine, num_rows
        self.given = columns
        self._known: dict[Term, Column] = {}

    def first(self, num_rows: int) -> Batch:
        """A batch of the first rows alone."""
        columns = {variable: column[:num_rows] for variable, column in self.given.items()}
        return Batch(self.machine, columns, min(num_rows, self.num_rows))

    def column(self, term: Term) -> Column:
        """The values of a term of these variables, computed once for each subterm."""
        known = self._known
        if term in known:
            return known[term]
        if len(known) > _MOST_TERMS:
            known.clear()
        stack = [term]
        while stack:
            part = stack[-1]
            if isinstance(part, Variable):
                known[stack.pop()] = self.given[part]
                continue
            waiting = [each for each in part.arguments if each not in known]
            if waiting:
                stack.extend(waiting)
            else:
                columns = [known[each] for each in part.arguments]
                known[stack.pop()] = self.apply(part.symbol, columns)
        return known[term]

    def apply(self, symbol: Symbol, columns: Sequence[Column]) -> Column:
        """The column of a symbol applied to columns: all that it takes, or fewer."""
        if len(columns) < len(symbol.arguments):
            make = self.machine.values.make
            return tuple(
                None if None in row else make(symbol, row)  # type: ignore[arg-type]
                for row in self._rows(columns)
            )
        if symbol.kind is Kind.BUILTIN and symbol.name == "ite":
            rows = zip(*columns, strict=True)
            return tuple(None if test is None else (a if test else b) for test, a, b in rows)
        return self._compute(symbol, columns)

    def whole(self, symbol: Symbol, columns: Sequence[Column]) -> Column | None:
        """The same fast, of columns without None; None where a single row cannot be computed."""
        if len(columns) < len(symbol.arguments):
            return self.apply(symbol, columns)
        return self.machine.column(symbol, columns, self.num_rows, _FUEL_EACH)

    def _rows(self, columns: Sequence[Column]) -> Sequence[tuple[Ground | None, ...]]:
        return list(zip(*columns, strict=True)) if columns else [()] * self.num_rows

    def _compute(self, symbol: Symbol, columns: Sequence[Column]) -> Column:
        if not any(None in column for column in columns):
            whole = self.machine.column(symbol, columns, self.num_rows, _FUEL_WHOLE)
            if whole is not None:
                return whole
        run = self.machine.run
        found: list[Ground | None] = []
        failed = 0
        for row in self._rows(columns):
            value = None
            if not any(each is None for each in row):
                fuel = _FUEL_EACH if failed < _MOST_FAILED else _FUEL_LATE
                value = run(symbol, row, fuel)  # type: ignore[arg-type]
                failed += value is None
            found.append(value)
        return tuple(found)


def first_difference(batch: Batch, left: Term, right: Term) -> int | None:
    """The first row where both sides have values, and different ones."""
    if left is right:
        return None
    columns = zip(batch.column(left), batch.column(right), strict=True)
    for row, (one, other) in enumerate(columns):
        if one is not other and _are(one, other) is False:
            return row
    return None


def _are(one: Ground | None, other: Ground | None) -> bool | None:
    return None if one is None or other is None else same(one, other)


def kept(batch: Batch, conditions: Sequence[Equality]) -> Batch:
    """The rows that meet the conditions. A variable that one of them says is given that value."""
    if not conditions:
        return batch
    plain = [_unwrapped(condition) for condition in conditions]
    for condition in plain:
        batch = _solved(batch, condition)
    meets = [
        all(_are(one, other) is True for one, other in row)
        for row in zip(
            *(zip(batch.column(c.left), batch.column(c.right), strict=True) for c in plain),
            strict=True,
        )
    ]
    columns: dict[Variable, Column] = {
        variable: tuple(value for value, met in zip(column, meets, strict=True) if met)
        for variable, column in batch.given.items()
    }
    return Batch(batch.machine, columns, sum(meets))


def _unwrapped(condition: Equality) -> Equality:
    """`s = t` of `(= s t) = true`."""
    left = condition.left
    if condition.right is not TRUE or not isinstance(left, Apply) or left.is_partial:
        return condition
    is_equality = left.symbol.name == "=" and left.symbol.kind is Kind.BUILTIN
    return Equality(*left.arguments) if is_equality else condition


def _solved(batch: Batch, condition: Equality) -> Batch:
    for variable, term in (
        (condition.left, condition.right),
        (condition.right, condition.left),
    ):
        if isinstance(variable, Variable) and all(variable is not p for p in subterms(term)):
            pairs = zip(batch.column(term), batch.given[variable], strict=True)
            column = tuple(own if new is None else new for new, own in pairs)
            return Batch(batch.machine, {**batch.given, variable: column}, batch.num_rows)
    return batch

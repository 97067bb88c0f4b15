"""What a term to be found must be in every sample, taken apart where constructors show.

Where a wanted column has one constructor in every row, a term for each field's column will do:
`succ(..)` in every sample asks for what is below it, one size smaller. This is the witness
function of a constructor (Polozov and Gulwani, FlashMeta, 2015).
"""

from __future__ import annotations

from collections.abc import Iterator

from prover.samples.batch import Column
from prover.samples.values import Value
from prover.terms import Kind, Sort, Symbol, Term

_MOST_DEEP = 4


class Wanted:
    """One column that is asked for; `fields` asks for the columns below its constructor."""

    def __init__(self, sort: Sort, column: Column, depth: int = 0) -> None:
        self.sort, self.column = sort, column
        self.found: Term | None = None
        self.constructor = _common(column) if depth < _MOST_DEEP else None
        self.fields: tuple[Wanted, ...] = ()
        if self.constructor is not None:
            rows = [value.fields for value in column if isinstance(value, Value)]
            columns = zip(*rows, strict=True)
            sorts = self.constructor.arguments
            pairs = zip(sorts, columns, strict=True)
            self.fields = tuple(Wanted(field, each, depth + 1) for field, each in pairs)

    def columns(self) -> Iterator[Wanted]:
        """Itself and all that is asked for below."""
        yield self
        for field in self.fields:
            yield from field.columns()

    def assembled(self) -> Term | None:
        """The constructor around what was found for its fields; None while one is missing."""
        if self.found is not None:
            return self.found
        parts = [part for field in self.fields if (part := field.assembled()) is not None]
        if self.constructor is None or len(parts) < len(self.fields):
            return None
        return self.constructor(*parts)


def _common(column: Column) -> Symbol | None:
    """The constructor at the root in every row, if it has fields."""
    heads = dict.fromkeys(value.head if isinstance(value, Value) else None for value in column)
    (head,) = heads if len(heads) == 1 else (None,)
    if head is None or head.kind is not Kind.CONSTRUCTOR or not head.arguments:
        return None
    return head if column and not any(_is_partial(value) for value in column) else None


def _is_partial(value: object) -> bool:
    return isinstance(value, Value) and value.is_function

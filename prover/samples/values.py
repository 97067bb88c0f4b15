"""Ground values as a machine computes with them: one object each, so that equal is identical.

Bool and Int are Python's own. Everything else is a `Value`: a constructor with its fields, an
element of an uninterpreted sort, or a symbol with fewer arguments than it takes.
"""

from __future__ import annotations

from prover.builtins import literal, truth
from prover.terms import Apply, Kind, Symbol, Term, Variable


class Value:
    """A head and its fields. `term` is the same as a term, once somebody asked for it."""

    __slots__ = ("fields", "head", "term")
    head: Symbol
    fields: tuple[Ground, ...]
    term: Apply | None

    def __init__(self, head: Symbol, fields: tuple[Ground, ...]) -> None:
        self.head, self.fields, self.term = head, fields, None

    @property
    def is_function(self) -> bool:
        return len(self.fields) < len(self.head.arguments)


Ground = Value | int
Table = dict[tuple[Ground, ...], Value]


class Values:
    """All values that one machine has met."""

    def __init__(self) -> None:
        self._tables: dict[tuple[Symbol, int], Table] = {}

    def table(self, head: Symbol, num_fields: int) -> Table:
        """The values of a head with so many fields, by their fields."""
        return self._tables.setdefault((head, num_fields), {})

    def make(self, head: Symbol, fields: tuple[Ground, ...]) -> Value:
        """The one value of a head and fields; of a head that is no Bool, literal or builtin."""
        return new(self.table(head, len(fields)), head, fields)

    def of(self, term: Term) -> Ground:
        """The value that a term made of constructors, elements and function values is."""
        done: dict[Term, Ground] = {}
        stack = [term]
        while stack:
            part = stack[-1]
            assert not isinstance(part, Variable)
            waiting = [each for each in part.arguments if each not in done]
            if waiting:
                stack.extend(waiting)
            else:
                done[stack.pop()] = self._root(part, tuple(done[a] for a in part.arguments))
        return done[term]

    def _root(self, part: Apply, fields: tuple[Ground, ...]) -> Ground:
        if part.symbol.kind is Kind.LITERAL:
            return int(part.symbol.name)
        if part is _TRUE or part is _FALSE:
            return part is _TRUE
        return self.make(part.symbol, fields)


_TRUE, _FALSE = truth(True), truth(False)


def new(table: Table, head: Symbol, fields: tuple[Ground, ...]) -> Value:
    """The value of these fields in the table of their head."""
    found = table.get(fields)
    if found is None:
        found = table[fields] = Value(head, fields)
    return found


def as_term(value: Ground) -> Apply:
    """The term that a value is; no deep recursion."""
    stack = [value]
    while stack:
        part = stack[-1]
        if not isinstance(part, Value) or part.term is not None:
            stack.pop()
            continue
        waiting = [f for f in part.fields if isinstance(f, Value) and f.term is None]
        if waiting:
            stack.extend(waiting)
        else:
            part.term = part.head(*map(_ready, part.fields))
    return _ready(value)


def _ready(value: Ground) -> Apply:
    if isinstance(value, Value):
        assert value.term is not None
        return value.term
    return truth(value) if isinstance(value, bool) else literal(value)


def same(left: Ground, right: Ground) -> bool | None:
    """Whether two values of one sort are equal; None where only functions in them differ."""
    stack = [(left, right)]
    known: bool | None = True
    while stack:
        one, other = stack.pop()
        if not isinstance(one, Value) or not isinstance(other, Value):
            if one != other:
                return False
        elif one is not other:
            if one.is_function or other.is_function:
                known = None
            elif one.head is not other.head:
                return False
            else:
                stack.extend(zip(one.fields, other.fields, strict=True))
    return known

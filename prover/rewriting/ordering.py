"""Which of two terms is simpler: the lexicographic path ordering, by how deep definitions stand.

A function stands above all that its equations call. Where the ordering says `s > t`, every
instance of s is above that instance of t, in every place of a term, and nothing descends for ever:
rules that go down in it come to an end (Dershowitz 1982; Baader and Nipkow, 5.4.2).
"""

from __future__ import annotations

from prover.program import Program
from prover.terms import Apply, Kind, Symbol, Term, Variable, subterms, variables

_LARGEST = 120  # symbols on both sides: larger terms are not compared
_PLACE = {Kind.LITERAL: 0, Kind.ELEMENT: 0, Kind.CONSTRUCTOR: 1, Kind.BUILTIN: 2, Kind.FUNCTION: 3}


def ranks(program: Program) -> dict[Symbol, int]:
    """How many definitions stand one above the other: 1 for a function that calls only itself."""
    reached = {symbol: _reached(program, symbol) for symbol in program.functions}
    found: dict[Symbol, int] = {}

    def rank(symbol: Symbol) -> int:
        if symbol not in found:
            below = (s for s in reached[symbol] if symbol not in reached[s])
            found[symbol] = 1 + max((rank(s) for s in below), default=0)
        return found[symbol]

    for symbol in program.functions:
        rank(symbol)
    return found


def _reached(program: Program, symbol: Symbol) -> dict[Symbol, None]:
    """The functions that a function calls, and those that they call."""
    found: dict[Symbol, None] = {}
    waiting = [symbol]
    while waiting:
        for equation in program.functions[waiting.pop()].equations:
            for part in subterms(equation.right):
                if isinstance(part, Apply) and part.symbol in program.functions:
                    if part.symbol not in found:
                        waiting.append(part.symbol)
                    found[part.symbol] = None
    return found


def _place(variable: Variable) -> tuple[str, str]:
    return variable.name.replace("_", ""), variable.name


class Ordering:
    """The ordering of one program.

    `above` holds for all instances; `above_here` takes the variables for constants, ordered by name
    below everything else, and is total on terms of the same variables. A `_` only keeps a name from
    being a symbol's, and counts for nothing.
    """

    def __init__(self, program: Program) -> None:
        self.ranks = ranks(program)
        self._lifted: dict[Symbol, int] = {}
        self._recursive = {s: None for s in program.functions if s in _reached(program, s)}
        met = [*program.free, *program.functions]
        self._index = {symbol: index for index, symbol in enumerate(met)}
        constructors = [c for data in program.data.values() for c in data.constructors]
        self._index |= {symbol: index for index, symbol in enumerate(constructors)}
        self._known: dict[tuple[Term, Term, bool], bool] = {}

    def lift(self, symbol: Symbol, term: Term) -> None:
        """Puts a function above all others in a term, so that calls of it become such terms."""
        others = [part.symbol for part in subterms(term) if isinstance(part, Apply)]
        highest = max((self._rank(s) for s in others if s is not symbol), default=0)
        if highest >= self._rank(symbol):
            self._lifted[symbol] = highest + 1
            self._known.clear()

    def _rank(self, symbol: Symbol) -> int:
        return self._lifted.get(symbol, self.ranks.get(symbol, 0))

    def is_recursive(self, symbol: Symbol) -> bool:
        """Whether the function calls itself, at once or by way of others."""
        return symbol in self._recursive

    def precedence(self, symbol: Symbol) -> tuple[int, int, int, str]:
        name = "" if symbol in self._index else symbol.name
        return (
            _PLACE[symbol.kind],
            self._rank(symbol),
            self._index.get(symbol, 0),
            name,
        )

    def above(self, left: Term, right: Term) -> bool:
        return left.size + right.size <= _LARGEST and self._above(left, right, False)

    def above_here(self, left: Term, right: Term) -> bool:
        return left.size + right.size <= _LARGEST and self._above(left, right, True)

    def _above(self, left: Term, right: Term, here: bool) -> bool:
        if left is right:
            return False
        if isinstance(left, Variable):
            return here and isinstance(right, Variable) and _place(left) > _place(right)
        if isinstance(right, Variable):
            return here or right in variables(left)
        key = (left, right, here)
        if key not in self._known:
            self._known[key] = self._applied(left, right, here)
        return self._known[key]

    def _applied(self, left: Apply, right: Apply, here: bool) -> bool:
        if any(part is right or self._above(part, right, here) for part in left.arguments):
            return True
        one, other = self.precedence(left.symbol), self.precedence(right.symbol)
        if one < other:
            return False
        if one == other and not self._first_difference(left, right, here):
            return False
        return all(self._above(left, part, here) for part in right.arguments)

    def _first_difference(self, left: Apply, right: Apply, here: bool) -> bool:
        for one, other in zip(left.arguments, right.arguments, strict=False):
            if one is not other:
                return self._above(one, other, here)
        return len(left.arguments) > len(right.arguments)

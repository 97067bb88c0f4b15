"""A theory of the library, computed with values of Python.

=========================================  ==============================================
a sort of which nothing is known           any value that hashes
`zero | succ(nat)`                         an int
`nil | cons(a, list)`                      a tuple of what is in it; of pairs, where a
                                           constructor has two fields before the rest
`nowhere | holds(a)`                       None, or the value
=========================================  ==============================================

A function that is free in a theory means a function of Python. The evaluator keeps its calls as
they are, and they are made when its value is read; a predicate is asked of all values at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from prover.builtins import TRUE, truth
from prover.evaluator import Evaluator
from prover.program import Equality, Equation, Function, Program, Statement
from prover.terms import BOOL, Apply, Kind, Sort, Symbol, Term, Variable, substitute

Meaning = Mapping[str, Callable[..., Any]]


class Model:
    """`meaning` names a function of Python for each one that is free in the program."""

    def __init__(self, program: Program, meaning: Meaning) -> None:
        self._program, self._meaning = program, meaning
        self._elements: dict[tuple[Sort, Any], Apply] = {}
        self._values: dict[Term, Any] = {}

    def sides(self, law: Statement, values: Mapping[str, Any]) -> tuple[Any, Any]:
        """The values of a law's sides, where those of its variables meet its conditions."""
        by: dict[Variable, Term] = {v: self._term(v.sort, values[v.name]) for v in law.variables}
        evaluator = Evaluator(replace(self._program, functions=self._functions(), free=()))

        def both(equality: Equality) -> tuple[Any, Any]:
            sides = (substitute(side, by) for side in (equality.left, equality.right))
            left, right = (evaluator.value(side) for side in sides)
            return self._read(left), self._read(right)

        for condition in law.conditions:
            left, right = both(condition)
            assert left == right, f"the values do not meet {condition}"
        return both(law.conclusion)

    def _functions(self) -> dict[Symbol, Function]:
        free = {symbol: Function(symbol, self._equations(symbol)) for symbol in self._program.free}
        return {**self._program.functions, **free}

    def _equations(self, symbol: Symbol) -> tuple[Equation, ...]:
        if symbol.result is not BOOL:
            variables = tuple(Variable(f"x{i}", s) for i, s in enumerate(symbol.arguments))
            kept = Symbol(symbol.name, symbol.arguments, symbol.result, Kind.CONSTRUCTOR)
            return (Equation(symbol(*variables), kept(*variables)),)
        holds = self._meaning[symbol.name]
        known = [[t for (of, _), t in self._elements.items() if of is s] for s in symbol.arguments]
        return tuple(
            Equation(symbol(*terms), truth(holds(*map(self._read, terms))))
            for terms in product(*known)
        )

    def _term(self, sort: Sort, value: Any) -> Apply:
        if sort is BOOL:
            return truth(value)
        if sort not in self._program.data:
            number = len(self._elements)
            element = Symbol(f"!{sort}{number}", (), sort, Kind.ELEMENT)()
            found = self._elements.setdefault((sort, value), element)
            self._values.setdefault(found, value)
            return found
        least, more = self._constructors(sort)
        if more.arguments[-1] is not sort:
            return least() if value is None else more(self._term(more.arguments[0], value))
        term = least()
        for item in reversed([()] * value if isinstance(value, int) else value):
            fields = (item,) if len(more.arguments) == 2 else item
            terms = (self._term(s, f) for s, f in zip(more.arguments[:-1], fields, strict=True))
            term = more(*terms, term)
        return term

    def _constructors(self, sort: Sort) -> tuple[Symbol, Symbol]:
        least, more = self._program.constructors(sort)
        assert not least.arguments
        return least, more

    def _read(self, term: Term) -> Any:
        if term not in self._values:
            self._values[term] = self._look(term)
        return self._values[term]

    def _look(self, term: Term) -> Any:
        assert isinstance(term, Apply)
        if term.sort is BOOL:
            return term is TRUE
        if term.symbol.name in self._meaning:
            return self._meaning[term.symbol.name](*map(self._read, term.arguments))
        least, more = self._constructors(term.sort)
        if more.arguments[-1] is not term.sort:
            return None if term.symbol is least else self._read(term.arguments[0])
        items = tuple(self._items(term, least))
        return len(items) if len(more.arguments) == 1 else items

    def _items(self, term: Term, least: Symbol) -> Iterator[Any]:
        while isinstance(term, Apply) and term.symbol is not least:
            *fields, rest = term.arguments
            read = tuple(map(self._read, fields))
            yield read[0] if len(read) == 1 else read
            term = rest

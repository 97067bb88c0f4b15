"""Digests of definitions: two that differ in names and order alone have the same.

A function's digest is one of its equations, in which every symbol is its digest, and every variable
its place; functions that call each other are told apart in as many rounds as there are of them. A
data type's is one of its constructors. Sorts that are no data types, and free functions, are known
by their shape alone: which of several is meant, `placing` finds out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from prover.components import components
from prover.program import Equation, Program, Statement
from prover.terms import BOOL, INT, Sort, Symbol, Term, Variable

Marks = Mapping[Symbol, str]
_LENGTH = 24  # hexadecimal digits


def digest(*parts: str) -> str:
    """Of a sequence of texts, each as a whole."""
    said = hashlib.sha256()
    for part in parts:
        data = part.encode()
        said.update(len(data).to_bytes(8, "big") + data)
    return said.hexdigest()[:_LENGTH]


class Digests:
    """Of everything that a program defines, declares or assumes."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._sorts: dict[Sort, str] = {}
        self.symbols: dict[Symbol, str] = {}
        self._equations: dict[Symbol, tuple[tuple[int, Equation], ...]] = {}
        for sort in (each for each in program.data if each is not BOOL):
            for place, constructor in enumerate(self.constructors(sort)):
                self.symbols[constructor] = digest("constructor", self.sort(sort), str(place))
        for symbol in program.free:
            self.symbols[symbol] = digest("free", *self._signature(symbol))
        for group in components(program):
            self.symbols |= self._functions(group)
        self.assumptions = {each.name: self._statement(each) for each in program.assumptions}

    def all(self) -> frozenset[str]:
        """What a lemma may speak of here."""
        return frozenset((*self.symbols.values(), *self.assumptions.values()))

    # Sorts

    def sort(self, sort: Sort) -> str:
        if sort not in self._sorts:
            reached = self._reached(sort)
            marks = dict.fromkeys(reached, "data")
            for _ in reached:
                marks = {each: self._fields(each, marks) for each in reached}
            self._sorts[sort] = self._marked(sort, marks)
        return self._sorts[sort]

    def sorts_like(self, wanted: str) -> Iterator[Sort]:
        """The sorts of the program that have a digest, in its order."""
        symbols = self.program.symbols()
        spoken = [sort for each in symbols for sort in (*each.arguments, each.result)]
        named = [v.sort for each in self.program.goals for v in each.variables]
        for sort in dict.fromkeys((*spoken, *named)):
            if self.sort(sort) == wanted:
                yield sort

    def constructors(self, sort: Sort) -> tuple[Symbol, ...]:
        """In an order that does not depend on theirs, but for those that have the same fields."""
        found = self.program.constructors(sort)
        return tuple(sorted(found, key=lambda each: [self.sort(f) for f in each.arguments]))

    def _fields(self, sort: Sort, marks: Mapping[Sort, str]) -> str:
        rows = self.program.constructors(sort)
        told = [digest(*(self._marked(f, marks) for f in c.arguments)) for c in rows]
        return digest("data", *sorted(told))

    def _marked(self, sort: Sort, marks: Mapping[Sort, str]) -> str:
        if sort.is_function:
            return digest("=>", *(self._marked(each, marks) for each in sort.arguments))
        return sort.name if sort is BOOL or sort is INT else marks.get(sort, "sort")

    def _reached(self, sort: Sort) -> list[Sort]:
        """The data types that a sort speaks of."""
        reached: dict[Sort, None] = {}
        waiting = [sort]
        while waiting:
            each = waiting.pop()
            if each in reached:
                continue
            if each.is_function:
                waiting += each.arguments
            elif each in self.program.data and each is not BOOL:
                reached[each] = None
                waiting += [f for c in self.program.constructors(each) for f in c.arguments]
        return list(reached)

    # Functions and statements

    def equations(self, symbol: Symbol) -> tuple[tuple[int, Equation], ...]:
        """With the numbers by which certificates call them, in an order that depends on neither."""
        if symbol not in self._equations:
            numbered = enumerate(self.program.functions[symbol].equations, 1)
            by = sorted(numbered, key=lambda each: self._equation(each[1], self.symbols))
            self._equations[symbol] = tuple(by)
        return self._equations[symbol]

    def _signature(self, symbol: Symbol) -> tuple[str, ...]:
        return tuple(map(self.sort, (*symbol.arguments, symbol.result)))

    def _functions(self, group: Sequence[Symbol]) -> Marks:
        """Of functions that call each other, where all others that they call have theirs."""
        marks = {each: digest("function", *self._signature(each)) for each in group}
        for _ in group:
            known = {**self.symbols, **marks}
            marks = {each: self._function(each, known) for each in group}
        return marks

    def _function(self, symbol: Symbol, marks: Marks) -> str:
        equations = self.program.functions[symbol].equations
        told = sorted(self._equation(each, marks) for each in equations)
        return digest("function", *self._signature(symbol), *told)

    def _equation(self, equation: Equation, marks: Marks) -> str:
        return self._terms((equation.left, equation.right), marks)

    def _statement(self, statement: Statement) -> str:
        sides = [side for each in statement.equalities() for side in (each.left, each.right)]
        return digest("assumption", self._terms(sides, self.symbols))

    def _terms(self, terms: Sequence[Term], marks: Marks) -> str:
        """Symbols by their marks, variables by when they are met."""
        words: list[str] = []
        met: dict[Variable, int] = {}
        stack = [*reversed(terms)]
        while stack:
            part = stack.pop()
            if isinstance(part, Variable):
                words.append(f"?{met.setdefault(part, len(met))} {self.sort(part.sort)}")
                continue
            name = marks.get(part.symbol, part.symbol.name)  # of a builtin or a number
            words.append(f"{name}/{len(part.arguments)}")
            stack.extend(reversed(part.arguments))
        return digest(*words)

"""Computes ground terms by the equations, for tests and for refutations; bounded in steps and time.

It shares no code with what normalises terms in a search, so that what it refutes is refuted by a
second opinion. What it has computed once it remembers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from hashlib import blake2b

from prover.builtins import FALSE, TRUE, reduce
from prover.errors import OutOfFuel, Undecided
from prover.patterns import match
from prover.program import Program, Statement
from prover.terms import (
    INT,
    Apply,
    Kind,
    Sort,
    Symbol,
    Term,
    Variable,
    make,
    show,
    substitute,
    subterms,
)

_NUM_ELEMENTS = 3


class Evaluator:
    """Values of ground terms of one program. Free functions are tables drawn by a seed."""

    def __init__(
        self, program: Program, fuel: int = 100_000, seconds: float = 5.0, seed: int = 0
    ) -> None:
        self.program = program
        self.fuel, self.seed = fuel, seed
        self._ends_s = time.monotonic() + seconds
        self._values: dict[Term, Term] = {}
        self._lowest = _lowest_constructors(program)
        self._places = {each: f"#{number}" for number, each in enumerate(program.symbols())}

    def value(self, term: Term) -> Term:
        """Constructors, literals, elements or a function with too few arguments.

        Raises OutOfFuel past the bounds, Undecided where functions are compared.
        """
        stack = [term]
        while stack:
            part = stack[-1]
            if part in self._values:
                stack.pop()
                continue
            self._spend()
            needs = self._step(part)
            if needs:
                stack.extend(needs)
            else:
                stack.pop()
        return self._values[term]

    def _spend(self) -> None:
        self.fuel -= 1
        if self.fuel < 0:
            raise OutOfFuel("the evaluation took more steps than it was given")
        if self.fuel % 512 == 0 and time.monotonic() > self._ends_s:
            raise OutOfFuel("the evaluation took more time than it was given")

    def _step(self, part: Term) -> list[Term]:
        """Remembers the value of a term, or says whose values are needed first."""
        if isinstance(part, Variable):
            raise Undecided(f"{part.name} has no value")
        if part.symbol.name == "ite" and part.symbol.kind is Kind.BUILTIN and not part.is_partial:
            condition = self._values.get(part.arguments[0])
            if condition is None:
                return [part.arguments[0]]
            return self._same_as(part, part.arguments[1 if condition is TRUE else 2])
        missing = [each for each in part.arguments if each not in self._values]
        if missing:
            return missing
        plain = make(part.symbol, tuple(self._values[each] for each in part.arguments))
        if plain is not part:
            return self._same_as(part, plain)
        return self._root(part)

    def _same_as(self, part: Term, other: Term) -> list[Term]:
        if other not in self._values:
            return [other]
        self._values[part] = self._values[other]
        return []

    def _root(self, part: Apply) -> list[Term]:
        """A symbol applied to values."""
        if part.is_partial or part.is_constructor:
            self._values[part] = part
            return []
        if part.symbol.kind is Kind.BUILTIN:
            return self._same_as(part, self._builtin(part))
        function = self.program.functions.get(part.symbol)
        if function is None:
            return self._same_as(part, self._drawn(part))
        for equation in function.equations:
            bound: dict[Variable, Term] = {}
            if match(equation.left, part, bound):
                return self._same_as(part, substitute(equation.right, bound))
        raise Undecided(f"no equation says what {show(part)} is")

    def _builtin(self, part: Apply) -> Term:
        if part.symbol.name == "=":
            left, right = part.arguments
            return TRUE if left is right else self._differ(left, right)
        new = reduce(part)
        if new is part:
            raise Undecided(f"{show(part)} has no value")
        return new

    def _differ(self, left: Term, right: Term) -> Term:
        """FALSE for different values, unless only functions inside them differ."""
        stack = [(left, right)]
        undecided = False
        while stack:
            a, b = stack.pop()
            if a is b:
                continue
            assert isinstance(a, Apply)
            assert isinstance(b, Apply)
            if a.sort.is_function:
                undecided = True
            elif a.symbol is not b.symbol:
                return FALSE
            else:
                stack.extend(zip(a.arguments, b.arguments, strict=True))
        if undecided:
            raise Undecided("two functions are compared")
        return FALSE

    def _drawn(self, part: Apply) -> Term:
        """The value of a free function: drawn by seed, symbol and arguments, always the same.

        Of functions it has none: two that are written differently may be equal.
        """
        if any(inner.sort.is_function for each in part.arguments for inner in subterms(each)):
            raise Undecided(f"{part.symbol.name} is free and takes a function")
        digest = blake2b(f"{self.seed} {self._spelled(part)}".encode(), digest_size=8).digest()
        return self.small(part.sort, int.from_bytes(digest, "big"))

    def _spelled(self, part: Apply) -> str:
        """The term, whatever its symbols are called: by their places in the program."""
        words: list[str] = []
        stack: list[Term] = [part]
        while stack:
            term = stack.pop()
            assert isinstance(term, Apply)
            name = term.symbol.name.removeprefix(f"!{term.sort}")
            words.append(f"{self._places.get(term.symbol, name)}/{len(term.arguments)}")
            stack.extend(reversed(term.arguments))
        return " ".join(words)

    def small(self, sort: Sort, choice: int, depth: int = 3) -> Term:
        """A small value of a sort; different choices give different ones, as far as there are."""
        if sort is INT:
            return Symbol(str(choice % 7 - 2), (), INT, Kind.LITERAL)()
        if sort.is_function:
            takes, gives = sort.arguments
            return Symbol(f"!f{choice % 5}", (takes,), gives, Kind.FUNCTION)()
        constructors = self.program.constructors(sort)
        if not constructors:
            return Symbol(f"!{sort}{choice % _NUM_ELEMENTS}", (), sort, Kind.ELEMENT)()
        chosen = constructors[choice % len(constructors)] if depth > 0 else self._lowest[sort]
        fields = []
        for index, field in enumerate(chosen.arguments):
            below = blake2b(f"{choice} {index}".encode(), digest_size=8).digest()
            fields.append(self.small(field, int.from_bytes(below, "big"), depth - 1))
        return chosen(*fields)

    def equal(self, left: Term, right: Term) -> bool:
        """Whether two ground terms have the same value."""
        one, other = self.value(left), self.value(right)
        return one is other or self._differ(one, other) is TRUE

    def refutes(self, statement: Statement, values: Mapping[Variable, Term]) -> bool:
        """Whether these values meet the conditions and make the sides different."""
        for condition in statement.conditions:
            left, right = (substitute(s, values) for s in (condition.left, condition.right))
            if not self.equal(left, right):
                return False
        sides = (statement.conclusion.left, statement.conclusion.right)
        left, right = (substitute(side, values) for side in sides)
        return not self.equal(left, right)


def _lowest_constructors(program: Program) -> dict[Sort, Symbol]:
    """For each data type a constructor from which values come to an end soonest."""
    found: dict[Sort, Symbol] = {}
    while len(found) < len(program.data):
        ended = {
            sort: constructor
            for sort, data in program.data.items()
            if sort not in found
            for constructor in reversed(data.constructors)
            if all(f in found or f not in program.data for f in constructor.arguments)
        }
        if not ended:
            break  # a data type without a value, which the checks refuse
        found |= ended
    return found

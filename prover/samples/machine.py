"""Computes by the equations, which are compiled to Python: many times faster than rewriting terms.

Each function becomes one Python function that remembers what it gave, counts its calls against
`fuel` and knows how deep it is called. What cannot be computed within these bounds raises
OutOfFuel; `evaluator` stays the second opinion on what is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from prover.errors import OutOfFuel, Undecided
from prover.evaluator import Evaluator
from prover.program import Function, Program
from prover.samples.values import Ground, Value, Values, as_term, new, same
from prover.terms import BOOL, Apply, Kind, Symbol, Term, Variable, subterms

MOST_DEEP = 400
MOST_BITS = 4096
_MOST_NESTED = 40
_DRAW_COSTS = 20  # calls: what the table of a free function takes longer

# Takes the arguments, and how deep the call is.
Compiled = Callable[..., Ground]


class Machine:
    """The functions of one program as compiled code. Free ones are the tables of an `Evaluator`.

    `spent` counts the calls of functions.
    """

    def __init__(self, program: Program) -> None:
        self.program, self.values = program, Values()
        self.fuel, self.spent = 0, 0
        self.draw = Evaluator(program, fuel=2**60, seconds=math.inf)
        self._compiled: dict[Symbol, Compiled] = {}
        self._names: dict[str, Any] = {
            "new": new, "give": self.apply, "spend": self._spend, "same": _same,
            "times": _times, "div": _div, "mod": _mod,
        }  # fmt: skip
        self._named: dict[object, str] = {}

    def run(self, symbol: Symbol, arguments: tuple[Ground, ...], fuel: int) -> Ground | None:
        """What a symbol gives; None where it takes more fuel or has no value."""
        self.fuel = fuel
        try:
            return self.function(symbol)(*arguments, 0)
        except (OutOfFuel, Undecided, RecursionError):
            return None
        finally:
            self.spent += fuel - max(self.fuel, 0)

    def column(
        self, symbol: Symbol, columns: Sequence[Sequence[Any]], num_rows: int, fuel: int
    ) -> tuple[Ground, ...] | None:
        """What a symbol gives in every row, with fuel for all together; None where one has none."""
        self.fuel = fuel
        try:
            return tuple(map(self.function(symbol), *columns, repeat(0, num_rows)))
        except (OutOfFuel, Undecided, RecursionError):
            return None
        finally:
            self.spent += fuel - max(self.fuel, 0)

    def interpret(self, symbol: Symbol, by: Compiled) -> None:
        """Lets a free function be computed by code of one's own, before anything is."""
        self._compiled[symbol] = by

    def function(self, symbol: Symbol) -> Compiled:
        """The compiled code of any symbol."""
        found = self._compiled.get(symbol)
        if found is None:
            found = self._compiled[symbol] = self._compile(symbol)
        return found

    def apply(self, function: Value, argument: Ground, depth: int) -> Ground:
        """One argument more: the result, or a function value that waits for the rest."""
        arguments = (*function.fields, argument)
        if len(arguments) < len(function.head.arguments):
            return self.values.make(function.head, arguments)
        if depth > MOST_DEEP:
            raise OutOfFuel("too deep")
        return self.function(function.head)(*arguments, depth + 1)

    def _spend(self, depth: int) -> None:
        self.fuel -= 1
        if self.fuel < 0 or depth > MOST_DEEP:
            raise OutOfFuel("the evaluation took more steps than it was given")

    def _compile(self, symbol: Symbol) -> Compiled:
        function = self.program.functions.get(symbol)
        if function is not None:
            return self._define(function)
        if symbol.kind is Kind.FUNCTION:
            return self._table(symbol)
        scope = {Variable(f"x{n}", s): f"x{n}" for n, s in enumerate(symbol.arguments)}
        body = self._expression(symbol(*scope), scope)
        compiled: Compiled = self._python(f"lambda {', '.join([*scope.values(), 'e'])}: {body}")
        return compiled

    def _table(self, symbol: Symbol) -> Compiled:
        known: dict[tuple[Ground, ...], Ground] = {}

        def look(*arguments: Any) -> Ground:
            found = known.get(arguments)
            if found is None:
                self.fuel -= _DRAW_COSTS
                self._spend(arguments[-1])
                drawn = self.draw.value(symbol(*map(as_term, arguments[:-1])))
                found = known[arguments] = self.values.of(drawn)
            return found

        return look

    def _define(self, function: Function) -> Compiled:
        memory: dict[Any, Ground] = {}
        name = self._name(function.symbol)
        self._names[f"{name}_memory"] = memory
        try:
            source = "\n".join(self._lines(function, name))
            code = compile(source, f"<{function.symbol.name}>", "exec")
        except (SyntaxError, RecursionError, MemoryError):
            return _too_nested
        exec(code, self._names)
        compiled: Compiled = self._names[f"{name}_run"]
        return compiled

    def _lines(self, function: Function, name: str) -> Iterator[str]:
        arguments = [f"a{n}" for n in range(len(function.symbol.arguments))]
        key = f"({', '.join(arguments)}{',' if len(arguments) == 1 else ''})"
        yield f"def {name}_run({', '.join([*arguments, 'd'])}):"
        yield f"    m = {key}"
        yield f"    r = {name}_memory.get(m)"
        yield "    if r is not None: return r"
        yield "    spend(d)"
        yield "    e = d + 1"
        word = "if"
        for equation in function.equations:
            tests: list[str] = []
            scope: dict[Variable, str] = {}
            for pattern, argument in zip(equation.left.arguments, arguments, strict=True):
                self._pattern(pattern, argument, tests, scope)
            yield f"    {word} {' and '.join(tests) or 'True'}:"
            yield f"        r = {self._expression(equation.right, scope)}"
            word = "elif"
        yield f"    {name}_memory[m] = r"
        yield "    return r"

    def _pattern(
        self, pattern: Term, at: str, tests: list[str], scope: dict[Variable, str]
    ) -> None:
        if isinstance(pattern, Variable):
            scope[pattern] = at
        elif pattern.sort is BOOL:
            tests.append(at if pattern.symbol.name == "true" else f"not {at}")
        else:
            tests.append(f"{at}.head is {self._constant(pattern.symbol)}")
            for number, field in enumerate(pattern.arguments):
                self._pattern(field, f"{at}.fields[{number}]", tests, scope)

    def _expression(self, term: Term, scope: Mapping[Variable, str], nested: int = 0) -> str:
        """Python that computes a term, one call deeper than `d`."""
        if isinstance(term, Variable):
            return scope[term]
        if nested > _MOST_NESTED:
            raise MemoryError("too nested for Python's parser")
        if _is_value(term):
            value = self.values.of(term)
            return repr(value) if not isinstance(value, Value) else self._constant(value)
        inner = [self._expression(each, scope, nested + 1) for each in term.arguments]
        if term.symbol.kind is Kind.BUILTIN and not term.is_partial:
            return _BUILTINS[term.symbol.name].format(*inner)
        if term.is_partial or term.is_constructor:
            head, table = self._constant(term.symbol), self._fields(term)
            key = f"(k := ({', '.join(inner)},))" if inner else "(k := ())"
            return f"({table}.get({key}) or new({table}, {head}, k))"
        return f"{self._called(term.symbol)}({', '.join([*inner, 'e'])})"

    def _called(self, symbol: Symbol) -> str:
        """The name of a function, compiled when it is first called."""
        name = f"{self._name(symbol)}_call"
        if name not in self._names:

            def first(*arguments: Any) -> Ground:
                self._names[name] = self.function(symbol)
                return self.function(symbol)(*arguments)

            self._names[name] = first
        return name

    def _fields(self, term: Apply) -> str:
        table = self.values.table(term.symbol, len(term.arguments))
        name = f"t{len(term.arguments)}_{self._name(term.symbol)}"
        self._names[name] = table
        return name

    def _constant(self, value: object) -> str:
        name = self._name(value)
        self._names[name] = value
        return name

    def _name(self, thing: object) -> str:
        return self._named.setdefault(thing, f"n{len(self._named)}")

    def _python(self, source: str) -> Any:
        return eval(compile(source, "<symbol>", "eval"), self._names)


def _is_value(term: Apply) -> bool:
    """Whether it is ground and made of constructors alone."""
    return term.is_ground and all(
        isinstance(part, Apply) and part.is_constructor for part in subterms(term)
    )


_BUILTINS = {
    "not": "(not {0})",
    "and": "({0} and {1})",
    "or": "({0} or {1})",
    "=>": "(not {0} or {1})",
    "ite": "({1} if {0} else {2})",
    "=": "same({0}, {1})",
    "@": "give({0}, {1}, e)",
    "+": "({0} + {1})",
    "-": "({0} - {1})",
    "*": "times({0}, {1})",
    "div": "div({0}, {1})",
    "mod": "mod({0}, {1})",
    "<": "({0} < {1})",
    "<=": "({0} <= {1})",
}


def _same(left: Ground, right: Ground) -> bool:
    if left is right:
        return True
    found = same(left, right)
    if found is None:
        raise Undecided("two functions are compared")
    return found


def _times(left: int, right: int) -> int:
    if max(left.bit_length(), right.bit_length()) > MOST_BITS:
        raise OutOfFuel("a number became too long")
    return left * right


def _div(left: int, right: int) -> int:
    return (left - _mod(left, right)) // right


def _mod(left: int, right: int) -> int:
    """SMT-LIB's: never negative. Division by zero is a free function there, and none here."""
    if right == 0:
        raise Undecided("a division by zero")
    return left % abs(right)


def _too_nested(*_arguments: Ground) -> Ground:
    raise OutOfFuel("an equation is too nested to be compiled")

"""Free functions that assumptions speak of, made so that the assumptions hold.

A function without any assumption is a table. Where there are some, an operation on finite words
is looked for that keeps them: words, with concatenation and the empty word, are the freest monoid,
and bags and sets of letters the freest commutative and idempotent ones, so that they tell apart
whatever the assumptions leave different. The elements of a sort are the words of one letter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from prover.errors import Undecided
from prover.program import Program
from prover.samples.machine import Compiled, Machine
from prover.samples.values import Ground, Value, Values
from prover.terms import Apply, Kind, Sort, Symbol, subterms

_MOST_TRIED = 100

_OPERATIONS: tuple[Callable[[str, str], str], ...] = (
    lambda one, other: one + other,
    lambda one, other: "".join(sorted(one + other)),
    lambda one, other: "".join(sorted(dict.fromkeys(one + other))),
    lambda one, _other: one,
    lambda _one, other: other,
)

# None: a table, as for a function without assumptions.
Interpretation = Callable[[Values], Compiled] | None
Model = tuple[tuple[Symbol, Interpretation], ...]


def constrained(program: Program) -> tuple[Symbol, ...]:
    """The free functions that assumptions name."""
    named = {
        part.symbol: None
        for assumption in program.assumptions
        for equality in assumption.equalities()
        for side in (equality.left, equality.right)
        for part in subterms(side)
        if isinstance(part, Apply)
    }
    return tuple(symbol for symbol in program.free if symbol in named)


def machine_of(program: Program, model: Model) -> Machine:
    """A machine whose free functions are as a model says."""
    machine = Machine(program)
    for symbol, interpretation in model:
        if interpretation is not None:
            machine.interpret(symbol, interpretation(machine.values))
    return machine


def find(program: Program, keeps: Callable[[Machine], bool]) -> Model:
    """The first model that keeps the assumptions, most telling first.

    Where none does, the functions have no value at all: nothing is concluded from them.
    """
    symbols = constrained(program)
    choices = [tuple(_candidates(program, symbol)) for symbol in symbols]
    for chosen in itertools.islice(itertools.product(*choices), _MOST_TRIED):
        model = tuple(zip(symbols, chosen, strict=True))
        if keeps(machine_of(program, model)):
            return model
    return tuple((symbol, _unknown) for symbol in symbols)


def _candidates(program: Program, symbol: Symbol) -> Iterator[Interpretation]:
    sort = symbol.result
    is_open = not sort.is_function and not program.constructors(sort) and sort.name != "Int"
    if is_open and symbol.arguments == (sort, sort):
        for operation in _OPERATIONS:
            yield _on_words(sort, operation)
    if is_open and not symbol.arguments:
        yield _empty_word(sort)
    if symbol.arguments == (sort,):
        yield _same
    yield None


def _word(values: Values, sort: Sort, letters: str) -> Value:
    return values.make(Symbol(f"!{sort}{letters}", (), sort, Kind.ELEMENT), ())


def _on_words(sort: Sort, operation: Callable[[str, str], str]) -> Interpretation:
    before = len(f"!{sort}")

    def of(values: Values) -> Compiled:
        def compute(one: Value, other: Value, _depth: int) -> Ground:
            return _word(values, sort, operation(one.head.name[before:], other.head.name[before:]))

        return compute

    return of


def _empty_word(sort: Sort) -> Interpretation:
    return lambda values: lambda _depth: _word(values, sort, "")


def _same(_values: Values) -> Compiled:
    return lambda value, _depth: value


def _unknown(_values: Values) -> Compiled:
    def compute(*_arguments: Ground) -> Ground:
        raise Undecided("no model of the assumptions was found")

    return compute

"""From the bytes of a file to a program; the only door to the readers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from prover.errors import Place, SourceError
from prover.program import BOOL_TYPE, DataType, Equation, Function, Program, Statement
from prover.syntax.declarations import declare
from prover.syntax.elaborate import Elaborator
from prover.syntax.instances import Instances
from prover.syntax.order import ordered_assumptions, ordered_equations
from prover.syntax.scope import QuantifierError
from prover.syntax.sexpr import MOST_BYTES, Source, read
from prover.syntax.signature import Signature
from prover.syntax.statements import (
    completion,
    define_by_assertions,
    define_by_equations,
    statement,
    used_symbols,
)
from prover.syntax.surface import declare_surface
from prover.terms import BOOL, Kind, Sort, Symbol, Term, subterms

# A node may be nested `sexpr.MOST_NESTED` deep and each level takes a few frames of Python.
_FRAMES = 20_000


def load(path: Path) -> Program:
    """The program in a file; its ending says the language: `.prove` is our own."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SourceError(error.strerror or "cannot be read", Place(str(path), 1, 1)) from None
    return parse(data, str(path))


def parse(data: bytes, file: str = "<text>") -> Program:
    """The program in a text of SMT-LIB, TIP or, where `file` ends in .prove, our own language."""
    source = Source.of_bytes(data, file)
    with _deep_recursion():
        if file.endswith(".prove"):
            signature = declare_surface(source)
        else:
            signature = declare(source, read(source))
        return assemble(signature)


@contextmanager
def _deep_recursion() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def assemble(signature: Signature) -> Program:
    """The program of a signature: all that its goals and assumptions speak of."""
    elaborator = Elaborator(signature)
    asserted, left_out = [], []
    for index, node in enumerate(signature.assertions, 1):
        try:
            asserted.append(statement(elaborator, f"assumption-{index}", node))
        except QuantifierError as error:
            left_out.append(str(error))
    # A premise becomes an assumption of all goals, so it is read where there is one goal alone.
    premises: list[Statement] | None = [] if len(signature.goals) == 1 else None
    goals = tuple(
        statement(elaborator, name, node, premises) for name, node in signature.goals.items()
    )
    by_equations = define_by_equations(elaborator)
    elaborator.functions.run_waiting()
    defined, assumed = define_by_assertions(elaborator, asserted)
    for premise in premises or ():
        assumed.append(replace(premise, name=f"assumption-{len(assumed) + 1}"))
    for symbol in elaborator.fields.selectors:
        partial = elaborator.instances.equations[symbol]
        partial.extend(completion(elaborator, symbol, partial))
    constructors = elaborator.instances.constructors
    stated = {**defined, **by_equations}
    equations: dict[Symbol, tuple[Equation, ...]] = {
        **{symbol: tuple(of) for symbol, of in elaborator.instances.equations.items()},
        **{symbol: ordered_equations(of, constructors) for symbol, of in stated.items()},
    }
    program = _reachable(elaborator.instances, equations, goals, tuple(assumed))
    return replace(program, left_out=tuple(left_out))


def _reachable(
    instances: Instances,
    equations: Mapping[Symbol, tuple[Equation, ...]],
    goals: tuple[Statement, ...],
    assumed: Iterable[Statement],
) -> Program:
    file = instances.signature.source.file
    found = Program(file, {BOOL: BOOL_TYPE}, {}, (), (), goals)
    found = _with_all_of(found, instances, equations, goals)
    places = {symbol: number for number, symbol in enumerate(found.symbols())}
    ordered = ordered_assumptions(assumed, places)
    found = _with_all_of(found, instances, equations, ordered)
    return replace(found, assumptions=ordered)


def _with_all_of(
    program: Program,
    instances: Instances,
    equations: Mapping[Symbol, tuple[Equation, ...]],
    statements: Iterable[Statement],
) -> Program:
    """With what the statements speak of, in the order in which they come to it."""
    waiting: list[Term] = []
    for each in statements:
        waiting += each.variables
        waiting += [side for e in each.equalities() for side in (e.left, e.right)]
    data, functions = dict(program.data), dict(program.functions)
    free = dict.fromkeys(program.free)
    while waiting:
        new, waiting = waiting, []
        for symbol in used_symbols(new):
            if symbol.kind is not Kind.FUNCTION or symbol in functions or symbol in free:
                continue
            if symbol in equations:
                functions[symbol] = Function(symbol, equations[symbol])
                waiting += [side for e in equations[symbol] for side in (e.left, e.right)]
            else:
                free[symbol] = None
        _add_data(instances, data, [part.sort for term in new for part in subterms(term)])
    return replace(program, data=data, functions=functions, free=tuple(free))


def _add_data(instances: Instances, data: dict[Sort, DataType], sorts: list[Sort]) -> None:
    """Adds the data types of these sorts, and of the sorts inside them and their fields."""
    while sorts:
        sort = sorts.pop()
        sorts += sort.arguments if sort.is_function else ()
        found = instances.data(sort) if sort not in data else None
        if found is not None:
            data[sort] = found
            sorts += [field for c in found.constructors for field in c.arguments]

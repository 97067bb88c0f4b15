"""Definitions that must not be reasoned about are refused here, by name and with the reason.

A function must be given for all arguments, say one thing on each, and come to an end
(`termination`).

A data type must have a value, and must not take functions of itself: `make: (t => Bool) => t` would
let a program run for ever without any recursion.
"""

from __future__ import annotations

from prover.errors import Inadmissible
from prover.patterns import are_patterns, clash, gaps
from prover.program import Equation, Function, Program
from prover.termination import check_termination
from prover.terms import Kind, Sort, Symbol, show, variables


def check(program: Program) -> None:
    """Raises Inadmissible for the first definition that does not define."""
    for sort in program.data:
        _check_data(program, sort)
    _check_inhabited(program)
    for function in program.functions.values():
        _check_equations(program, function)
    check_termination(program)


def _check_data(program: Program, sort: Sort) -> None:
    reached: dict[Sort, None] = {}
    waiting = [field for c in program.constructors(sort) for field in c.arguments]
    while waiting:
        field = waiting.pop()
        if field in reached:
            continue
        reached[field] = None
        if field.is_function and sort in _reachable_sorts(program, field):
            raise Inadmissible(sort.name, f"a constructor takes functions of {sort} itself")
        waiting += field.arguments
        waiting += [inner for c in program.constructors(field) for inner in c.arguments]


def _reachable_sorts(program: Program, sort: Sort) -> dict[Sort, None]:
    reached: dict[Sort, None] = {}
    waiting = [sort]
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached[each] = None
            waiting += each.arguments
            waiting += [inner for c in program.constructors(each) for inner in c.arguments]
    return reached


def _check_inhabited(program: Program) -> None:
    """Every data type must have a value; sorts that are no data types have one by definition."""
    empty = dict.fromkeys(program.data)
    found = True
    while found:
        found = False
        for sort in tuple(empty):  # a copy: what has a value leaves it
            constructors = program.constructors(sort)
            if any(all(f not in empty for f in c.arguments) for c in constructors):
                del empty[sort]
                found = True
    for sort in empty:
        raise Inadmissible(sort.name, "the data type has no value")


def _check_equations(program: Program, function: Function) -> None:
    symbol, equations = function.symbol, function.equations
    for equation in equations:
        _check_shape(symbol, equation)
    rows = [equation.left.arguments for equation in equations]
    for gap in gaps(program.constructors, rows, symbol.arguments):
        raise Inadmissible(symbol.name, f"it does not say what {show(symbol(*gap))} is")
    for index, first in enumerate(equations):
        for second in equations[index + 1 :]:
            where = clash(first, second)
            if where is not None:
                raise Inadmissible(symbol.name, f"two equations disagree on {show(where)}")


def _check_shape(symbol: Symbol, equation: Equation) -> None:
    left, right = equation.left, equation.right
    is_function = left.symbol is symbol and symbol.kind is Kind.FUNCTION and not left.is_partial
    if not is_function or not are_patterns(left.arguments):
        raise Inadmissible(symbol.name, f"{equation} is no equation of linear patterns")
    bound = variables(left)
    if any(variable not in bound for variable in variables(right)):
        raise Inadmissible(symbol.name, f"{equation} has a variable on the right alone")
    if left.sort is not right.sort:
        raise Inadmissible(symbol.name, f"{equation} equates different sorts")

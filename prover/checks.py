"""Definitions that must not be reasoned about are refused here, by name and with the reason.

A function must be given for all arguments, say one thing on each, and come to an end. The last is
the size-change principle: in every cycle of calls some argument must get smaller for ever, counted
in constructors. A call relates the caller's patterns to the callee's arguments; calls are
composed until nothing new arises, and every call from a function to itself that is its own square
must make one argument strictly smaller. A function used as a value counts as called with anything.

A data type must have a value, and must not take functions of itself: `make: (t => Bool) => t` would
let a program run for ever without any recursion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prover.errors import Inadmissible
from prover.patterns import are_patterns, clash, gaps
from prover.program import Equation, Function, Program
from prover.terms import (
    Apply,
    Kind,
    Sort,
    Symbol,
    Term,
    Variable,
    show,
    subterms,
    variables,
)

MOST_CALLS = 20_000

# Which argument of the caller bounds which of the callee, and whether strictly.
Change = tuple[tuple[int, int, bool], ...]
Call = tuple[Symbol, Symbol, Change]


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


# Termination


def check_termination(program: Program) -> None:
    """Raises Inadmissible for a function whose calls may go on for ever."""
    calls: dict[Call, None] = {}
    for function in program.functions.values():
        for equation in function.equations:
            for call in _calls(program, equation):
                calls[call] = None
    component = _components(program, calls)
    inside = [call for call in calls if component[call[0]] == component[call[1]]]
    for caller, callee, change in _compose_all(inside):
        returns = caller is callee and _compose(change, change) == change
        if returns and not any(i == j and strict for i, j, strict in change):
            reason = "it may not terminate: no argument gets structurally smaller"
            raise Inadmissible(caller.name, reason)


def _calls(program: Program, equation: Equation) -> Iterator[Call]:
    patterns = equation.left.arguments
    for part in subterms(equation.right):
        if isinstance(part, Apply) and part.symbol in program.functions:
            change = [
                (i, j, by > 0)
                for j, argument in enumerate(part.arguments)
                for i, pattern in enumerate(patterns)
                if (by := _shrinks_by(pattern, argument)) is not None
            ]
            yield equation.left.symbol, part.symbol, tuple(sorted(change))


def _shrinks_by(pattern: Term, argument: Term) -> int | None:
    """How much smaller the argument is at least, whatever its variables are; None if it may grow.

    The size of a value counts its constructors, and one for all that is no data.
    """
    before, after = _size(pattern), _size(argument)
    if before is None or after is None:
        return None
    by = before[0] - after[0]
    left = list(before[1])
    for variable in after[1]:
        if variable not in left:
            return None
        left.remove(variable)
    by += len(left)
    return by if by >= 0 else None


def _size(term: Term) -> tuple[int, list[Variable]] | None:
    """Constructors and variables of a term that is made of nothing else."""
    count = 0
    found: list[Variable] = []
    stack = [term]
    while stack:
        part = stack.pop()
        if isinstance(part, Variable):
            found.append(part)
        elif part.is_constructor and part.symbol.kind is Kind.CONSTRUCTOR:
            count += 1
            stack.extend(part.arguments)
        else:
            return None
    return count, found


def _components(program: Program, calls: dict[Call, None]) -> dict[Symbol, int]:
    """The number of the strongly connected component of each function (Tarjan, with a stack)."""
    called: dict[Symbol, list[Symbol]] = {symbol: [] for symbol in program.functions}
    for caller, callee, _ in calls:
        called[caller].append(callee)
    order: dict[Symbol, int] = {}
    low: dict[Symbol, int] = {}
    component: dict[Symbol, int] = {}
    opened: list[Symbol] = []
    for root, callees in called.items():
        work = [] if root in order else [(root, iter(callees))]
        while work:
            symbol, rest = work[-1]
            if symbol not in order:
                order[symbol] = low[symbol] = len(order)
                opened.append(symbol)
            following = next((s for s in rest if s not in component), None)
            if following is not None and following not in order:
                work.append((following, iter(called[following])))
                continue
            if following is not None:
                low[symbol] = min(low[symbol], order[following])
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[symbol])
            if low[symbol] == order[symbol]:
                while symbol not in component:
                    component[opened.pop()] = order[symbol]
    return component


def _compose(first: Change, second: Change) -> Change:
    """What two calls after each other do to the arguments."""
    found: dict[tuple[int, int], bool] = {}
    for i, j, strict in first:
        for k, m, stricter in second:
            if j == k:
                found[i, m] = found.get((i, m), False) or strict or stricter
    return tuple(sorted((i, j, strict) for (i, j), strict in found.items()))


def _compose_all(calls: Sequence[Call]) -> Iterator[Call]:
    """All calls and what they compose to."""
    met = dict.fromkeys(calls)
    by_caller: dict[Symbol, list[Call]] = {}
    for call in calls:
        by_caller.setdefault(call[0], []).append(call)
    waiting = list(met)
    while waiting:
        call = waiting.pop()
        yield call
        for following in by_caller.get(call[1], ()):
            new = (call[0], following[1], _compose(call[2], following[2]))
            if new not in met:
                met[new] = None
                waiting.append(new)
        if len(met) > MOST_CALLS:
            raise Inadmissible(call[0].name, "its calls take too long to check for termination")

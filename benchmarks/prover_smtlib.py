"""A problem that was read, as SMT-LIB 2.6 for another prover: every equation is an assertion.

Every name is quoted and gets a prefix, so that none is one of a theory. Functions are values of
sorts of their own: `apply` computes one on an argument, and what is partially applied is a function
symbol with an equation. Those sorts may hold other things too, so what is proved holds here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prover.builtins import FALSE, TRUE
from prover.program import Equality, Program, Statement
from prover.terms import (
    BOOL,
    INT,
    Apply,
    Kind,
    Sort,
    Symbol,
    Term,
    Variable,
    function_sort,
    make,
    subterms,
    variables,
)

_PREDICATE = "|wrapped|"


def plain(program: Program, goal: Statement) -> str:
    """The problem with the negation of the goal."""
    said = _formula(goal.variables, _implication(goal))
    return "\n".join([*_theory(program, goal), f"(assert (not {said}))", "(check-sat)", ""])


def wrapped(program: Program, goal: Statement, on: Variable) -> str:
    """The same goal as a predicate of one variable, so that an induction on it keeps the others
    general: `P x` says that the goal holds of x and all values of the others."""
    others = tuple(variable for variable in goal.variables if variable is not on)
    inner = _formula(others, _implication(goal))
    call = f"({_PREDICATE} {_variable(on)})"
    lines = [
        f"(declare-fun {_PREDICATE} ({_sort(on.sort)}) Bool)",
        f"(assert {_formula((on,), f'(= {call} {inner})')})",
        f"(assert (not {_formula((on,), call)}))",
    ]
    return "\n".join([*_theory(program, goal), *lines, "(check-sat)", ""])


def inducible(program: Program, goal: Statement) -> tuple[Variable, ...]:
    """The variables of data types that are not just choices."""
    return tuple(
        variable
        for variable in goal.variables
        if any(constructor.arguments for constructor in program.constructors(variable.sort))
    )


def _theory(program: Program, goal: Statement) -> Iterator[str]:
    statements = (*program.assumptions, goal)
    equations = [e for function in program.functions.values() for e in function.equations]
    terms: list[Term] = [side for e in equations for side in (e.left, e.right)]
    for each in statements:
        terms += each.variables
        terms += [side for e in each.equalities() for side in (e.left, e.right)]
    parts = list(dict.fromkeys(part for term in terms for part in subterms(term)))
    partial = _partial(parts)
    yield "(set-logic ALL)"
    yield from _sorts(program, parts)
    for symbol in (*program.functions, *program.free):
        takes = " ".join(map(_sort, symbol.arguments))
        yield f"(declare-fun {_symbol(symbol)} ({takes}) {_sort(symbol.result)})"
    yield from _functions_as_values(parts, partial)
    for equation in equations:
        said = _equality(Equality(equation.left, equation.right))
        yield f"(assert {_formula(variables(equation.left), said)})"
    for each in program.assumptions:
        yield f"(assert {_formula(each.variables, _implication(each))})"


def _sorts(program: Program, parts: Sequence[Term]) -> Iterator[str]:
    data = [each for sort, each in program.data.items() if sort is not BOOL]
    for sort in _all_sorts(program, parts):
        if sort not in program.data and sort not in (BOOL, INT):
            yield f"(declare-sort {_sort(sort)} 0)"
    if data:
        names = " ".join(f"({_sort(each.sort)} 0)" for each in data)
        bodies = " ".join(f"({' '.join(map(_constructor, each.constructors))})" for each in data)
        yield f"(declare-datatypes ({names}) ({bodies}))"


def _all_sorts(program: Program, parts: Sequence[Term]) -> dict[Sort, None]:
    symbols = [*program.symbols(), *(p.symbol for p in parts if isinstance(p, Apply))]
    found: dict[Sort, None] = {}
    waiting = [part.sort for part in parts]
    waiting += [sort for symbol in symbols for sort in (*symbol.arguments, symbol.result)]
    while waiting:
        sort = waiting.pop(0)
        if sort not in found:
            found[sort] = None
            waiting += sort.arguments if sort.is_function else ()
    return found


def _constructor(symbol: Symbol) -> str:
    fields = (
        f"(|{symbol.name}.{index}| {_sort(sort)})" for index, sort in enumerate(symbol.arguments)
    )
    return f"({' '.join([_symbol(symbol), *fields])})"


def _partial(parts: Sequence[Term]) -> dict[tuple[Symbol, int], None]:
    """Symbols with how many arguments they are given, where that is too few; and all in between."""
    found: dict[tuple[Symbol, int], None] = {}
    for part in parts:
        if isinstance(part, Apply) and part.is_partial:
            for number in range(len(part.arguments), len(part.symbol.arguments)):
                found[part.symbol, number] = None
    return found


def _functions_as_values(
    parts: Sequence[Term], partial: dict[tuple[Symbol, int], None]
) -> Iterator[str]:
    applied = [p.symbol.arguments[0] for p in parts if isinstance(p, Apply) and _is_apply(p)]
    values = [function_sort(symbol.arguments[number:], symbol.result) for symbol, number in partial]
    for sort in dict.fromkeys((*applied, *values)):
        takes, gives = sort.arguments
        yield f"(declare-fun {_apply(sort)} ({_sort(sort)} {_sort(takes)}) {_sort(gives)})"
    for symbol, number in partial:
        given = " ".join(map(_sort, symbol.arguments[:number]))
        made = function_sort(symbol.arguments[number:], symbol.result)
        yield f"(declare-fun {_closure(symbol, number)} ({given}) {_sort(made)})"
    for symbol, number in partial:
        bound = tuple(Variable(f"a{i}", s) for i, s in enumerate(symbol.arguments[: number + 1]))
        value = make(symbol, bound[:-1])
        left = f"({_apply(value.sort)} {_term(value)} {_variable(bound[-1])})"
        yield f"(assert {_formula(bound, f'(= {left} {_term(make(symbol, bound))})')})"


def _is_apply(part: Apply) -> bool:
    return part.symbol.kind is Kind.BUILTIN and part.symbol.name == "@"


def _apply(sort: Sort) -> str:
    return f"|apply.{sort}|"


def _closure(symbol: Symbol, number: int) -> str:
    kinds = "".join(map(str, symbol.arguments))
    return f"|p.{symbol.name}.{kinds}.{number}|"


# Names, formulas, terms


def _sort(sort: Sort) -> str:
    return sort.name if sort in (BOOL, INT) else f"|s.{sort}|"


def _symbol(symbol: Symbol) -> str:
    if symbol.kind is Kind.LITERAL:
        return f"(- {symbol.name[1:]})" if symbol.name.startswith("-") else symbol.name
    if symbol.kind is Kind.BUILTIN or symbol in (TRUE.symbol, FALSE.symbol):
        return _apply(symbol.arguments[0]) if symbol.name == "@" else symbol.name
    return f"|{symbol.kind.value[0]}.{symbol.name}|"


def _variable(variable: Variable) -> str:
    return f"|v.{variable.name}|"


def _formula(bound: Sequence[Variable], body: str) -> str:
    if not bound:
        return body
    typed = " ".join(f"({_variable(variable)} {_sort(variable.sort)})" for variable in bound)
    return f"(forall ({typed}) {body})"


def _implication(statement: Statement) -> str:
    conclusion = _equality(statement.conclusion)
    for condition in reversed(statement.conditions):
        conclusion = f"(=> {_equality(condition)} {conclusion})"
    return conclusion


def _equality(equality: Equality) -> str:
    left = _term(equality.left)
    if equality.right is TRUE or equality.right is FALSE:
        return left if equality.right is TRUE else f"(not {left})"
    return f"(= {left} {_term(equality.right)})"


def _term(term: Term) -> str:
    """The term with the names of this file; no deep recursion."""
    words: list[str] = []
    stack: list[Term | str] = [term]
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            words.append(part)
        elif isinstance(part, Variable):
            words.append(_variable(part))
        else:
            name = _symbol(part.symbol)
            if part.is_partial:
                name = _closure(part.symbol, len(part.arguments))
            words.append(f"({name}" if part.arguments else name)
            stack.extend([")"] if part.arguments else [])
            stack.extend(reversed(part.arguments))
    return " ".join(words)

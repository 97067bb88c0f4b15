"""Bool, Int and the symbols that every problem has, with what one step of computing them gives."""

from __future__ import annotations

from collections.abc import Callable

from prover.terms import BOOL, INT, Apply, Kind, Symbol, Term

FALSE = Symbol("false", (), BOOL, Kind.CONSTRUCTOR)()
TRUE = Symbol("true", (), BOOL, Kind.CONSTRUCTOR)()
NOT = Symbol("not", (BOOL,), BOOL, Kind.BUILTIN)
AND, OR, IMPLIES = (Symbol(n, (BOOL, BOOL), BOOL, Kind.BUILTIN) for n in ("and", "or", "=>"))

_ARITHMETIC: dict[str, Callable[[int, int], int | bool]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    # SMT-LIB: the remainder is never negative, whatever the signs.
    "mod": lambda a, b: a % abs(b),
    "div": lambda a, b: (a - a % abs(b)) // b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}
ARITHMETIC = {
    name: Symbol(name, (INT, INT), BOOL if name in ("<", "<=") else INT, Kind.BUILTIN)
    for name in _ARITHMETIC
}
# Longer numbers are left uncomputed: a product of products must not fill the memory.
_MOST_BITS = 4096


def equals(left: Term, right: Term) -> Apply:
    """The Bool term that two terms are equal."""
    return Symbol("=", (left.sort, left.sort), BOOL, Kind.BUILTIN)(left, right)


def if_then_else(condition: Term, then: Term, otherwise: Term) -> Apply:
    sort = then.sort
    return Symbol("ite", (BOOL, sort, sort), sort, Kind.BUILTIN)(condition, then, otherwise)


def literal(value: int) -> Apply:
    return Symbol(str(value), (), INT, Kind.LITERAL)()


def truth(value: bool) -> Apply:
    return TRUE if value else FALSE


def are_distinct(left: Term, right: Term) -> bool:
    """Whether no value makes them equal, seen from constructors at their roots alone."""
    if not (isinstance(left, Apply) and isinstance(right, Apply)):
        return False
    return left.is_constructor and right.is_constructor and left.symbol is not right.symbol


def is_inside(part: Term, whole: Term) -> bool:
    """Whether `part` lies strictly below constructors of `whole`: then they are never equal."""
    seen: dict[Term, None] = {}
    stack = [whole]
    while stack:
        term = stack.pop()
        if term not in seen and isinstance(term, Apply) and term.is_constructor:
            seen[term] = None
            if any(argument is part for argument in term.arguments):
                return True
            stack.extend(term.arguments)
    return False


def reduce(term: Term) -> Term:
    """One step of a builtin at the root, true for all values; the term itself for none."""
    if not isinstance(term, Apply) or term.symbol.kind is not Kind.BUILTIN or term.is_partial:
        return term
    rule = _RULES.get(term.symbol.name)
    return term if rule is None else rule(term, *term.arguments)


def _not(term: Term, value: Term) -> Term:
    return FALSE if value is TRUE else TRUE if value is FALSE else term


def _and(term: Term, left: Term, right: Term) -> Term:
    if left is FALSE or right is FALSE:
        return FALSE
    return right if left is TRUE else left if right is TRUE or left is right else term


def _or(term: Term, left: Term, right: Term) -> Term:
    if left is TRUE or right is TRUE:
        return TRUE
    return right if left is FALSE else left if right is FALSE or left is right else term


def _implies(term: Term, left: Term, right: Term) -> Term:
    if left is FALSE or right is TRUE or left is right:
        return TRUE
    return right if left is TRUE else term


def _ite(term: Term, condition: Term, then: Term, otherwise: Term) -> Term:
    if then is otherwise or condition is TRUE:
        return then
    return otherwise if condition is FALSE else term


def _equals(term: Term, left: Term, right: Term) -> Term:
    if left is right:
        return TRUE
    if are_distinct(left, right):
        return FALSE
    if left.sort is BOOL and (right is TRUE or left is TRUE):
        return left if right is TRUE else right
    if _both_constructed(left, right):
        return _all_equal(left, right)
    return FALSE if is_inside(left, right) or is_inside(right, left) else term


def _both_constructed(left: Term, right: Term) -> bool:
    return (
        isinstance(left, Apply)
        and isinstance(right, Apply)
        and left.is_constructor
        and left.symbol is right.symbol
    )


def _all_equal(left: Term, right: Term) -> Term:
    assert isinstance(left, Apply)
    assert isinstance(right, Apply)
    *first, last = (equals(a, b) for a, b in zip(left.arguments, right.arguments, strict=True))
    for part in reversed(first):
        last = AND(part, last)
    return last


def _number(term: Term) -> int | None:
    if isinstance(term, Apply) and term.symbol.kind is Kind.LITERAL:
        return int(term.symbol.name)
    return None


def _arithmetic(term: Term, left: Term, right: Term) -> Term:
    assert isinstance(term, Apply)
    name = term.symbol.name
    a, b = _number(left), _number(right)
    if a is None or b is None or max(a.bit_length(), b.bit_length()) > _MOST_BITS:
        return term
    if name in ("div", "mod") and b == 0:
        return term
    value = _ARITHMETIC[name](a, b)
    return truth(value) if isinstance(value, bool) else literal(value)


_RULES: dict[str, Callable[..., Term]] = {
    "not": _not,
    "and": _and,
    "or": _or,
    "=>": _implies,
    "ite": _ite,
    "=": _equals,
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
}

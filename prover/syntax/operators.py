"""The builtins as they are written, with any number of arguments, as the few that terms have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from prover.builtins import AND, ARITHMETIC, IMPLIES, NOT, OR, equals, literal
from prover.terms import Apply, Term

CONNECTIVES = ("and", "or", "=>", "not", "xor")
NUMERIC = ("+", "-", "*", "div", "mod", "<", "<=", ">", ">=")
COMPARISONS = ("=", "distinct")


def all_of(terms: Sequence[Term]) -> Term:
    """Their conjunction."""
    *first, last = terms
    for part in reversed(first):
        last = AND(part, last)
    return last


def comparison(name: str, terms: Sequence[Term]) -> Term | None:
    """`=` of neighbours or `distinct` of all pairs; None for too few arguments."""
    if len(terms) < 2:
        return None
    if name == "=":
        return all_of([equals(a, b) for a, b in pairwise(terms)])
    pairs = [(a, b) for i, a in enumerate(terms) for b in terms[i + 1 :]]
    return all_of([NOT(equals(a, b)) for a, b in pairs])


def connective(name: str, terms: Sequence[Term]) -> Term | None:
    """Of Bool terms; None for a wrong number of them."""
    if name == "not":
        return NOT(terms[0]) if len(terms) == 1 else None
    if name == "xor":
        return NOT(equals(*terms)) if len(terms) == 2 else None
    symbol = {"and": AND, "or": OR, "=>": IMPLIES}[name]
    *first, last = terms
    for part in reversed(first):
        last = symbol(part, last)
    return last


def numeric(name: str, terms: Sequence[Term]) -> Term | None:
    """Of Int terms; None for a wrong number of them."""
    if len(terms) == 1:
        return _negated(terms[0]) if name == "-" else None
    if name in ("<", "<="):
        return all_of([ARITHMETIC[name](a, b) for a, b in pairwise(terms)])
    if name in (">", ">="):
        return all_of([ARITHMETIC[name.replace(">", "<")](b, a) for a, b in pairwise(terms)])
    whole, *rest = terms
    for part in rest:
        whole = ARITHMETIC[name](whole, part)
    return whole


def _negated(term: Term) -> Term:
    is_literal = isinstance(term, Apply) and term.symbol.name.isdecimal()
    return literal(-int(str(term))) if is_literal else ARITHMETIC["-"](literal(0), term)

"""Terms, sorts and variables of one program as the text that a certificate is made of.

`show` of a term is the text; here is the way back. Names of symbols are unique in a program, so no
sort has to be guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prover.builtins import (
    AND,
    ARITHMETIC,
    FALSE,
    IMPLIES,
    NOT,
    OR,
    TRUE,
    equals,
    if_then_else,
    literal,
)
from prover.errors import Rejected
from prover.program import Equality, Program
from prover.syntax.sexpr import Node, Source, read
from prover.terms import BOOL, INT, Apply, Sort, Term, Variable, apply_to

_SYMBOLS = {s.name: s for s in (FALSE.symbol, TRUE.symbol, NOT, AND, OR, IMPLIES)}
_SYMBOLS |= {symbol.name: symbol for symbol in ARITHMETIC.values()}
_GENERIC: dict[str, tuple[int, Callable[..., Term]]] = {
    "=": (2, equals),
    "@": (2, apply_to),
    "ite": (3, if_then_else),
}

Scope = Mapping[str, Variable]


class Notation:
    """Reads what speaks of one program. Raises Rejected, or SortClash, for what does not."""

    def __init__(self, program: Program) -> None:
        self.symbols = dict(_SYMBOLS)
        for symbol in program.symbols():
            if self.symbols.setdefault(symbol.name, symbol) is not symbol:
                raise Rejected(f"two symbols are called {symbol.name}")
        self.sorts = _sorts(program)

    def variables(self, data: Iterable[Any], scope: Scope) -> dict[str, Variable]:
        """New variables from `[name, sort]`: no name twice, none in scope, none of a symbol."""
        found: dict[str, Variable] = {}
        for name, sort in data:
            if name in found or name in scope or name in self.symbols or name in _GENERIC:
                raise Rejected(f"{name} is not a new name")
            if not name or any(c.isspace() or c in '();|"' for c in name) or _is_number(name):
                raise Rejected(f"{name} is no name")
            if sort not in self.sorts:
                raise Rejected(f"unknown sort {sort}")
            found[name] = Variable(name, self.sorts[sort])
        return found

    def equality(self, left: str, right: str, scope: Scope) -> Equality:
        equality = Equality(self.term(left, scope), self.term(right, scope))
        if equality.left.sort is not equality.right.sort:
            raise Rejected(f"{equality} equates different sorts")
        return equality

    def term(self, text: str, scope: Scope) -> Term:
        (node,) = read(Source(text, "certificate"))
        return self._build(node, scope)

    def _build(self, node: Node, scope: Scope) -> Term:
        head = node.head if node.is_list else node.text
        if not node.is_list and head in scope:
            return scope[head]
        arguments = tuple(self._build(item, scope) for item in node.items[1:])
        if head in self.symbols:
            return Apply(self.symbols[head], arguments)
        if head in _GENERIC and len(arguments) == _GENERIC[head][0]:
            return _GENERIC[head][1](*arguments)
        if _is_number(head) and not arguments:
            return literal(int(head))
        raise Rejected(f"unknown symbol {head}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdecimal()


def _sorts(program: Program) -> dict[str, Sort]:
    """Every sort that the program speaks of, by how it is written."""
    found = {str(sort): sort for sort in (BOOL, INT)}
    waiting = [sort for symbol in program.symbols() for sort in (*symbol.arguments, symbol.result)]
    waiting += program.data
    for each in (*program.goals, *program.assumptions):
        waiting += [variable.sort for variable in each.variables]
    while waiting:
        sort = waiting.pop()
        if str(sort) not in found:
            found[str(sort)] = sort
            waiting += sort.arguments
    return found

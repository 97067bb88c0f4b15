"""What names mean while an expression is read, and why reading may stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from prover.errors import SourceError
from prover.syntax.sexpr import Node
from prover.terms import Sort, Term, Variable, substitute


class AmbiguousError(SourceError):
    """The sort of an expression cannot be told from itself alone."""


class QuantifierError(SourceError):
    """A quantifier stands where only a term may."""


@dataclass(frozen=True)
class Scope:
    """What names mean, and in whose definition; `splits` where a match may split an equation."""

    owner: str
    terms: Mapping[str, Term]
    types: Mapping[str, Sort]
    splits: bool = False

    def with_terms(self, new: Mapping[str, Term]) -> Scope:
        return replace(self, terms={**self.terms, **new})

    def substituted(self, by: Mapping[Variable, Term]) -> Scope:
        return replace(self, terms={name: substitute(t, by) for name, t in self.terms.items()})


class SplitSignal(Exception):
    """An equation must be split on one of its variables; names are hints for the fields."""

    def __init__(self, variable: Variable, names: Mapping[str, Sequence[str]]) -> None:
        self.variable, self.names = variable, names


Build = Callable[[Scope], Term]


def names(*nodes: Node) -> tuple[str, ...]:
    """The atoms of some nodes, each once."""
    found: dict[str, None] = {}
    stack = list(reversed(nodes))
    while stack:
        part = stack.pop()
        if part.is_list:
            stack.extend(reversed(part.items))
        else:
            found[part.text] = None
    return tuple(found)

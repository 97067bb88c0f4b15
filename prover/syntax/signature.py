"""What a problem declares, before any of it has a meaning.

Sorts of templates are generic: a type parameter `a` is the sort `'a`. Bodies, assertions and goals
stay as they were written; `elaborate` gives them sorts, one instance for each choice of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prover.syntax.sexpr import Node, Source
from prover.terms import BOOL, INT, Sort


@dataclass(frozen=True, slots=True)
class ConstructorTemplate:
    """A constructor with its generic fields; `selectors` are the names of the fields."""

    name: str
    selectors: tuple[str, ...]
    fields: tuple[Sort, ...]


@dataclass(frozen=True, slots=True)
class DataTemplate:
    """A data type with its parameters; `sort` is the generic sort."""

    sort: Sort
    parameters: tuple[str, ...]
    constructors: tuple[ConstructorTemplate, ...]


@dataclass(frozen=True, slots=True)
class FunctionTemplate:
    """A function; without a body it is declared, and asserted equations may define it."""

    name: str
    type_parameters: tuple[str, ...]
    parameters: tuple[tuple[str, Sort], ...]
    result: Sort
    body: Node | None
    node: Node


@dataclass(slots=True)
class Signature:
    """Everything that a file declares.

    In SMT-LIB assertions define the functions that are declared. In our own language `equations`
    define those that are `total`, and assertions are never more than assumptions.
    """

    source: Source
    sorts: dict[str, int] = field(default_factory=dict)
    data: dict[str, DataTemplate] = field(default_factory=dict)
    constructors: dict[str, tuple[DataTemplate, ConstructorTemplate]] = field(default_factory=dict)
    selectors: dict[str, tuple[DataTemplate, ConstructorTemplate, int]] = field(
        default_factory=dict
    )
    functions: dict[str, FunctionTemplate] = field(default_factory=dict)
    assertions: list[Node] = field(default_factory=list)
    goals: dict[str, Node] = field(default_factory=dict)
    equations: list[Node] = field(default_factory=list)
    total: list[str] = field(default_factory=list)
    assertions_define: bool = True

    def has(self, name: str) -> bool:
        """Whether a term may mention it: no variable should be called so."""
        return name in self.constructors or name in self.functions or name in self.selectors

    def sort(self, node: Node, parameters: dict[str, Sort]) -> Sort:
        """The sort that a node spells, with `parameters` for the type parameters in scope."""
        if not node.is_list:
            return self._named_sort(node, node, (), parameters)
        if node.head == "=>" and len(node.items) > 2:
            *takes, gives = (self.sort(item, parameters) for item in node.items[1:])
            for argument in reversed(takes):
                gives = Sort("=>", (argument, gives))
            return gives
        if not node.head:
            raise self.source.error("a sort was expected", node)
        inner = tuple(self.sort(item, parameters) for item in node.items[1:])
        return self._named_sort(node, node.items[0], inner, parameters)

    def _named_sort(
        self, node: Node, name: Node, inner: tuple[Sort, ...], parameters: dict[str, Sort]
    ) -> Sort:
        text = name.text
        if text in parameters and not inner:
            return parameters[text]
        if text in ("Bool", "Int") and not inner:
            return BOOL if text == "Bool" else INT
        if text not in self.sorts:
            raise self.source.error("unknown sort", node)
        if self.sorts[text] != len(inner):
            raise self.source.error(f"the sort takes {self.sorts[text]} parameters", node)
        return Sort(text, inner)


def generic(names: tuple[str, ...]) -> dict[str, Sort]:
    return {name: Sort(f"'{name}") for name in names}

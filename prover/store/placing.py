"""Which sorts, symbols and assumptions of a program an entry may mean.

Digests say what a definition is like; which of several that are alike is meant, follows from the
definitions that speak of it. What is found here is a proposal: the checker decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from prover.program import Program
from prover.store.digests import Digests
from prover.syntax.sexpr import Node, Source, read
from prover.terms import Sort, Symbol, Term, Variable
from prover.terms import variables as variables_of

MOST_PLACINGS = 4
_MOST_TRIED = 64
_MOST_TEXTS = 8192

Data = Mapping[str, Any]


@lru_cache(maxsize=_MOST_TEXTS)
def node(text: str) -> Node:
    """Entries over the same definitions have the same texts."""
    (found,) = read(Source(text, "entry"))
    return found


@dataclass(frozen=True, slots=True)
class Placing:
    """What the numbers of an entry stand for."""

    sorts: dict[int, Sort] = field(default_factory=dict)
    symbols: dict[int, Symbol] = field(default_factory=dict)
    assumptions: dict[int, str] = field(default_factory=dict)

    def copy(self) -> Placing:
        return Placing(dict(self.sorts), dict(self.symbols), dict(self.assumptions))


class Places:
    """Finds places for what entries speak of, in one program."""

    def __init__(self, program: Program, digests: Digests) -> None:
        self.program, self.digests = program, digests
        self.stated = {each.name: each for each in program.assumptions}
        self._symbols: dict[str, list[Symbol]] = {}
        for symbol, told in digests.symbols.items():
            self._symbols.setdefault(told, []).append(symbol)

    def placings(self, entry: Data) -> Iterator[Placing]:
        """At most MOST_PLACINGS, each with a place for everything.

        Raises whatever comes of reading data that is no entry.
        """
        waiting = [Placing()]
        found = 0
        for _ in range(_MOST_TRIED):
            if not waiting or found == MOST_PLACINGS:
                return
            placing = waiting.pop()
            further = self._further(entry, placing)
            if further is None:
                found += 1
                yield placing
            else:
                waiting += reversed(further)

    def _further(self, entry: Data, placing: Placing) -> list[Placing] | None:
        """With a place for one thing more; none where everything has one."""
        attempt = _Attempt(self, entry, placing)
        kinds: Sequence[tuple[str, Mapping[int, Any]]] = (
            ("symbols", placing.symbols),
            ("sorts", placing.sorts),
            ("assumptions", placing.assumptions),
        )
        for kind, placed in kinds:
            for number, said in enumerate(entry[kind]):
                if number not in placed:
                    candidates = self._candidates(kind, said["digest"])
                    tried = (attempt.with_place(kind, number, each) for each in candidates)
                    return [each for each in tried if each is not None]
        return None

    def _candidates(self, kind: str, told: str) -> Sequence[Any]:
        if kind == "symbols":
            return self._symbols.get(told, ())
        if kind == "sorts":
            return list(self.digests.sorts_like(told))
        return [name for name, each in self.digests.assumptions.items() if each == told]


class _Attempt:
    """One place more, and what follows from it."""

    def __init__(self, places: Places, entry: Data, placing: Placing) -> None:
        self.places, self.entry, self._from = places, entry, placing
        self._placing = placing
        self._waiting: list[tuple[int, Symbol]] = []

    def with_place(self, kind: str, number: int, of: Any) -> Placing | None:
        """None where it contradicts what has its place already, or what the entry says of it."""
        self._placing = self._from.copy()
        self._waiting = []
        if kind == "symbols":
            holds = self._symbol(number, of)
        else:
            holds = (self._sort if kind == "sorts" else self._assumption)(number, of)
        while holds and self._waiting:
            holds = self._agree(*self._waiting.pop())
        return self._placing if holds else None

    def _symbol(self, number: int, symbol: Symbol) -> bool:
        if number in self._placing.symbols:
            return self._placing.symbols[number] is symbol
        if self.places.digests.symbols.get(symbol) != self.entry["symbols"][number]["digest"]:
            return False
        self._placing.symbols[number] = symbol
        self._waiting.append((number, symbol))
        return True

    def _agree(self, number: int, symbol: Symbol) -> bool:
        """Whether the entry's symbol has the signature and the equations of the program's."""
        said = self.entry["symbols"][number]
        sorts = (*symbol.arguments, symbol.result)
        if len(sorts) != len(said["signature"]):
            return False
        if not all(map(self._spoken, map(node, said["signature"]), sorts)):
            return False
        known = symbol in self.places.program.functions
        equations = self.places.digests.equations(symbol) if known else ()
        told = said.get("equations", ())
        return len(told) == len(equations) and all(
            self._terms(texts, (each.left, each.right))
            for texts, (_, each) in zip(told, equations, strict=True)
        )

    def _sort(self, number: int, sort: Sort) -> bool:
        if number in self._placing.sorts:
            return self._placing.sorts[number] is sort
        said = self.entry["sorts"][number]
        constructors = self.places.digests.constructors(sort)
        if self.places.digests.sort(sort) != said["digest"]:
            return False
        if len(constructors) != len(said["constructors"]):
            return False
        self._placing.sorts[number] = sort
        numbers = [int(name[1:]) for name in said["constructors"]]
        return all(map(self._symbol, numbers, constructors))

    def _spoken(self, said: Node, sort: Sort) -> bool:
        if said.is_list:
            inner = said.items[1:]
            return len(inner) == len(sort.arguments) and all(
                map(self._spoken, inner, sort.arguments)
            )
        if said.text.startswith("$"):
            return self._sort(int(said.text[1:]), sort)
        return said.text == sort.name

    def _assumption(self, number: int, name: str) -> bool:
        said, statement = self.entry["assumptions"][number], self.places.stated[name]
        sides = [side for each in statement.equalities() for side in (each.left, each.right)]
        sorts = [each.sort for each in variables_of(*sides)]
        self._placing.assumptions[number] = name
        return (
            len(sorts) == len(said["variables"])
            and all(map(self._spoken, map(node, said["variables"]), sorts))
            and self._terms(said["sides"], sides)
        )

    def _terms(self, texts: Sequence[str], terms: Sequence[Term]) -> bool:
        met = {variable: f"?{number}" for number, variable in enumerate(variables_of(*terms))}
        stack = list(zip(map(node, texts), terms, strict=True))
        while stack:
            said, term = stack.pop()
            if isinstance(term, Variable):
                if said.is_list or said.text != met[term]:
                    return False
                continue
            head, arguments = (said.head, said.items[1:]) if said.is_list else (said.text, ())
            if len(arguments) != len(term.arguments) or not self._head(head, term.symbol):
                return False
            stack.extend(zip(arguments, term.arguments, strict=True))
        return True

    def _head(self, head: str, symbol: Symbol) -> bool:
        if head.startswith("#"):
            return self._symbol(int(head[1:]), symbol)
        return head == symbol.name and symbol not in self.places.digests.symbols

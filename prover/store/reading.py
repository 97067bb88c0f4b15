"""An entry in the words of a program, once everything it speaks of has its place there."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from prover.program import Program
from prover.store.digests import Digests
from prover.store.placing import Placing
from prover.store.translation import Data, Typed, translated
from prover.terms import Sort, Variable
from prover.terms import variables as variables_of

Fresh = Callable[[Sort, Container[str]], Variable]
_WORD = re.compile(r"[()]|[^\s()]+")
_SORT = re.compile(r"\$(\d+)")


class Reader:
    """Reads the lemmas of an entry for one program. `fresh` gives variables names."""

    def __init__(self, program: Program, digests: Digests, fresh: Fresh) -> None:
        self.program, self.digests, self.fresh = program, digests, fresh
        self.stated = {each.name: each for each in program.assumptions}
        self.by_text: dict[str, Sort] = {}
        for symbol in program.symbols():
            for sort in (*symbol.arguments, symbol.result):
                self.by_text[str(sort)] = sort

    def read(
        self, lemma: Data, placing: Placing, name: str, known: Sequence[tuple[str, Sequence[str]]]
    ) -> tuple[dict[str, Any], list[str]]:
        """A lemma by its new name, and its variables in the entry's order.

        `known` has the same of the lemmas before it. Raises whatever comes of reading data that is
        no lemma.
        """
        words = _Inward(self, placing, name, known)
        order = [each for each, _ in lemma["variables"]]
        data = translated(lemma, name, words, order)
        return data, [each for each, _ in data["variables"]]


class _Inward:
    """The words of an entry as those of a program."""

    def __init__(
        self,
        reader: Reader,
        placing: Placing,
        name: str,
        known: Sequence[tuple[str, Sequence[str]]],
    ) -> None:
        self.reader, self.placing, self.name, self.known = reader, placing, name, known
        self.called: dict[str, str] = {}
        self.taken: dict[str, None] = {}
        self.stated: Sequence[str] | None = None

    def declare(self, typed: Typed) -> list[list[str]]:
        new = []
        for name, text in typed:
            variable = self.reader.fresh(self._sort(text), self.taken)
            self.taken[variable.name] = None
            self.called[name] = variable.name
            new.append([variable.name, str(variable.sort)])
        self.stated = [each for each, _ in new] if self.stated is None else self.stated
        return new

    def _sort(self, text: str) -> Sort:
        said = _SORT.sub(lambda found: str(self.placing.sorts[int(found[1])]), text)
        placed = {str(each): each for each in self.placing.sorts.values()}
        return placed.get(said) or self.reader.by_text.get(said) or Sort(said)

    def term(self, text: str) -> str:
        return _WORD.sub(lambda found: self._word(found[0]), text)

    def _word(self, word: str) -> str:
        if word.startswith("?"):
            return self.called[word]
        if word.startswith("#"):
            return self.placing.symbols[int(word[1:])].name
        return word

    def rule(self, name: str, given: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        kind, _, of = name.partition(":")
        rule, variables = self._rule(kind, of)
        by = {variables[int(each[1:])]: self.term(text) for each, text in given.items()}
        return rule, by

    def _rule(self, kind: str, of: str) -> tuple[str, Sequence[str]]:
        """Its name here, and its variables in the order in which an entry numbers them."""
        reader = self.reader
        if kind == "define":
            place, _, number = of.rpartition(":")
            symbol = self.placing.symbols[int(place[1:])]
            told, equation = reader.digests.equations(symbol)[int(number)]
            return f"define:{symbol.name}:{told}", _names(equation.left)
        if kind == "lemma":
            name, variables = self.known[int(of)]
            return f"lemma:{name}", variables
        if kind == "ih":
            return f"ih:{self.name}", self.stated or ()
        if kind == "assume":
            statement = reader.stated[self.placing.assumptions[int(of)]]
            sides = [side for each in statement.equalities() for side in (each.left, each.right)]
            return f"assume:{statement.name}", _names(*sides)
        return f"{kind}:{of}", ()

    def arms(self, step: Data) -> tuple[dict[str, str], Sequence[tuple[Typed, Any]]]:
        sort = self._sort(step["sort"])
        order = self.reader.digests.constructors(sort)
        arms = []
        for constructor in self.reader.program.constructors(sort):
            branch = step["branches"][order.index(constructor)]
            arms.append((branch["variables"], branch["proof"]))
        return {}, arms

    def written_arm(self, variables: list[list[str]]) -> list[Any]:
        return [name for name, _ in variables]


def _names(*terms: Any) -> list[str]:
    return [variable.name for variable in variables_of(*terms)]

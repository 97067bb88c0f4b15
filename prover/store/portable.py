"""Lemmas in words that belong to no program: what a certificate proves, and all that it rests on.

A sort is `$0`, a symbol `#0`, a variable `?0`, each by when it is met; builtins and numbers keep
their names. The equations and constructors of what is met are part of it, in an order of their
own, so that programs that differ in names and order alone have the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prover.errors import ProverError
from prover.notation import Notation
from prover.program import Program, Statement
from prover.store.digests import Digests, digest
from prover.store.translation import Data, Typed, translated
from prover.terms import BOOL, INT, Sort, Symbol, Term, Variable, show, substitute
from prover.terms import variables as variables_of

MOST_BYTES = 1 << 18  # of an entry
_WORD = re.compile(r"[()]|[^\s()]+")


@dataclass(frozen=True, slots=True)
class Entry:
    """A lemma after those that it rests on, as JSON. `key` is a digest of the `definitions` that
    it speaks of, which are digests too; `statement` one of what it says of them."""

    statement: str
    key: str
    definitions: tuple[str, ...]
    text: str


def entries(program: Program, digests: Digests, certificate: Data) -> Iterator[Entry]:
    """An entry for each lemma of a certificate that the checker has accepted.

    None for lemmas that are proved in one group and what rests on them, for a goal that only cites
    a lemma or has a variable that it does not speak of, and for what is longer than MOST_BYTES.
    """
    lemmas: dict[str, Data] = {}
    for group in certificate["groups"]:
        (last, *more) = group
        if more or any(name not in lemmas for name in rests_on(last)):
            continue
        lemmas[last["name"]] = last
        if _cites(last):
            continue
        wanted = [lemmas[name] for name in needed(lemmas, last["name"])]
        try:
            entry = _Writer(program, digests).entry(wanted)
        except (ProverError, KeyError):  # of a variable that is never used
            continue
        if len(entry.text) <= MOST_BYTES:
            yield entry


def needed(lemmas: Mapping[str, Data], last: str) -> list[str]:
    """The names of the lemmas that one rests on, in their order, and its own."""
    wanted = {last: None}
    for name in reversed(list(lemmas)):
        if name in wanted:
            wanted |= dict.fromkeys(rests_on(lemmas[name]))
    return [name for name in lemmas if name in wanted]


def rests_on(lemma: Data) -> Iterator[str]:
    """The names of the lemmas that are cited in a proof, with repetitions."""
    waiting: list[Any] = [lemma["cases"]]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            kind, _, name = str(part.get("rule", "")).partition(":")
            if kind == "lemma":
                yield name
            waiting += [each for each in part.values() if isinstance(each, list)]


def _cites(lemma: Data) -> bool:
    """Whether it is an instance of another lemma, and no more."""
    proofs = [case["proof"] for case in lemma["cases"]]
    return not lemma["on"] and all(
        len(proof) == 1 and str(proof[0].get("rule", "")).startswith("lemma:") for proof in proofs
    )


class _Writer:
    """Numbers what lemmas speak of, and describes it."""

    def __init__(self, program: Program, digests: Digests) -> None:
        self.program, self.digests = program, digests
        self.notation = Notation(program)
        self.stated = {each.name: each for each in program.assumptions}
        self._sorts: dict[Sort, int] = {}
        self._symbols: dict[Symbol, int] = {}
        self.assumptions: dict[str, int] = {}
        self.lemmas: dict[str, tuple[int, Mapping[str, str]]] = {}
        self._tables: dict[str, list[Data]] = {"sorts": [], "symbols": [], "assumptions": []}

    def entry(self, lemmas: Sequence[Data]) -> Entry:
        said = self._statement(lemmas[-1])
        self._describe()
        statement = digest(said, json.dumps(self._tables))
        written = []
        for number, lemma in enumerate(lemmas):
            words = _Outward(self, number)
            order = [v.name for v in self._order(lemma)]
            if len(order) != len(lemma["variables"]):
                raise KeyError(lemma["name"])
            written.append(translated(lemma, str(number), words, order))
            self.lemmas[lemma["name"]] = number, words.stated
        self._describe()
        text = json.dumps({**self._tables, "lemmas": written})
        spoken = sorted({*self._definitions()})
        return Entry(statement, digest(*spoken), tuple(spoken), text)

    def _statement(self, lemma: Data) -> str:
        words = _Outward(self, 0)
        sorts = dict(lemma["variables"])
        words.declare([(v.name, sorts[v.name]) for v in self._order(lemma)])
        sides = [side for each in lemma["conditions"] for side in each]
        return json.dumps([words.term(each) for each in (lemma["left"], lemma["right"], *sides)])

    def _order(self, lemma: Data) -> tuple[Variable, ...]:
        """The variables of a lemma as they are met."""
        scope = self.notation.variables(lemma["variables"], {})
        sides = [side for each in lemma["conditions"] for side in each]
        texts = (lemma["left"], lemma["right"], *sides)
        return variables_of(*(self.notation.term(each, scope) for each in texts))

    def _definitions(self) -> Iterator[str]:
        for symbol in self._symbols:
            yield self.digests.symbols[symbol]
        for name in self.assumptions:
            yield self.digests.assumptions[name]

    # Words

    def sort(self, sort: Sort) -> str:
        if sort.is_function:
            return f"(=> {' '.join(map(self.sort, sort.arguments))})"
        if self.is_builtin(sort):
            return sort.name
        return f"${self._sorts.setdefault(sort, len(self._sorts))}"

    def is_builtin(self, sort: Sort) -> bool:
        return sort is BOOL or sort is INT

    def symbol(self, name: str) -> str | None:
        """None for a builtin, which keeps its name."""
        symbol = self.notation.symbols.get(name)
        if symbol is None or symbol not in self.digests.symbols:
            return None
        return f"#{self._symbols.setdefault(symbol, len(self._symbols))}"

    def term(self, text: str, called: Mapping[str, str]) -> str:
        def word(found: re.Match[str]) -> str:
            return called.get(found[0]) or self.symbol(found[0]) or found[0]

        return _WORD.sub(word, text)

    # Tables

    def _describe(self) -> None:
        """All that is met, until nothing new is."""
        tables = self._tables
        while True:
            if len(tables["symbols"]) < len(self._symbols):
                tables["symbols"].append(self._symbol(list(self._symbols)[len(tables["symbols"])]))
            elif len(tables["sorts"]) < len(self._sorts):
                tables["sorts"].append(self._sort(list(self._sorts)[len(tables["sorts"])]))
            elif len(tables["assumptions"]) < len(self.assumptions):
                name = list(self.assumptions)[len(tables["assumptions"])]
                tables["assumptions"].append(self._assumption(self.stated[name]))
            else:
                return

    def _symbol(self, symbol: Symbol) -> Data:
        said: dict[str, Any] = {"digest": self.digests.symbols[symbol]}
        said["signature"] = [self.sort(each) for each in (*symbol.arguments, symbol.result)]
        if symbol in self.program.functions:
            equations = [each for _, each in self.digests.equations(symbol)]
            said["equations"] = [self._terms((each.left, each.right)) for each in equations]
        return said

    def _sort(self, sort: Sort) -> Data:
        constructors = self.digests.constructors(sort)
        named = [self.symbol(each.name) for each in constructors]
        return {"digest": self.digests.sort(sort), "constructors": named}

    def _assumption(self, statement: Statement) -> Data:
        sides = [side for each in statement.equalities() for side in (each.left, each.right)]
        met = variables_of(*sides)
        sorts = [self.sort(each.sort) for each in met]
        told = self.digests.assumptions[statement.name]
        return {"digest": told, "variables": sorts, "sides": self._terms(sides)}

    def _terms(self, terms: Sequence[Term]) -> list[str]:
        """The variables by when they are met."""
        met = variables_of(*terms)
        new = {v: Variable(f"?{number}", v.sort) for number, v in enumerate(met)}
        return [self.term(show(substitute(each, new)), {}) for each in terms]


class _Outward:
    """The words of one lemma of a program as those of an entry."""

    def __init__(self, writer: _Writer, number: int) -> None:
        self.writer, self.number = writer, number
        self.called: dict[str, str] = {}
        self.stated: Mapping[str, str] = {}  # the variables of the statement
        self._scope: dict[str, Variable] = {}
        self._num = 0

    def declare(self, typed: Typed) -> list[list[str]]:
        new = []
        for name, sort in typed:
            self._scope[name] = Variable(name, self.writer.notation.sorts[sort])
            self.called[name] = f"?{self._num}"
            self._num += 1
            new.append([self.called[name], self.writer.sort(self._scope[name].sort)])
        self.stated = self.stated or dict(self.called)
        return new

    def term(self, text: str) -> str:
        return self.writer.term(text, self.called)

    def rule(self, name: str, given: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        kind, _, of = name.partition(":")
        place, called = self._rule(kind, of)
        return place, {called[each]: self.term(text) for each, text in given.items()}

    def _rule(self, kind: str, of: str) -> tuple[str, Mapping[str, str]]:
        writer = self.writer
        if kind == "define":
            name, _, told = of.rpartition(":")
            equations = writer.digests.equations(writer.notation.symbols[name])
            places = [each for each, _ in equations]
            place = places.index(int(told))
            return f"define:{writer.symbol(name)}:{place}", _numbered(equations[place][1].left)
        if kind == "lemma":
            number, called = writer.lemmas[of]
            return f"lemma:{number}", called
        if kind == "ih":
            return f"ih:{self.number}", self.stated
        if kind == "assume":
            number = writer.assumptions.setdefault(of, len(writer.assumptions))
            statement = writer.stated[of]
            sides = [side for each in statement.equalities() for side in (each.left, each.right)]
            return f"assume:{number}", _numbered(*sides)
        return f"{kind}:{of}", {}

    def arms(self, step: Data) -> tuple[dict[str, str], Sequence[tuple[Typed, Any]]]:
        writer = self.writer
        sort = writer.notation.term(step["of"], self._scope).sort
        declared = writer.program.constructors(sort)
        arms = []
        for constructor in writer.digests.constructors(sort):
            branch = step["branches"][declared.index(constructor)]
            sorts = map(str, constructor.arguments)
            typed = list(zip(branch["variables"], sorts, strict=True))
            arms.append((typed, branch["proof"]))
        return {"sort": writer.sort(sort)}, arms

    def written_arm(self, variables: list[list[str]]) -> list[Any]:
        return variables


def _numbered(*terms: Term) -> dict[str, str]:
    return {variable.name: f"?{number}" for number, variable in enumerate(variables_of(*terms))}

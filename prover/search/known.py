"""Lemmas that were proved for other programs, proved again for this one before a search begins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prover.checker import Replay
from prover.errors import ProverError, Rejected
from prover.program import Program
from prover.search.conjecture import Conjecture, Names
from prover.search.lemmas import Lemma
from prover.store.digests import Digests
from prover.store.placing import Places, Placing
from prover.store.portable import Entry
from prover.store.reading import Reader

MOST_LEMMAS = 200
_MALFORMED = (ProverError, LookupError, TypeError, ValueError, AttributeError, RecursionError)


@dataclass(slots=True)
class Recalled:
    """The lemmas that hold here, each after those that it rests on, and which entries gave none:
    by their statements, with the reason."""

    lemmas: list[Lemma] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)


def recall(program: Program, digests: Digests, entries: Iterable[Entry]) -> Recalled:
    """What the checker accepts of the entries, in their order, as far as MOST_LEMMAS.

    The program has passed `checks.check`. An entry that means nothing here is left out, and one
    that is wrong is rejected: neither is trusted for anything.
    """
    recalling = _Recalling(program, digests)
    for entry in entries:
        if len(recalling.recalled.lemmas) >= MOST_LEMMAS:
            break
        recalling.add(entry)
    return recalling.recalled


class _Recalling:
    def __init__(self, program: Program, digests: Digests) -> None:
        self.names = Names(program)
        self.places = Places(program, digests)
        self.reader = Reader(program, digests, self.names.fresh)
        self.replay = Replay(program)
        self.recalled = Recalled()
        self._by_conjecture: dict[Conjecture, Lemma] = {}
        self._num = 0

    def add(self, entry: Entry) -> None:
        try:
            data = json.loads(entry.text)
            for placing in self.places.placings(data):
                self._add(data["lemmas"], placing)
        except _MALFORMED as error:
            self.recalled.rejected[entry.statement] = f"{error}" or type(error).__name__

    def _add(self, lemmas: Iterable[Mapping[str, Any]], placing: Placing) -> None:
        """Raises Rejected, or whatever comes of reading what is no lemma."""
        known: list[tuple[str, list[str]]] = []
        for each in lemmas:
            name = self._name()
            data, order = self.reader.read(each, placing, name, known)
            statement = self.replay.stated(data)
            conjecture = Conjecture.of(statement)
            if self.names.canonical(conjecture)[0].statement(name) != statement:
                raise Rejected("its variables are not in the order in which they are met")
            already = self._by_conjecture.get(conjecture)
            if already is None:
                self.replay.add([data])
                already = Lemma(statement, (), (), data=data)
                self._by_conjecture[conjecture] = already
                self.recalled.lemmas.append(already)
            known.append((already.name, order))

    def _name(self) -> str:
        while True:
            self._num += 1
            if (name := f"known-{self._num}") not in self.names.reserved:
                return name

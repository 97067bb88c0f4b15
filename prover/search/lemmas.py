"""What was proved, and what could not be: every conjecture is worked on once for each depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prover.program import Statement
from prover.rewriting.steps import Proof, used_rules
from prover.search.conjecture import Conjecture
from prover.store.portable import rests_on
from prover.terms import Term, Variable

_FOR_EVER = 1_000


@dataclass(frozen=True, slots=True)
class LemmaCase:
    """The patterns of the induction variables in one case, and its proof."""

    patterns: tuple[Term, ...]
    proof: Proof


@dataclass(frozen=True, slots=True)
class Lemma:
    """A statement with its proof. `on` holds the induction variables; none for no induction.

    One that was known before has its proof in `data`, as a certificate has it, and no cases here.
    """

    statement: Statement
    on: tuple[Variable, ...]
    cases: tuple[LemmaCase, ...]
    data: Mapping[str, Any] | None = None
    together: tuple[str, ...] = ()  # the names of all that were proved with it, itself included

    @property
    def name(self) -> str:
        return self.statement.name

    @property
    def conjecture(self) -> Conjecture:
        return Conjecture.of(self.statement)

    def uses(self) -> Iterator[str]:
        """The names of the lemmas that its proof rests on, with repetitions."""
        if self.data is not None:
            yield from rests_on(self.data)
        for case in self.cases:
            for rule in used_rules(case.proof):
                kind, _, name = rule.partition(":")
                if kind == "lemma":
                    yield name


@dataclass(slots=True)
class Lemmas:
    """The proved lemmas by name, in the order of their proofs, and the conjectures that failed."""

    proved: dict[str, Lemma] = field(default_factory=dict)
    by_conjecture: dict[Conjecture, Lemma] = field(default_factory=dict)
    failed: dict[Conjecture, int] = field(default_factory=dict)

    def add(self, lemma: Lemma) -> None:
        self.proved[lemma.name] = lemma
        self.by_conjecture[lemma.conjecture] = lemma

    def fail(self, conjecture: Conjecture, depth: int = _FOR_EVER) -> None:
        self.failed[conjecture] = max(depth, self.failed.get(conjecture, 0))

    def has_failed(self, conjecture: Conjecture, depth: int) -> bool:
        return self.failed.get(conjecture, -1) >= depth

    def forget_failures(self) -> None:
        """What failed for want of lemmas may succeed now that there are more."""
        self.failed = {c: d for c, d in self.failed.items() if d == _FOR_EVER}

    def needed(self, last: Lemma) -> tuple[Lemma, ...]:
        """A lemma after all that it rests on."""
        wanted: dict[str, None] = {last.name: None}
        for lemma in reversed((*self.proved.values(), last)):
            if any(name in wanted for name in (lemma.name, *lemma.together)):
                wanted |= dict.fromkeys((*lemma.together, *lemma.uses()))
        chosen: Mapping[str, Lemma] = {**self.proved, last.name: last}
        return tuple(lemma for name, lemma in chosen.items() if name in wanted)

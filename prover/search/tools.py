"""What every part of a search works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prover.program import Program
from prover.rewriting.meter import Meter
from prover.rewriting.normaliser import Normaliser
from prover.rewriting.rules import Rule, RuleBook
from prover.search.conjecture import Names
from prover.search.trial import Trial
from prover.terms import Term


@dataclass(frozen=True, slots=True)
class Tools:
    """One program's rules, tests, names and meter."""

    program: Program
    book: RuleBook
    meter: Meter
    names: Names
    trial: Trial

    def normaliser(self, facts: Mapping[Term, Rule], local: Sequence[Rule] = ()) -> Normaliser:
        return Normaliser(self.book, self.meter, facts, local)

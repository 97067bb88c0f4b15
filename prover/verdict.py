"""What comes of a search: a theorem with its certificate, values that refute it, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from prover.program import Equality
from prover.terms import Term, Variable


class Mode(StrEnum):
    """How lemmas are found: for a stuck subgoal, by trying all small ones, or both side by side."""

    DIRECTED = "directed"
    ENUMERATIVE = "enumerative"
    PORTFOLIO = "portfolio"


@dataclass(frozen=True, slots=True)
class Budget:
    """Inference steps decide the verdict, the same everywhere; seconds only end a search early."""

    steps: int = 2_000_000
    seconds: float = 60.0


class Reason(StrEnum):
    """Why a search came to no verdict."""

    TIMEOUT = "timeout"
    STEPS = "steps"
    MEMORY = "memory"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Proved:
    """`certificate` is what `checker.verify` takes, and `statement` what it said of it.
    `explanation` has a line for each decision that led there: form, tactic, lemma, phi."""

    certificate: Mapping[str, Any]
    statement: str
    explanation: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuted:
    """Values of the goal's variables that meet its conditions, and the two values of its sides."""

    values: Mapping[Variable, Term]
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Unknown:
    """`stuck` is the smallest subgoal that nothing was found for, if there is one."""

    reason: Reason
    stuck: Equality | None = None


Verdict = Proved | Refuted | Unknown

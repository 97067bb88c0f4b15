"""What may be asked of a prover, and what it says of a goal. The words are those of `prover/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ProblemLanguage(StrEnum):
    """SMT-LIB 2.0 and 2.6 with TIP, or Thoth's own language."""

    SMT_LIB = "smt_lib"
    PROVE = "prove"


class ProofMode(StrEnum):
    """How lemmas are found: for a stuck subgoal, by trying all small ones, or both side by side."""

    DIRECTED = "directed"
    ENUMERATIVE = "enumerative"
    PORTFOLIO = "portfolio"


class ProofVerdict(StrEnum):
    PROVED = "proved"
    REFUTED = "refuted"
    UNKNOWN = "unknown"
    FAILED = "failed"


class UnknownReason(StrEnum):
    """Why a search came to no verdict."""

    TIMEOUT = "timeout"
    STEPS = "steps"
    MEMORY = "memory"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class GoalOutcome:
    """What came of a goal, terms as in SMT-LIB; `goal` is empty where the problem could not even be
    read within the limits.

    Proved: `checked` is what the checker of certificates said; `certificate` and `explanation` are
    there when they were asked for. Refuted: `values` by variable, and both sides for them. Unknown:
    `reason`, and `stuck`, the smallest subgoal that nothing was found for. Failed: `message`.
    """

    goal: str
    statement: str
    verdict: ProofVerdict
    seconds: float
    checked: str = ""
    certificate: Mapping[str, Any] | None = None
    explanation: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    left: str = ""
    right: str = ""
    reason: UnknownReason | None = None
    stuck: str = ""
    message: str = ""

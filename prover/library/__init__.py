"""The laws of the serving system, each with a certificate that the checker replays.

    for law in laws():
        print(law.name, law.verify())

A theory is a file of definitions and goals in the prover's own language, `<theory>.prove`, with the
certificates of its goals beside it. `refuted.prove` has no certificates: what it says is false. The
laws speak of models; tests hold each against the functions of the cluster that it is about.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from prover.checker import Verified, verify
from prover.errors import Rejected
from prover.program import Program, Statement
from prover.syntax.problem import parse

THEORIES = (
    *("attention", "prefill", "batching", "decoding"),
    *("keys", "tree", "eviction", "recency", "blocks", "swap", "copies"),
)


@dataclass(frozen=True, slots=True)
class Law:
    """One goal of a theory; `certificate` is what was found for it once."""

    theory: str
    program: Program
    statement: Statement
    certificate: Any

    @property
    def name(self) -> str:
        return f"{self.theory}.{self.statement.name}"

    def verify(self) -> Verified:
        """What the certificate proves. Raises Rejected where that is not the law."""
        verified = verify(self.program, self.certificate)
        if verified.statement != self.statement:
            raise Rejected(f"it proves {verified.statement.name}")
        return verified


def laws() -> tuple[Law, ...]:
    """All laws, in the order of the theories and of the goals in each."""
    return tuple(law for theory in THEORIES for law in _laws(theory))


def text(theory: str) -> bytes:
    """A theory as it is written; `refuted` is one too."""
    return files(__name__).joinpath(f"{theory}.prove").read_bytes()


def _laws(theory: str) -> list[Law]:
    program = parse(text(theory), f"{theory}.prove")
    certificates = json.loads(files(__name__).joinpath(f"{theory}.json").read_bytes())
    of = {each["goal"]: each for each in certificates}
    return [Law(theory, program, goal, of[goal.name]) for goal in program.goals]

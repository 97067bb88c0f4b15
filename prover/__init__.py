"""Proofs that two functional programs are equal, replayed by an independent checker.

    for outcome in prover.prove(Path("problem.smt2")):
        print(outcome.goal, outcome.verdict)

The trust base is what must be right for a theorem to be one: `terms` and `builtins`, `program`,
`syntax` (which reads a problem), `patterns`, `checks`, `termination`, `sizes` and `linear` (which
refuse definitions that define nothing), `notation` and `checker` (which replay a certificate).
`evaluator` computes ground terms, for tests and for refutations. None of it imports what searches
for proofs; so `prove` is only imported where it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prover.proving import prove as prove


def __getattr__(name: str) -> Any:
    if name == "prove":
        from prover.proving import prove as found  # noqa: PLC0415

        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

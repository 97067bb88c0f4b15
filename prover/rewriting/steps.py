"""The steps of a proof, as `prover.checker` has them, with terms in place of text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Union

from prover.positions import Position
from prover.program import Equality
from prover.terms import Term, Variable, show

Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One side's subterm `old` becomes `new` by a rule, whose conditions are proved."""

    side: Side
    at: Position
    rule: str
    by: tuple[tuple[str, Term], ...]
    backward: bool
    conditions: tuple[Proof, ...]
    old: Term
    new: Term

    def written(self) -> dict[str, Any]:
        data: dict[str, Any] = {"by": "rewrite", "side": self.side, "at": list(self.at)}
        data |= {"rule": self.rule, "with": {name: show(term) for name, term in self.by}}
        if self.backward:
            data["backward"] = True
        if self.conditions:
            data["conditions"] = [written(proof) for proof in self.conditions]
        return data


@dataclass(frozen=True, slots=True)
class Compute:
    """One step of a builtin."""

    side: Side
    at: Position
    old: Term
    new: Term

    def written(self) -> dict[str, Any]:
        return {"by": "compute", "side": self.side, "at": list(self.at)}


@dataclass(frozen=True, slots=True)
class Have:
    """An equality that is proved here, and a hypothesis from then on."""

    name: str
    equality: Equality
    proof: Proof

    def written(self) -> dict[str, Any]:
        left, right = show(self.equality.left), show(self.equality.right)
        data = {"by": "have", "name": self.name, "left": left, "right": right}
        return {**data, "proof": written(self.proof)}


@dataclass(frozen=True, slots=True)
class Injective:
    """Equal constructor terms have equal fields."""

    of: str
    field: int
    name: str

    def written(self) -> dict[str, Any]:
        return {"by": "injective", "of": self.of, "field": self.field, "name": self.name}


@dataclass(frozen=True, slots=True)
class Equal:
    """From `(= s t) = true` to `s = t`."""

    of: str
    name: str

    def written(self) -> dict[str, Any]:
        return {"by": "equal", "of": self.of, "name": self.name}


@dataclass(frozen=True, slots=True)
class Cases:
    """A proof for each constructor that a term may have at its root."""

    of: Term
    name: str
    branches: tuple[tuple[tuple[Variable, ...], Proof], ...]

    def written(self) -> dict[str, Any]:
        branches = [
            {"variables": [v.name for v in fields], "proof": written(proof)}
            for fields, proof in self.branches
        ]
        return {"by": "cases", "of": show(self.of), "name": self.name, "branches": branches}


@dataclass(frozen=True, slots=True)
class Absurd:
    """A hypothesis that no values meet closes the goal."""

    of: str

    def written(self) -> dict[str, Any]:
        return {"by": "absurd", "of": self.of}


@dataclass(frozen=True, slots=True)
class Arguments:
    """Both sides apply one symbol, and the arguments are equal in turn."""

    proofs: tuple[Proof, ...]

    def written(self) -> dict[str, Any]:
        return {"by": "arguments", "proofs": [written(proof) for proof in self.proofs]}


Replacing = Rewrite | Compute
Step = Union[Rewrite, Compute, Have, Injective, Equal, Cases, Absurd, Arguments]  # noqa: UP007
Proof = tuple[Step, ...]


def written(proof: Proof) -> list[dict[str, Any]]:
    """The proof as the data of a certificate."""
    return [step.written() for step in proof]


def reversed_steps(steps: Iterable[Replacing], names: Iterable[str]) -> list[Step]:
    """The same steps back from the last term to the first; a new name for each that computes."""
    back: list[Step] = []
    name = iter(names)
    for step in reversed(list(steps)):
        if isinstance(step, Compute):
            known = Equality(step.old, step.new)
            called = next(name)
            back.append(Have(called, known, (Compute("left", (), step.old, step.new),)))
            back.append(
                Rewrite(
                    step.side, step.at, f"hypothesis:{called}", (), True, (), step.new, step.old
                )
            )
        else:
            back.append(
                Rewrite(
                    step.side,
                    step.at,
                    step.rule,
                    step.by,
                    not step.backward,
                    step.conditions,
                    step.new,
                    step.old,
                )
            )
    return back


def used_rules(proof: Proof) -> Iterable[str]:
    """The names of the rules that a proof uses, as they come, with repetitions."""
    for step in proof:
        match step:
            case Rewrite():
                yield step.rule
                for inner in step.conditions:
                    yield from used_rules(inner)
            case Have():
                yield from used_rules(step.proof)
            case Cases():
                for _, inner in step.branches:
                    yield from used_rules(inner)
            case Arguments():
                for inner in step.proofs:
                    yield from used_rules(inner)
            case _:
                pass

"""A lemma of a certificate, said in other words: what it is made of stays, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Data = Mapping[str, Any]
Typed = Sequence[tuple[str, str]]


class Words(Protocol):
    """What becomes of the words of one lemma. A variable is declared before it is used."""

    def declare(self, typed: Typed) -> list[list[str]]:
        """New variables, each with its sort."""

    def term(self, text: str) -> str: ...

    def rule(self, name: str, given: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The name of a rule, and the terms for its variables."""

    def arms(self, step: Data) -> tuple[dict[str, str], Sequence[tuple[Typed, Any]]]:
        """Of `cases`: what else the step says, and the variables and proofs in their new order."""

    def written_arm(self, variables: list[list[str]]) -> list[Any]:
        """The variables of an arm as the step has them."""


def translated(lemma: Data, name: str, words: Words, order: Sequence[str]) -> dict[str, Any]:
    """The lemma with another name, and its variables in another order.

    Raises whatever comes of reading data that is no lemma.
    """
    sorts = dict(lemma["variables"])
    declared = words.declare([(each, sorts[each]) for each in order])
    called = dict(zip(order, (new for new, _ in declared), strict=True))
    return {
        "name": name,
        "variables": declared,
        "conditions": [[words.term(one), words.term(two)] for one, two in lemma["conditions"]],
        "left": words.term(lemma["left"]),
        "right": words.term(lemma["right"]),
        "on": [called[each] for each in lemma["on"]],
        "cases": [_case(each, words) for each in lemma["cases"]],
    }


def _case(case: Data, words: Words) -> dict[str, Any]:
    declared = words.declare(case["variables"])
    patterns = [words.term(each) for each in case["patterns"]]
    return {"patterns": patterns, "variables": declared, "proof": _proof(case["proof"], words)}


def _proof(proof: Sequence[Data], words: Words) -> list[dict[str, Any]]:
    return [_step(step, words) for step in proof]


def _step(step: Data, words: Words) -> dict[str, Any]:
    new = dict(step)
    match step["by"]:
        case "rewrite":
            new["rule"], new["with"] = words.rule(step["rule"], step.get("with", {}))
            if "conditions" in step:
                new["conditions"] = [_proof(each, words) for each in step["conditions"]]
        case "have":
            new["left"], new["right"] = words.term(step["left"]), words.term(step["right"])
            new["proof"] = _proof(step["proof"], words)
        case "arguments":
            new["proofs"] = [_proof(each, words) for each in step["proofs"]]
        case "cases":
            new["of"] = words.term(step["of"])
            said, arms = words.arms(step)
            new |= said
            new["branches"] = [_arm(typed, proof, words) for typed, proof in arms]
        case _:
            pass  # it speaks of hypotheses and positions alone
    return new


def _arm(typed: Typed, proof: Any, words: Words) -> dict[str, Any]:
    declared = words.written_arm(words.declare(typed))
    return {"variables": declared, "proof": _proof(proof, words)}

"""Lemmas as the data that `prover.checker.verify` takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from prover.checker import FORMAT
from prover.rewriting.steps import written
from prover.search.lemmas import Lemma, LemmaCase
from prover.terms import Variable, show, variables


def certificate(goal: str, lemmas: Sequence[Lemma]) -> dict[str, Any]:
    """The lemmas in order, in groups that were proved together; the last one is the goal."""
    groups = groupby(lemmas, key=lambda lemma: lemma.together or lemma.name)
    written = [[_lemma(each) for each in group] for _, group in groups]
    return {"format": FORMAT, "goal": goal, "groups": written}


def _lemma(lemma: Lemma) -> dict[str, Any]:
    if lemma.data is not None:
        return dict(lemma.data)
    statement = lemma.statement
    return {
        "name": lemma.name,
        "variables": _typed(statement.variables),
        "conditions": [[show(c.left), show(c.right)] for c in statement.conditions],
        "left": show(statement.conclusion.left),
        "right": show(statement.conclusion.right),
        "on": [variable.name for variable in lemma.on],
        "cases": [_case(each) for each in lemma.cases],
    }


def _case(case: LemmaCase) -> dict[str, Any]:
    return {
        "patterns": [show(pattern) for pattern in case.patterns],
        "variables": _typed(variables(*case.patterns)),
        "proof": written(case.proof),
    }


def _typed(found: tuple[Variable, ...]) -> list[list[str]]:
    return [[variable.name, str(variable.sort)] for variable in found]

"""A proof in words: why each lemma was looked for, and each case as two chains of equalities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prover.positions import replace_at
from prover.program import Equality
from prover.rewriting.rules import RuleBook
from prover.rewriting.steps import (
    Absurd,
    Arguments,
    Cases,
    Compute,
    Have,
    Proof,
    Rewrite,
    Step,
    used_rules,
)
from prover.search.conjecture import Conjecture
from prover.search.forms import form
from prover.search.lemmas import Lemma, LemmaCase
from prover.terms import Apply, Term, show, substitute

_INDENT = "  "


class Explainer:
    """Of the lemmas of one proof, in order; the last one is the goal."""

    def __init__(self, book: RuleBook, lemmas: Sequence[Lemma], remarks: Mapping[str, str]) -> None:
        self.book, self.remarks = book, remarks
        self.lemmas = _without_repetition(lemmas)
        self.titles = {each.name: f"lemma {i}" for i, each in enumerate(self.lemmas, 1)}

    def lines(self) -> Iterator[str]:
        *lemmas, goal = self.lemmas
        yield f"Theorem: {_said(goal)}."
        for lemma in lemmas:
            yield f"{self.titles[lemma.name].capitalize()}: {_said(lemma)}."
            if lemma.name in self.remarks:
                yield f"{_INDENT}Why: {self.remarks[lemma.name]}."
            if lemma.data is not None:
                yield f"{_INDENT}It was known: its proof is in the certificate."
            yield from self._proof(lemma)
        yield "Proof of the theorem."
        yield from self._proof(goal)

    def _proof(self, lemma: Lemma) -> Iterator[str]:
        others = [self.titles[name] for name in lemma.together if name != lemma.name]
        if others:
            yield f"{_INDENT}Proved together with {' and '.join(others)}, each for smaller values."
        if lemma.on:
            names = ", then ".join(variable.name for variable in lemma.on)
            found = form(self.book, lemma.conjecture, lemma.on[0])
            yield f"{_INDENT}By induction on {names}{f' (form {found})' if found else ''}."
        for case in lemma.cases:
            yield from self._case(lemma, case)

    def _case(self, lemma: Lemma, case: LemmaCase) -> Iterator[str]:
        by = dict(zip(lemma.on, case.patterns, strict=True))
        conclusion = lemma.statement.conclusion
        goal = Equality(substitute(conclusion.left, by), substitute(conclusion.right, by))
        if by:
            named = " and ".join(f"{v.name} is {show(t)}" for v, t in by.items())
            yield f"{_INDENT}Where {named}:"
        yield from self._told(case.proof, goal, _INDENT * 2 if by else _INDENT)

    def _told(self, proof: Proof, goal: Equality, indent: str) -> Iterator[str]:
        """The chains of both sides, and then what closes the proof."""
        for step in proof:
            if isinstance(step, Have) and not _is_computed(step):
                reasons = self._reasons(step.proof)
                yield f"{indent}We know {step.equality}{f', by {reasons}' if reasons else ''}."
        left, left_lines = self._chain(proof, "left", goal.left, indent)
        right, right_lines = self._chain(proof, "right", goal.right, indent)
        yield from (*left_lines, *right_lines)
        if proof:
            yield from self._closing(proof[-1], Equality(left, right), indent)

    def _chain(self, proof: Proof, side: str, term: Term, indent: str) -> tuple[Term, list[str]]:
        """What a side becomes, a line for each reason."""
        lines: list[tuple[str, str]] = []
        start = term
        for step in proof:
            if isinstance(step, Rewrite | Compute) and step.side == side:
                term = replace_at(term, step.at, step.new)
                reason = self._reason(step)
                if lines and lines[-1][1] == reason:
                    lines.pop()
                lines.append((show(term), reason))
        told = [f"{indent}{_INDENT}= {text}   by {reason}" for text, reason in lines]
        return term, [f"{indent}{show(start)}", *told] if told else []

    def _closing(self, step: Step, goal: Equality, indent: str) -> Iterator[str]:
        match step:
            case Cases():
                shapes = self.book.program.constructors(step.of.sort)
                for shape, (fields, proof) in zip(shapes, step.branches, strict=True):
                    yield f"{indent}If {show(step.of)} is {show(shape(*fields))}:"
                    yield from self._told(proof, goal, indent + _INDENT)
            case Absurd():
                yield f"{indent}This case cannot arise."
            case Arguments():
                assert isinstance(goal.left, Apply)
                assert isinstance(goal.right, Apply)
                pairs = zip(goal.left.arguments, goal.right.arguments, step.proofs, strict=True)
                for one, other, proof in pairs:
                    if proof:
                        yield f"{indent}It remains that {show(one)} = {show(other)}:"
                        yield from self._told(proof, Equality(one, other), indent + _INDENT)
            case _:
                pass

    def _reasons(self, proof: Proof) -> str:
        found = dict.fromkeys(self._named(rule) for rule in used_rules(proof))
        return " and ".join(found)

    def _reason(self, step: Rewrite | Compute) -> str:
        return "definition" if isinstance(step, Compute) else self._named(step.rule)

    def _named(self, rule: str) -> str:
        kind, _, name = rule.partition(":")
        if kind == "lemma":
            return self.titles.get(name, "a lemma")
        if kind == "assume":
            return name
        return {"define": "definition", "ih": "the induction hypothesis"}.get(kind, "assumption")


def _without_repetition(lemmas: Sequence[Lemma]) -> tuple[Lemma, ...]:
    """Without a goal that only says what the lemma before it says."""
    if len(lemmas) > 1 and not lemmas[-1].on:
        (case,) = lemmas[-1].cases
        rules = list(used_rules(case.proof))
        if len(case.proof) == 1 and rules == [f"lemma:{lemmas[-2].name}"]:
            return tuple(lemmas[:-1])
    return tuple(lemmas)


def _said(lemma: Lemma) -> str:
    bound = ", ".join(variable.name for variable in lemma.statement.variables)
    return f"{Conjecture.of(lemma.statement)}" + (f", for all {bound}" if bound else "")


def _is_computed(step: Have) -> bool:
    """Whether it only serves to go a computation backwards."""
    return all(isinstance(each, Compute) for each in step.proof)

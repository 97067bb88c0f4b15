"""A proof with its variables called otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from prover.program import Equality
from prover.rewriting.steps import Arguments, Cases, Compute, Have, Proof, Rewrite, Step
from prover.search.conjecture import Names, names_of
from prover.terms import Term, Variable, substitute


def renamed(proof: Proof, by: Mapping[Variable, Variable], names: Names) -> Proof:
    """The proof in the new names of its free variables; no variable of a case takes one of them."""
    return tuple(_renamed(step, by, names) for step in proof)


def _renamed(step: Step, by: Mapping[Variable, Variable], names: Names) -> Step:
    def of(term: Term) -> Term:
        return substitute(term, by)

    def inner(proof: Proof) -> Proof:
        return renamed(proof, by, names)

    match step:
        case Rewrite():
            given = tuple((name, of(term)) for name, term in step.by)
            conditions = tuple(map(inner, step.conditions))
            old, new = of(step.old), of(step.new)
            return Rewrite(
                step.side, step.at, step.rule, given, step.backward, conditions, old, new
            )
        case Compute():
            return Compute(step.side, step.at, of(step.old), of(step.new))
        case Have():
            equality = Equality(of(step.equality.left), of(step.equality.right))
            return Have(step.name, equality, inner(step.proof))
        case Cases():
            branches = tuple(_branch(*each, by, names) for each in step.branches)
            return Cases(of(step.of), step.name, branches)
        case Arguments():
            return Arguments(tuple(map(inner, step.proofs)))
        case _:
            return step


def _branch(
    fields: tuple[Variable, ...], proof: Proof, by: Mapping[Variable, Variable], names: Names
) -> tuple[tuple[Variable, ...], Proof]:
    """Fields keep their names where nothing else is called so."""
    taken = names_of(by.values())
    called = dict(by)
    for field in fields:
        new = field if field.name not in taken else names.fresh(field.sort, taken)
        taken[new.name] = None
        called[field] = new
    return tuple(called[field] for field in fields), renamed(proof, called, names)

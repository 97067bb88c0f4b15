"""Step lemmas: `t[C(a, s)] = phi(a, t[s], ys)`, with a small phi that is to be found.

With one for each constructor, t is itself a structural recursion, and its composition is gone. The
leaves of phi are the holes, that is `t[s]` for each recursive field s, the other fields and the
parameters; s itself only where these are not enough, and an auxiliary value of s after that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from prover.samples.samples import Samples
from prover.synthesis.bank import operators
from prover.synthesis.fitting import Task, fitting
from prover.synthesis.lifting import auxiliaries
from prover.terms import BOOL, Apply, Kind, Symbol, Term, Variable, substitute, subterms, variables

MOST_TERMS = 6_000
_MOST_AUXILIARIES = 3


@dataclass(frozen=True, slots=True)
class StepProblem:
    """`term` is t[x] with `variable` x. Each hole is a new variable with the t[s] it stands for."""

    term: Term
    variable: Variable
    constructor: Symbol
    fields: tuple[Variable, ...]
    holes: tuple[tuple[Variable, Term], ...]
    parameters: tuple[Variable, ...]

    @property
    def value(self) -> Term:
        """`C(fields)`, which x is."""
        return self.constructor(*self.fields)

    @property
    def target(self) -> Term:
        return substitute(self.term, {self.variable: self.value})

    @property
    def recursive(self) -> tuple[Variable, ...]:
        """The fields that hold values of the same data type."""
        return tuple(field for field in self.fields if field.sort is self.variable.sort)


def solutions(
    problem: StepProblem,
    samples: Samples,
    ranks: Mapping[Symbol, int],
    most_rank: int,
    budget: int = MOST_TERMS,
) -> Iterator[Term]:
    """Candidates for phi, smallest first; `budget` bounds the terms that are computed at a time.

    They are right on all samples. None where no small term is: that is no proof that there is none.
    """
    first = _task(problem, samples, ranks, most_rank, budget)
    own = tuple((field, field) for field in problem.recursive)
    second = replace(first, leaves=first.leaves + own, forbidden=(problem.value,))
    found = False
    for term in fitting(first, samples):
        found = True
        yield term
    if not found and own:
        for term in fitting(second, samples):
            if _uses_hole(problem, term):
                found = True
                yield term
    if not found and own:
        yield from _lifted(problem, first, samples)


def _task(
    problem: StepProblem,
    samples: Samples,
    ranks: Mapping[Symbol, int],
    most_rank: int,
    budget: int,
) -> Task:
    others = [field for field in problem.fields if field not in problem.recursive]
    plain = dict.fromkeys((*others, *problem.parameters))
    functions = [
        part
        for part in subterms(problem.term)
        if part.sort.is_function and isinstance(part, Apply)
        if all(variable in plain for variable in variables(part))
    ]
    own: tuple[Term, ...] = (*plain, *functions)
    leaves = (*problem.holes, *((leaf, leaf) for leaf in own))
    made_of = operators(samples.program, [problem.term], ranks, most_rank)
    by_rank = tuple(sorted(made_of, key=lambda symbol: ranks.get(symbol, 0)))
    return Task(problem.target, leaves, by_rank, budget)


def _uses_hole(problem: StepProblem, term: Term) -> bool:
    """Whether it is a recursion at all, and no term of the whole value."""
    return not problem.holes or any(hole in variables(term) for hole, _ in problem.holes)


def _lifted(problem: StepProblem, first: Task, samples: Samples) -> Iterator[Term]:
    """The same with an auxiliary value of each recursive field among the leaves."""
    test = Symbol("ite", (BOOL, *[problem.term.sort] * 2), problem.term.sort, Kind.BUILTIN)
    made_of = tuple(dict.fromkeys((*first.operators, test)))
    found = auxiliaries(first, samples, problem.variable, problem.recursive)
    for auxiliary in itertools.islice(found, _MOST_AUXILIARIES):
        added = [substitute(auxiliary, {problem.variable: field}) for field in problem.recursive]
        leaves = first.leaves + tuple((each, each) for each in added)
        task = Task(first.target, leaves, made_of, first.most // 2, (problem.value,))
        yield from (term for term in fitting(task, samples) if _uses_hole(problem, term))

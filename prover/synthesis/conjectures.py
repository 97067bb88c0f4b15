"""Equations that hold on all samples, smallest first: what heuristic enumeration calls lemmas.

All terms over some variables are grown by size; one with the values of an earlier one gives an
equation (observational equivalence, as in QuickSpec: Claessen, Smallbone, Hughes, 2010). What
follows by rewriting with what is known is left out, and with it every instance of a known lemma;
so is what differs from an earlier equation in the names of its variables alone. Of one size those
with the most variables come first, for they say the most.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

from prover.program import Equality, Program, Statement
from prover.samples.samples import Samples
from prover.synthesis.bank import Bank
from prover.terms import Apply, Kind, Sort, Symbol, Term, Variable, substitute, subterms, variables

_MOST_SIZE = 9
_NUM_ROWS = 45  # the smaller ones; all others test what was found
_NUM_VARIABLES = 3  # of one sort


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The symbols that equations are made of, and the variables of each sort."""

    operators: tuple[Symbol, ...]
    variables: tuple[Variable, ...]


def vocabulary(program: Program, goal: Statement) -> Vocabulary:
    """The functions that a goal names and those which their equations call; no other."""
    reached: dict[Symbol, None] = {}
    waiting = [side for each in goal.equalities() for side in (each.left, each.right)]
    while waiting:
        for part in subterms(waiting.pop()):
            if isinstance(part, Apply) and part.symbol not in reached:
                reached[part.symbol] = None
                function = program.functions.get(part.symbol)
                waiting += [equation.right for equation in function.equations] if function else []
    used = [s for s in reached if s.kind in (Kind.FUNCTION, Kind.CONSTRUCTOR, Kind.LITERAL)]
    sorts = dict.fromkeys(sort for symbol in used for sort in (*symbol.arguments, symbol.result))
    constructors = [c for sort in sorts for c in program.constructors(sort)]
    among = [Variable(f"{n} {i}", s) for i, s in enumerate(sorts) for n in range(_NUM_VARIABLES)]
    return Vocabulary(tuple(dict.fromkeys((*constructors, *used))), tuple(among))


def lemmas(
    samples: Samples,
    words: Vocabulary,
    normal: Callable[[Term], Term],
    most: int,
    largest: int = _MOST_SIZE,
) -> Iterator[Equality]:
    """Equations of terms up to a size that the samples keep. `normal` says what rewriting makes of
    a term by now: a term that it changes is no part of any equation, and what it makes the same is
    known.
    """
    among = words.variables
    batch = samples.batch(among).first(_NUM_ROWS)
    bank = Bank(batch, words.operators, most, _Everything(), lambda term: normal(term) is term)
    constants = [symbol() for symbol in words.operators if not symbol.arguments]
    leaves: list[Term] = [*among, *constants]
    for leaf in leaves:
        column = batch.column(leaf)
        if None not in column:
            bank.add(leaf, column)
    given: dict[tuple[Term, Term], None] = {}
    for size in range(2, largest + 1):
        met: dict[tuple[Term, Term], None] = {}
        for term, column in bank.grow(size):
            other = bank.of(term.sort, column)
            if other is not None and other is not term:
                met.setdefault(_named(term, other))
        for equation in sorted(met, key=lambda sides: -len(variables(*sides))):
            left, right = map(normal, equation)
            if equation not in given and left is not right and _survives(samples, *equation):
                given[equation] = None
                yield Equality(*equation)


class _Everything(Container[Any]):
    """Every column is asked for: each term is compared with the one that stands for its class."""

    def __contains__(self, _key: Any) -> bool:
        return True


def _named(left: Term, right: Term) -> tuple[Term, Term]:
    """The sides with variables named by place, so that no two equations differ in names alone."""
    counts: dict[Sort, int] = {}
    by: dict[Variable, Variable] = {}
    for each in variables(left, right):
        by[each] = Variable(f"{counts.setdefault(each.sort, 0)} {each.sort}", each.sort)
        counts[each.sort] += 1
    return substitute(left, by), substitute(right, by)


def _survives(samples: Samples, left: Term, right: Term) -> bool:
    statement = Statement("", variables(left, right), (), Equality(left, right))
    return samples.may_hold(left, right) and samples.counterexample(statement) is None

"""The two tactics: lemmas that make the induction hypothesis fit, found by synthesis.

Both ask one thing of a term t[x] in which x stands deeper than its calls can see, at a constructor
C: `t[C(a, s)] = phi(a, t[s], ys)` for a small phi. Where t is a composition f(g(x)) the lemma moves
f past what g has made of C (tactic 1, `sum (snoc a xs) = plus (sum xs) a`). Where t is a call that
recurses on another argument than x the lemma gives it a second recursion (tactic 2, `plus n (S m)
= S (plus n m)`). With such a lemma for every constructor, t is a single structural recursion on x:
a side of form F1. Two sides of that form on the same x are of form F2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from prover.samples.samples import Samples
from prover.search.accumulators import symbols
from prover.search.branch import is_builtin
from prover.search.conjecture import Conjecture, names_of
from prover.search.generalise import replaced
from prover.search.hypotheses import Case
from prover.search.remarks import Remarks
from prover.search.splitting import is_call, waits
from prover.search.tasks import Find
from prover.search.tools import Tools
from prover.synthesis.bank import operators
from prover.synthesis.fitting import Task as Fitting
from prover.synthesis.fitting import fitting
from prover.synthesis.steps import StepProblem, solutions
from prover.terms import (
    Apply,
    Symbol,
    Term,
    Variable,
    show,
    substitute,
    subterms,
    variables,
)

_MOST_SOLUTIONS = 2
_LARGEST_TERM = 14
_FEWEST_TERMS = 800  # computed for one problem at the lowest depth; twice as many above


class Tactic(StrEnum):
    """Which of the two a step lemma belongs to."""

    COMPOSITION = "remove a composition"
    SWITCH = "switch the recursive argument"


@dataclass(slots=True)
class Tactics:
    """Step lemmas of one program, each looked for once at each depth."""

    tools: Tools
    samples: Samples
    find: Find
    remarks: Remarks
    _tried: dict[object, int] = field(default_factory=dict)

    def forget(self) -> None:
        """What was tried may be tried again."""
        self._tried.clear()

    def learn(self, goal: Sequence[Term], case: Case, depth: int) -> bool:
        """Whether a step lemma was proved: for a term of the statement, or a call in the goal."""
        for variable, pattern in case.patterns.items():
            if isinstance(pattern, Apply):
                for term in self._terms(case.conjecture.terms(), variable):
                    if self._learn_all(term, variable, depth):
                        return True
        if any(self._learn_all(*each, depth) for each in self._blocked(goal)):
            return True
        return any(self._move(call, depth) for call in self._compositions(goal))

    def _compositions(self, goal: Sequence[Term]) -> list[Apply]:
        """Calls that wait for what another call gives, with variables for what that one takes."""
        found: dict[Apply, None] = {}
        for wait in waits(self.tools.book, *goal):
            inner = wait.argument
            direct = any(argument is inner for argument in wait.call.arguments)
            if direct and isinstance(inner, Apply) and inner.symbol in self.tools.book.defined:
                found[self._outline(wait.call, inner)] = None
        return sorted(found, key=lambda call: call.size)

    def _outline(self, call: Apply, inner: Apply) -> Apply:
        """`f(g(w, ..), y)` of a call f(g(..), ..): variables in place of all else."""
        taken: dict[str, None] = {}

        def named(term: Term) -> Variable:
            variable = self.tools.names.fresh(term.sort, taken)
            taken[variable.name] = None
            return variable

        by: dict[Term, Term] = {}
        for argument in inner.arguments:
            by[argument] = by.get(argument) or named(argument)
        new = inner.symbol(*(by[argument] for argument in inner.arguments))
        rest = [new if a is inner else by.get(a) or named(a) for a in call.arguments]
        return call.symbol(*rest)

    def _move(self, call: Apply, depth: int) -> bool:
        """Whether a lemma `f(g(w, ..), y) = phi(f(w, y), ..)` was proved: tactic 1."""
        key, _ = self.tools.names.canonical(Conjecture(call, call))
        if self._tried.get(key, -1) >= depth or self.tools.normaliser({}).normal(call) is not call:
            return False
        self._tried[key] = depth
        met: dict[Term, None] = {}
        for right in self._moved(call, _FEWEST_TERMS << max(depth, 0)):
            normal = self.tools.normaliser({}).normal(right)
            if normal in met or normal is call:
                continue
            met[normal] = None
            if len(met) > _MOST_SOLUTIONS:
                break
            found = self.find([Conjecture(call, normal)], depth)
            if found is not None:
                self.remarks.add(found.name, f"{Tactic.COMPOSITION}, for {show(call)}")
                return self.tools.normaliser({}).normal(call) is not call
        return False

    def _moved(self, call: Apply, most_terms: int) -> Iterator[Term]:
        """What the call may be, made of the same call on each variable that it fits."""
        inner = next(a for a in call.arguments if isinstance(a, Apply))
        holes: dict[Variable, Term] = {}
        for argument in variables(inner):
            if argument.sort is inner.sort:
                rest = [argument if a is inner else a for a in call.arguments]
                holes[Variable(f" hole{len(holes)}", call.sort)] = call.symbol(*rest)
        ranks = self.tools.book.ordering.ranks
        most = max(ranks.get(symbol, 0) for symbol in symbols(call))
        made_of = operators(self.tools.program, [call], ranks, most)
        plain = tuple((v, v) for v in variables(call))
        usable = tuple(s for s in made_of if s not in (call.symbol, inner.symbol))
        wider = (*usable, inner.symbol) if inner.sort is call.sort else usable
        task = Fitting(call, (*holes.items(), *plain), wider, most_terms)
        before = self.samples.steps
        for phi in fitting(task, self.samples):
            if any(hole in variables(phi) for hole in holes):
                yield substitute(phi, holes)
        self.tools.meter.spend(1 + (self.samples.steps - before) // 64)

    def _learn_all(self, term: Term, variable: Variable, depth: int) -> bool:
        return any(
            self._learn(self._problem(term, variable, constructor), depth)
            for constructor in self.tools.program.constructors(variable.sort)
            if variable.sort in constructor.arguments
        )

    def _blocked(self, goal: Sequence[Term]) -> list[tuple[Term, Variable]]:
        """Calls with a constructor where they do not look for one, and a variable in its place."""
        found: dict[Term, Variable] = {}
        for call in (part for side in goal for part in subterms(side) if is_call(part)):
            for part in subterms(call):
                if isinstance(part, Apply) and part.is_constructor and part.size > 1:
                    variable = self.tools.names.fresh(part.sort, names_of(variables(call)))
                    found[replaced(Conjecture(call, call), part, variable).left] = variable
        small = [each for each in found.items() if each[0].size <= _LARGEST_TERM]
        return sorted(small, key=lambda each: each[0].size)

    def _terms(self, sides: tuple[Term, ...], variable: Variable) -> list[Term]:
        met = dict.fromkeys(part for side in sides for part in subterms(side))
        calls = [t for t in met if is_call(t) and variable in variables(t)]
        return sorted((t for t in calls if t.size <= _LARGEST_TERM), key=lambda t: t.size)

    def _problem(self, term: Term, variable: Variable, constructor: Symbol) -> StepProblem:
        names = self.tools.names
        taken = names_of(variables(term))
        fields: list[Variable] = []
        holes: list[tuple[Variable, Term]] = []
        for sort in constructor.arguments:
            fields.append(names.part_of(variable, sort, taken))
            taken[fields[-1].name] = None
        for each in fields:
            if each.sort is variable.sort:
                hole = Variable(f" hole{len(holes)}", term.sort)
                holes.append((hole, substitute(term, {variable: each})))
        others = tuple(v for v in variables(term) if v is not variable)
        return StepProblem(term, variable, constructor, tuple(fields), tuple(holes), others)

    def _learn(self, problem: StepProblem, depth: int) -> bool:
        key = self._key(problem)
        unfolded = self.tools.normaliser({}).normal(problem.target)
        if all(any(p is meaning for p in subterms(unfolded)) for _, meaning in problem.holes):
            return False
        if self._tried.get((key, unfolded), -1) >= depth or _has_condition(unfolded):
            return False
        self._tried[key, unfolded] = depth
        back: Mapping[Variable, Term] = dict(problem.holes)
        met: dict[Term, None] = {}
        for phi in self._solutions(problem, _FEWEST_TERMS << max(depth, 0)):
            right = self.tools.normaliser({}).normal(substitute(phi, back))
            if right in met:
                continue
            met[right] = None
            if len(met) > _MOST_SOLUTIONS:
                break
            wanted = Conjecture(unfolded, right)
            found = self.find([wanted], depth)
            if found is not None:
                self._remark(found.name, problem, phi)
                return self.tools.normaliser({}).normal(problem.target) is not unfolded
        return False

    def _key(self, problem: StepProblem) -> object:
        named, _ = self.tools.names.canonical(Conjecture(problem.term, problem.value))
        return named

    def _solutions(self, problem: StepProblem, most_terms: int) -> Iterator[Term]:
        ranks = self.tools.book.ordering.ranks
        most = max((ranks.get(s, 0) for s in symbols(problem.term)), default=0)
        before = self.samples.steps
        for phi in solutions(problem, self.samples, ranks, most, most_terms):
            self.tools.meter.spend(1 + (self.samples.steps - before) // 64)
            before = self.samples.steps
            yield phi
        self.tools.meter.spend(1 + (self.samples.steps - before) // 64)

    def _remark(self, lemma: str, problem: StepProblem, phi: Term) -> None:
        switches = _is_call_on(problem.term, problem.variable)
        tactic = Tactic.SWITCH if switches else Tactic.COMPOSITION
        step = show(substitute(phi, dict(problem.holes)))
        self.remarks.add(lemma, f"{tactic}, for {show(problem.target)} = {step}")


def _has_condition(term: Term) -> bool:
    """Whether the term is not the same in all cases: then each case asks for its own lemma."""
    return any(is_builtin(part, "ite") for part in subterms(term))


def _is_call_on(term: Term, variable: Variable) -> bool:
    return isinstance(term, Apply) and any(a is variable for a in term.arguments)

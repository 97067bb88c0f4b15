"""Makes a hypothesis fit: where all but one argument of a call is an instance of it, the last
argument is to be written as one.

The hypothesis `g(s, f(s, y)) = ...` does not speak of `g(s, f(h(s), z))`, but of the same call once
`f(h(s), z) = f(s, phi)` is known. Such a phi is found by synthesis, and the equality is a lemma.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prover.patterns import match
from prover.positions import Position, replace_at, subterm_at
from prover.rewriting.rules import Rule
from prover.rewriting.steps import Rewrite, Side
from prover.samples.samples import Samples
from prover.search.branch import Branch
from prover.search.conjecture import Conjecture
from prover.search.hypotheses import Case
from prover.search.splitting import is_call
from prover.search.tasks import Find, Found
from prover.search.tools import Tools
from prover.synthesis.bank import operators
from prover.synthesis.fitting import Task, fitting
from prover.terms import Apply, Term, Variable, rebuild, substitute, variables

_MOST_TERMS = 1_500
_MOST_MISFITS = 4


@dataclass(frozen=True, slots=True)
class Misfit:
    """`pattern` should have the value of the subterm `term`; `rule` then fits at `call`."""

    side: Side
    call: Position
    at: Position
    pattern: Term
    term: Term
    rule: Rule


@dataclass(slots=True)
class Fitter:
    """Of one program."""

    tools: Tools
    samples: Samples
    find: Find

    def fit(self, branch: Branch, case: Case, depth: int) -> Iterator[Branch]:
        """The branch after a hypothesis was made to fit, for each place where one can be."""
        rules = [rule for way in (False, True) for rule in case.rules(way) if not rule.conditions]
        misfits = [m for rule in rules for m in _misfits(branch, rule)]
        for misfit in misfits[:_MOST_MISFITS]:
            for wanted in self._choices(misfit):
                found = self.find([Conjecture(misfit.term, wanted)], depth)
                fitted = _fitted(branch, misfit, wanted, found) if found is not None else None
                if fitted is not None:
                    yield fitted

    def _choices(self, misfit: Misfit) -> Iterator[Term]:
        """Instances of the pattern with the value of the term: the first that is found."""
        holes: dict[Term, Variable] = {}

        def leaf(part: Term) -> Term | None:
            own = isinstance(part, Apply) and not part.is_ground and _is_fixed(misfit.rule, part)
            if own:
                return holes.setdefault(part, Variable(f" hole{len(holes)}", part.sort))
            return None

        pattern = rebuild(misfit.pattern, leaf)
        meant = tuple((hole, meaning) for meaning, hole in holes.items())
        plain = variables(misfit.term, *(v for v in misfit.rule.fixed))
        made_of = operators(self.tools.program, [misfit.pattern], {}, 0)
        named = [p.symbol for p in _calls(misfit.pattern, misfit.term)]
        usable = tuple(dict.fromkeys((*named, *(s for s in made_of))))
        task = Task(misfit.term, (*meant, *((v, v) for v in plain)), usable, _MOST_TERMS)
        before = self.samples.steps
        for phi in fitting(task, self.samples):
            if match(pattern, phi, {v: v for v in (*misfit.rule.fixed, *holes.values())}):
                yield substitute(phi, dict(meant))
                break
        self.tools.meter.spend(1 + (self.samples.steps - before) // 64)


def _calls(*terms: Term) -> Iterator[Apply]:
    stack = list(terms)
    while stack:
        part = stack.pop()
        if isinstance(part, Apply):
            stack.extend(part.arguments)
            if is_call(part):
                yield part


def _is_fixed(rule: Rule, term: Term) -> bool:
    return all(variable in rule.fixed for variable in variables(term))


def _misfits(branch: Branch, rule: Rule) -> Iterator[Misfit]:
    sides: tuple[tuple[Side, Term], ...] = (("left", branch.left), ("right", branch.right))
    for side, whole in sides:
        stack: list[tuple[Position, Term]] = [((), whole)]
        while stack:
            at, part = stack.pop()
            if isinstance(part, Apply):
                stack += [((*at, i), each) for i, each in enumerate(part.arguments)]
                misfit = _misfit(rule, part)
                if misfit is not None:
                    inner, pattern = misfit
                    term = subterm_at(part, inner)
                    yield Misfit(side, at, (*at, *inner), pattern, term, rule)


def _misfit(rule: Rule, call: Apply) -> tuple[Position, Term] | None:
    """The only argument that does not fit, if it is a call that has variables to fill."""
    assert isinstance(rule.left, Apply)
    if rule.left.symbol is not call.symbol or len(rule.left.arguments) != len(call.arguments):
        return None
    bound: dict[Variable, Term] = {v: v for v in rule.fixed}
    wrong: list[tuple[Position, Term]] = []
    for index, (pattern, term) in enumerate(zip(rule.left.arguments, call.arguments, strict=True)):
        trial = dict(bound)
        if match(pattern, term, trial):
            bound = trial
        else:
            wrong.append(((index,), substitute(pattern, bound)))
    if len(wrong) != 1:
        return None
    _, pattern = wrong[0]
    fills = any(v not in rule.fixed and v not in bound for v in variables(pattern))
    return wrong[0] if fills and is_call(pattern) else None


def _fitted(branch: Branch, misfit: Misfit, wanted: Term, found: Found) -> Branch | None:
    """Rewrites the argument by the lemma, and the call by the hypothesis if it fits at last."""
    other = branch.fork(branch.left, branch.right)
    given = tuple((v.name, found.by[v]) for v in found.statement.variables())
    side, rule = misfit.side, misfit.rule
    first = Rewrite(
        side, misfit.at, f"lemma:{found.name}", given, found.backward, (), misfit.term, wanted
    )
    whole = branch.left if side == "left" else branch.right
    whole = replace_at(whole, misfit.at, wanted)
    call = subterm_at(whole, misfit.call)
    bound = rule.bind(call)
    if bound is None:
        return None
    by = tuple((name, substitute(term, bound)) for name, term in rule.given)
    new = substitute(rule.right, bound)
    second = Rewrite(side, misfit.call, rule.name, by, rule.backward, (), call, new)
    whole = replace_at(whole, misfit.call, new)
    if side == "left":
        other.left = whole
    else:
        other.right = whole
    other.steps = [*branch.steps, first, second]
    return other

"""Normal forms, and how each came about.

Terms are rewritten from the inside: arguments first, then the root by facts, builtins, definitions,
hypotheses and lemmas, in this order; of an `ite` the condition first, and then only the branch that
is taken. What was found for a term is remembered with its steps, so a trace is a shared graph; it
becomes a list of steps with positions only when a proof is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prover.builtins import FALSE, TRUE, reduce
from prover.positions import Position, replace_at
from prover.program import Equality
from prover.rewriting.meter import Meter
from prover.rewriting.rules import Rule, RuleBook
from prover.rewriting.steps import Compute, Proof, Replacing, Rewrite, Side
from prover.terms import Apply, Kind, Term, Variable, make, substitute

_LARGEST = 600  # symbols: no rule may make a larger term
_MOST_STEPS = 600  # for one term, with all that it becomes
_CONDITIONS_DEEP = 2


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """A rule at the root of a term: what it bound, and proofs of its conditions."""

    rule: Rule
    bound: Mapping[Variable, Term]
    conditions: tuple[Proof, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """From `start` to `result`: the arguments' traces, a root step (None computes), and the rest.

    `between` stands after the arguments' steps, and `after` after the root's.
    """

    start: Term
    result: Term
    parts: tuple[Trace, ...] = ()
    between: Term | None = None
    use: Use | None = None
    after: Trace | None = None

    def steps(self, side: Side, at: Position = ()) -> Iterator[Replacing]:
        """The steps of a proof, with the term at this position of this side."""
        yield from self._inside(side, at)
        if self.after is not None:
            assert self.between is not None
            yield self._root(side, at, self.between, self.after.start)
            yield from self.after.steps(side, at)

    def _inside(self, side: Side, at: Position) -> Iterator[Replacing]:
        if _applies_a_function(self.start) and self.parts:
            yield from self._collapsing(side, at)
            return
        for index, part in enumerate(self.parts):
            if part.result is not part.start:
                yield from part.steps(side, (*at, index))

    def _collapsing(self, side: Side, at: Position) -> Iterator[Replacing]:
        """Once the function under @ is a symbol with too few arguments, no @ is there any more."""
        function, argument = self.parts
        yield from argument.steps(side, (*at, 1))
        head = function.start
        gone = False
        for step in function.steps(side, ()):
            place = step.at if gone else (0, *step.at)
            yield _moved(step, (*at, *place))
            head = replace_at(head, step.at, step.new)
            gone = gone or (isinstance(head, Apply) and head.is_partial)

    def _root(self, side: Side, at: Position, old: Term, new: Term) -> Replacing:
        if self.use is None:
            return Compute(side, at, old, new)
        rule, bound = self.use.rule, self.use.bound
        by = tuple((name, substitute(term, bound)) for name, term in rule.given)
        return Rewrite(side, at, rule.name, by, rule.backward, self.use.conditions, old, new)


def _applies_a_function(term: Term) -> bool:
    return (
        isinstance(term, Apply)
        and term.symbol.name == "@"
        and term.symbol.kind is Kind.BUILTIN
        and not term.is_partial
    )


def _moved(step: Replacing, at: Position) -> Replacing:
    if isinstance(step, Compute):
        return Compute(step.side, at, step.old, step.new)
    return Rewrite(
        step.side, at, step.rule, step.by, step.backward, step.conditions, step.old, step.new
    )


class Normaliser:
    """Normal forms under some facts (equalities of these very terms) and local rules."""

    def __init__(
        self,
        book: RuleBook,
        meter: Meter,
        facts: Mapping[Term, Rule] | None = None,
        local: Sequence[Rule] = (),
    ) -> None:
        self.book, self.meter = book, meter
        self.facts = facts or {}
        self.local: dict[object, list[Rule]] = {}
        for rule in local:
            assert isinstance(rule.left, Apply)
            self.local.setdefault(rule.left.symbol, []).append(rule)
        self._memo: dict[Term, Trace] = {}
        self._version = book.version
        self._left = _MOST_STEPS
        self._deep = 0

    def trace(self, term: Term) -> Trace:
        """How the term comes to its normal form; one that takes too many steps stays as it is."""
        if self._version != self.book.version:
            self._memo, self._version = {}, self.book.version
        self._left = _MOST_STEPS
        found = self._trace(term)
        if self._left > 0:
            return found
        self._memo = {}
        return Trace(term, term)

    def normal(self, term: Term) -> Term:
        return self.trace(term).result

    def proof(self, equality: Equality) -> Proof | None:
        """That both sides have one normal form, if they have."""
        left, right = self._trace(equality.left), self._trace(equality.right)
        if left.result is not right.result:
            return None
        return (*left.steps("left"), *right.steps("right"))

    def _trace(self, term: Term) -> Trace:
        found = self._memo.get(term)
        if found is None:
            found = self._new_trace(term)
            self._memo[term] = found
        return found

    def _new_trace(self, term: Term) -> Trace:
        parts = self._parts(term)
        between = term
        if any(part.result is not part.start for part in parts):
            assert isinstance(term, Apply)
            between = make(term.symbol, tuple(part.result for part in parts))
        else:
            parts = ()
        found = self._step(between) if self._left > 0 else None
        if found is None:
            return Trace(term, between, parts)
        use, new = found
        self._left -= 1
        self.meter.spend()
        after = self._trace(new)
        return Trace(term, after.result, parts, between, use, after)

    def _parts(self, term: Term) -> tuple[Trace, ...]:
        if isinstance(term, Variable) or not term.arguments:
            return ()
        if term.symbol.name == "ite" and not term.is_partial:
            condition = self._trace(term.arguments[0])
            if condition.result in (TRUE, FALSE):
                return (condition, *(Trace(part, part) for part in term.arguments[1:]))
        return tuple(self._trace(part) for part in term.arguments)

    def _step(self, term: Term) -> tuple[Use | None, Term] | None:
        """A step at the root: the use of a rule, or none for what a builtin computes."""
        known = self.facts.get(term)
        if known is not None:
            return Use(known, {}, ()), known.right
        if isinstance(term, Variable) or term.is_partial:
            return None
        new = reduce(term)
        if new is not term:
            return None, new
        for rule in self.book.defined.get(term.symbol, ()):
            bound = rule.bind(term)
            if bound is not None:
                new = substitute(rule.right, bound)
                return (Use(rule, bound, ()), new) if new.size <= _LARGEST else None
        return self._learned_step(term)

    def _learned_step(self, term: Apply) -> tuple[Use | None, Term] | None:
        for rules in (self.local.get(term.symbol, ()), self.book.learned.get(term.symbol, ())):
            for rule in rules:
                bound = rule.bind(term)
                if bound is None:
                    continue
                new = substitute(rule.right, bound)
                if new.size > _LARGEST or (rule.ordered and not self.book.simpler(term, new)):
                    continue
                conditions = self._conditions(rule, bound)
                if conditions is not None:
                    return Use(rule, bound, conditions), new
        return None

    def _conditions(self, rule: Rule, bound: Mapping[Variable, Term]) -> tuple[Proof, ...] | None:
        if not rule.conditions:
            return ()
        if self._deep >= _CONDITIONS_DEEP:
            return None
        self._deep += 1
        memo, self._memo = self._memo, {}  # what is found at this depth may miss conditions
        proofs = []
        for condition in rule.conditions:
            left, right = substitute(condition.left, bound), substitute(condition.right, bound)
            proof = self.proof(Equality(left, right))
            if proof is None:
                break
            proofs.append(proof)
        self._memo = memo
        self._deep -= 1
        return tuple(proofs) if len(proofs) == len(rule.conditions) else None

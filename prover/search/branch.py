"""One branch of a proof: a goal, and what holds in it.

Hypotheses are kept simplified by each other, and serve as facts: each rewrites one term. Every
change is a step of the proof that is being written. A branch is copied where the proof forks.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

from prover.builtins import FALSE, TRUE, are_distinct, is_inside
from prover.program import Equality
from prover.rewriting.normaliser import Normaliser, Trace
from prover.rewriting.rules import Rule, fact
from prover.rewriting.steps import (
    Absurd,
    Equal,
    Have,
    Injective,
    Proof,
    Replacing,
    Rewrite,
    Step,
    reversed_steps,
)
from prover.search.tools import Tools
from prover.terms import Apply, Kind, Symbol, Term, Variable, subterms

_MOST_FACTS = 40


class Branch:
    """Mutable; `left` and `right` are the goal's sides, `steps` what was done so far."""

    def __init__(self, tools: Tools, left: Term, right: Term, taken: dict[str, None]) -> None:
        self.tools = tools
        self.left, self.right = left, right
        self.taken = taken  # names of variables; shared by all branches of a lemma's proof
        self.steps: list[Step] = []
        self.facts: dict[Term, Rule] = {}
        self.sources: dict[Term, tuple[str, Equality]] = {}
        self.local: tuple[Rule, ...] = ()
        self.protected: dict[Variable, None] = {}
        self.is_closed = False
        self.has_hypotheses = False  # of the induction, among the facts
        self.num_splits = 0
        self._num_names = 0
        self._normaliser: Normaliser | None = None

    def fork(self, left: Term, right: Term) -> Branch:
        """A branch with the same facts, another goal, and no steps yet."""
        other = copy(self)
        other.left, other.right, other.steps = left, right, []
        other.facts, other.sources = dict(self.facts), dict(self.sources)
        other.is_closed = False
        return other

    def again(self) -> Branch:
        """The branch as it stands, to be gone on with in another way."""
        other = self.fork(self.left, self.right)
        other.steps = list(self.steps)
        return other

    def proof(self, *last: Step) -> Proof:
        return (*self.steps, *last)

    def goal(self) -> Equality:
        return Equality(self.left, self.right)

    def normaliser(self) -> Normaliser:
        if self._normaliser is None:
            self._normaliser = self.tools.normaliser(self.facts, self.local)
        return self._normaliser

    def use(self, rules: tuple[Rule, ...]) -> None:
        """Rewrites by these rules too from now on."""
        self.local = rules
        self._normaliser = None

    def simplify(self) -> bool:
        """Brings both sides to normal form; whether something changed."""
        before = self.goal()
        left, right = self.normaliser().trace(self.left), self.normaliser().trace(self.right)
        self.steps += left.steps("left")
        self.steps += right.steps("right")
        self.left, self.right = left.result, right.result
        self.is_closed = self.is_closed or self.left is self.right
        return self.goal() != before

    def new_name(self) -> str:
        """A name for a hypothesis."""
        self._num_names += 1
        return f"h{self._num_names}"

    # Hypotheses

    def assume(self, name: str, equality: Equality) -> None:
        """A hypothesis that is there: simplified, taken apart, and made a fact."""
        waiting = [(name, equality)]
        while waiting and not self.is_closed and len(self.facts) < _MOST_FACTS:
            waiting += self._digest(*self._simplified(*waiting.pop(0)))

    def add_proved(self, name: str, equality: Equality) -> None:
        """A hypothesis as it stands, though lemmas would simplify it away."""
        waiting = list(self._digest(name, equality))
        waiting += [self.sources[term] for term in self.facts if term is not equality.left]
        for each, known in waiting:
            self.assume(each, known)

    def _simplified(self, name: str, equality: Equality) -> tuple[str, Equality]:
        normaliser = self.normaliser()
        left, right = normaliser.trace(equality.left), normaliser.trace(equality.right)
        new = Equality(left.result, right.result)
        if new == equality or left.result is right.result:
            return name, new
        called = self.new_name()
        self.steps.append(Have(called, new, tuple(self._derived(name, left, right))))
        return called, new

    def _derived(self, name: str, left: Trace, right: Trace) -> Iterator[Step]:
        """From the simplified left side back to the left side, to the right one, and down."""
        forward: list[Replacing] = list(left.steps("left"))
        yield from reversed_steps(forward, self._names())
        rule = f"hypothesis:{name}"
        yield Rewrite("left", (), rule, (), False, (), left.start, right.start)
        yield from right.steps("left")

    def _names(self) -> Iterator[str]:
        while True:
            yield self.new_name()

    def _digest(self, name: str, known: Equality) -> Iterator[tuple[str, Equality]]:
        """Makes an equality a fact, or gives what follows from it."""
        left, right = known.left, known.right
        if left is right:
            return
        if are_distinct(left, right) or is_inside(left, right) or is_inside(right, left):
            self.steps.append(Absurd(name))
            self.is_closed = True
        elif _is_constructed(left) and _is_constructed(right):
            yield from self._fields(name, left, right)
        elif right is TRUE and _is_equality(left):
            assert isinstance(left, Apply)
            called = self.new_name()
            self.steps.append(Equal(name, called))
            yield called, Equality(left.arguments[0], left.arguments[1])
        else:
            yield from self._add_fact(name, known)

    def _fields(self, name: str, left: Term, right: Term) -> Iterator[tuple[str, Equality]]:
        assert isinstance(left, Apply)
        assert isinstance(right, Apply)
        pairs = zip(left.arguments, right.arguments, strict=True)
        for index, (one, other) in enumerate(pairs):
            if one is not other:
                called = self.new_name()
                self.steps.append(Injective(name, index, called))
                yield called, Equality(one, other)

    def _add_fact(self, name: str, known: Equality) -> Iterator[tuple[str, Equality]]:
        """What other facts say of the term that is replaced from now on has to be said anew."""
        backward = self._turns_backward(known)
        left, right = (known.right, known.left) if backward else (known.left, known.right)
        if any(part is left for part in subterms(right)):
            return
        for term in [t for t in self.facts if _speaks_of(self.facts[t], left)]:
            yield self.sources.pop(term)
            del self.facts[term]
        self.facts[left] = fact(name, left, right, backward)
        self.sources[left] = (name, known)
        self._normaliser = None

    def _turns_backward(self, known: Equality) -> bool:
        return self._weight(known.right, known.left) > self._weight(known.left, known.right)

    def _weight(self, term: Term, other: Term) -> tuple[int, bool]:
        """How willingly a term is replaced by the other one."""
        simpler = self.tools.book.simpler(term, other)
        if isinstance(term, Variable):
            is_kept = term in self.protected
            inside = any(part is term for part in subterms(other))
            return (1 if is_kept else 0 if inside else 3), simpler
        return (0 if term.is_constructor else 2), simpler

    def conditions(self) -> tuple[Equality, ...]:
        """What holds here, as equalities."""
        return tuple(known for _, known in self.sources.values())


def _speaks_of(rule: Rule, term: Term) -> bool:
    return any(part is term for side in (rule.left, rule.right) for part in subterms(side))


def _is_constructed(term: Term) -> bool:
    return isinstance(term, Apply) and term.is_constructor


def _is_equality(term: Term) -> bool:
    return is_builtin(term, "=")


def is_builtin(term: Term, name: str) -> bool:
    """Whether a builtin of this name is at the root, with all its arguments."""
    if not isinstance(term, Apply) or term.is_partial:
        return False
    symbol: Symbol = term.symbol
    return symbol.kind is Kind.BUILTIN and symbol.name == name


def is_truth(term: Term) -> bool:
    return term is TRUE or term is FALSE

"""Calls that begin with a constant accumulator: what they give for every other one.

From `f(c, x) = q(x)` with a constant c that f would change on its way, no induction hypothesis
fits: it speaks of c alone. What is proved first is `f(a, x) = phi(a, q(x))` for all a, with phi
found by synthesis; where the call is not a whole side, `f(c, x)` itself stands for q(x).

An induction on x may also make a constructor term grow without end, as in `f(g(x, cons a nil))`.
Then `f(g(x, y)) = phi(x, y)` for every y is what is to be proved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from prover.positions import replace_at
from prover.samples.samples import Samples
from prover.search.conjecture import Conjecture, names_of
from prover.search.generalise import replaced
from prover.search.remarks import Remarks
from prover.search.tasks import Find
from prover.search.tools import Tools
from prover.synthesis.bank import operators
from prover.synthesis.fitting import Task, fitting
from prover.terms import Apply, Symbol, Term, Variable, substitute, subterms, variables

_MOST_TERMS = 4_000
_MOST_SOLUTIONS = 2


@dataclass(frozen=True, slots=True)
class Accumulation:
    """A call with a variable for its constant, and what that variable's call is to be made of:
    a term, or the variables alone."""

    call: Apply
    general: Apply
    variable: Variable
    meaning: Term | None
    changing: Symbol | None = None  # whose accumulator it is, if not that of the call

    @property
    def avoided(self) -> Symbol:
        """What the general form is not made of."""
        return self.changing or self.call.symbol


@dataclass(slots=True)
class Accumulators:
    """General forms of the calls of one program, each looked for once at each depth."""

    tools: Tools
    samples: Samples
    find: Find
    remarks: Remarks
    _tried: dict[Conjecture, int] = field(default_factory=dict)

    def forget(self) -> None:
        """What was tried may be tried again."""
        self._tried.clear()

    def learn(self, conjecture: Conjecture, depth: int) -> bool:
        """Whether a general form of a call in the conjecture was proved."""
        for each in self._accumulations(conjecture):
            made_of = each.general if each.meaning is None else each.meaning
            key, _ = self.tools.names.canonical(Conjecture(each.general, made_of))
            if self._tried.get(key, -1) < depth:
                self._tried[key] = depth
                if self._learn(each, depth):
                    return True
        return False

    def _accumulations(self, conjecture: Conjecture) -> Iterator[Accumulation]:
        sides = ((conjecture.left, conjecture.right), (conjecture.right, conjecture.left))
        for side, other in sides:
            for call in subterms(side):
                if isinstance(call, Apply) and call.symbol in self.tools.book.defined:
                    meaning = other if call is side else call
                    yield from self._of_call(call, meaning)

        for side, _ in sides:
            if isinstance(side, Apply) and side.symbol in self.tools.book.defined:
                yield from self._inside(side)
                yield from self._of_side(side)

    def _inside(self, side: Apply) -> Iterator[Accumulation]:
        """A side whose argument is a call with a constant accumulator."""
        for place, call in enumerate(side.arguments):
            if isinstance(call, Apply) and call.symbol in self.tools.book.defined:
                for each in self._of_call(call, call):
                    general = replace_at(side, (place,), each.general)
                    if isinstance(general, Apply) and each.variable not in variables(side):
                        yield Accumulation(side, general, each.variable, side, call.symbol)

    def _of_side(self, side: Apply) -> Iterator[Accumulation]:
        """A side with a variable in place of what a constructor has built in it."""
        for part in subterms(side):
            if isinstance(part, Apply) and part.is_constructor and part.size > 1:
                taken = names_of(v for v in subterms(side) if isinstance(v, Variable))
                variable = self.tools.names.fresh(part.sort, taken)
                general = replaced(Conjecture(side, side), part, variable).left
                assert isinstance(general, Apply)
                if any(v is not variable for v in variables(general)):
                    yield Accumulation(side, general, variable, None)

    def _of_call(self, call: Apply, meaning: Term) -> Iterator[Accumulation]:
        for index in accumulating(self.tools, call.symbol):
            constant = call.arguments[index] if index < len(call.arguments) else None
            if constant is not None and constant.is_ground and not call.is_ground:
                taken = names_of(v for v in subterms(call) if isinstance(v, Variable))
                variable = self.tools.names.fresh(constant.sort, taken)
                general = replace_at(call, (index,), variable)
                assert isinstance(general, Apply)
                yield Accumulation(call, general, variable, meaning)

    def _learn(self, each: Accumulation, depth: int) -> bool:
        hole = Variable(" hole", each.general.sort)
        back = {} if each.meaning is None else {hole: each.meaning}
        met: dict[Term, None] = {}
        for phi in self._solutions(each, hole):
            right = self.tools.normaliser({}).normal(substitute(phi, back))
            if right in met:
                continue
            met[right] = None
            if len(met) > _MOST_SOLUTIONS:
                break
            wanted = Conjecture(each.general, right)
            self.tools.book.ordering.lift(each.call.symbol, wanted.right)
            found = self.find([wanted], depth)
            if found is not None:
                why = f"{each.call} changes its accumulator, so for every {each.variable}"
                self.remarks.add(found.name, why)
                return True
        return False

    def _solutions(self, each: Accumulation, hole: Variable) -> Iterator[Term]:
        ranks = self.tools.book.ordering.ranks
        most = max(ranks.get(s, 0) for s in symbols(each.general, each.meaning or each.general))
        made_of = operators(self.tools.program, [each.general], ranks, most)
        leaves: list[tuple[Term, Term]] = [(v, v) for v in variables(each.variable, each.general)]
        if each.meaning is not None:
            leaves.insert(0, (hole, each.meaning))
            made_of = tuple(s for s in made_of if s is not each.avoided)
        before = self.samples.steps
        task = Task(each.general, tuple(leaves), made_of, _MOST_TERMS)
        for phi in fitting(task, self.samples):
            self.tools.meter.spend(1 + (self.samples.steps - before) // 64)
            before = self.samples.steps
            if _is_simpler(each, phi, hole):
                yield phi
        self.tools.meter.spend(1 + (self.samples.steps - before) // 64)


def _is_simpler(each: Accumulation, phi: Term, hole: Variable) -> bool:
    """Whether it is made of what it should be made of, or at least smaller than the call."""
    if each.meaning is not None:
        return hole in variables(phi)
    return phi.size < each.general.size and each.variable in variables(phi)


def accumulating(tools: Tools, symbol: Symbol) -> tuple[int, ...]:
    """The arguments that the function changes in its calls of itself without taking them apart."""
    found: dict[int, None] = {}
    for rule in tools.book.defined.get(symbol, ()):
        assert isinstance(rule.left, Apply)
        for part in subterms(rule.right):
            if isinstance(part, Apply) and part.symbol is symbol:
                for index, (old, new) in enumerate(
                    zip(rule.left.arguments, part.arguments, strict=False)
                ):
                    if isinstance(old, Variable) and old is not new:
                        found[index] = None
    return tuple(found)


def symbols(*terms: Term) -> Iterator[Symbol]:
    for term in terms:
        for part in subterms(term):
            if isinstance(part, Apply):
                yield part.symbol

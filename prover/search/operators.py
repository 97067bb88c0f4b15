"""Operators that are defined by cases, as a maximum is: kept whole, with laws of their own.

Once such a definition is unfolded, each call is a question which argument is meant, and a term of
several calls a tree of questions. An operator that stays whole has no cases: what a proof needs are
its laws, that it commutes, say, or what another operator distributes over it. These are found on
samples, smallest first, and each is proved as any lemma is, by the definition. An operator that
calls itself, as a sum does, has such laws too; they are learnt where little depth was not enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from prover.program import Statement
from prover.rewriting.rules import RuleBook
from prover.samples.samples import Samples
from prover.search.branch import is_builtin
from prover.search.conjecture import Conjecture
from prover.search.tasks import Find
from prover.search.tools import Tools
from prover.synthesis.conjectures import Vocabulary, lemmas, vocabulary
from prover.terms import BOOL, Apply, Kind, Sort, Symbol, Variable, subterms

_MOST_TERMS = 2_500
_LARGEST = 5  # symbols on each side of a law that is looked for
_DEPTH = 1
_CALLS_OF_A_STEP = 64


@dataclass(slots=True)
class Operators:
    """Those that a goal reaches; none before `reach`. `find` proves their laws."""

    tools: Tools
    samples: Samples
    find: Find
    symbols: tuple[Symbol, ...] = ()
    _words: Vocabulary = field(default_factory=lambda: Vocabulary((), ()))
    _inside: dict[tuple[Symbol, Symbol], None] = field(default_factory=dict)
    _is_whole: bool = False
    _has_laws: bool = False
    _rank: int = 0

    def reach(self, goal: Statement) -> None:
        """Takes the operators that the goal's functions are made of."""
        self._words = vocabulary(self.tools.program, goal)
        book = self.tools.book
        self.symbols = tuple(s for s in self._words.operators if is_defined_by_cases(book, s))
        self._rank = max((book.ordering.ranks[s] for s in self.symbols), default=0)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Their definitions are not used, and their laws are known."""
        with self.tools.book.without(self.symbols):
            self._is_whole = True
            self.learn_laws()
            yield
        self._is_whole = False

    @contextmanager
    def opened(self, conjecture: Conjecture) -> Iterator[None]:
        """By their definitions again where a conjecture speaks of nothing above them."""
        ranks = self.tools.book.ordering.ranks
        parts = (part for side in conjecture.terms() for part in subterms(side))
        most = max((ranks.get(p.symbol, 0) for p in parts if isinstance(p, Apply)), default=0)
        if not self._is_whole or most > self._rank or self._follows(conjecture):
            yield
            return
        self._is_whole = False
        with self.tools.book.without(()):
            yield
        self._is_whole = True

    def _follows(self, conjecture: Conjecture) -> bool:
        """Whether the laws alone are enough."""
        normal = self.tools.normaliser({}).normal
        return normal(conjecture.left) is normal(conjecture.right)

    def learn_laws(self) -> None:
        """Of all binary operators that are reached, those that call themselves too; once."""
        if self._has_laws:
            return
        self._has_laws = True
        binary = (s for s in self._words.operators if _is_over(s, s.result) and s.arguments)
        for sort in dict.fromkeys(s.result for s in binary if s.kind is Kind.FUNCTION):
            over = tuple(s for s in self._words.operators if _is_over(s, sort))
            among = tuple(v for v in self._words.variables if v.sort is sort)
            self._learn_small(Vocabulary(over, among))
            for outer in over:
                for inner in self.symbols:
                    if outer.arguments and inner.result is sort and inner is not outer:
                        self._distribute(outer, inner, among)

    def _learn_small(self, words: Vocabulary) -> None:
        """What small terms show: units, idempotence, the order and grouping of arguments."""
        spent = self.samples.steps
        normal = self.tools.normaliser({}).normal
        for equation in lemmas(self.samples, words, normal, _MOST_TERMS, _LARGEST):
            self.tools.meter.spend(1 + (self.samples.steps - spent) // _CALLS_OF_A_STEP)
            self.find([Conjecture(equation.left, equation.right)], _DEPTH)
            spent = self.samples.steps

    def _distribute(self, outer: Symbol, inner: Symbol, among: Sequence[Variable]) -> None:
        """Moves one operator inside the other, from both of its sides."""
        if (inner, outer) in self._inside:
            return  # then rules would move each inside the other for ever
        x, y, z = among[:3]
        left = Conjecture(outer(x, inner(y, z)), inner(outer(x, y), outer(x, z)))
        right = Conjecture(outer(inner(y, z), x), inner(outer(y, x), outer(z, x)))
        for law in (left, right):
            if not self._follows(law) and self.tools.trial.may_hold(law):
                self.tools.book.ordering.lift(outer, inner(x, y))
                if self.find([law], _DEPTH) is not None:
                    self._inside[outer, inner] = None


def is_defined_by_cases(book: RuleBook, symbol: Symbol) -> bool:
    """Whether it is a binary operator whose one equation asks what another call gives."""
    sort = symbol.result
    if sort is BOOL or symbol.arguments != (sort, sort) or book.ordering.is_recursive(symbol):
        return False
    rules = book.defined.get(symbol, ())
    if len(rules) != 1:
        return False
    (rule,) = rules
    assert isinstance(rule.left, Apply)
    if not all(isinstance(argument, Variable) for argument in rule.left.arguments):
        return False
    return any(_asks(book, part) for part in subterms(rule.right))


def _asks(book: RuleBook, term: object) -> bool:
    if not isinstance(term, Apply):
        return False
    return is_builtin(term, "ite") or book.ordering.is_recursive(term.symbol)


def _is_over(symbol: Symbol, sort: Sort) -> bool:
    own = all(each is sort for each in (*symbol.arguments, symbol.result))
    return own and sort is not BOOL and len(symbol.arguments) in (0, 2)

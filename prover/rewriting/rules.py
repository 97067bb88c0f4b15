"""Rules: equations with a direction, and how a certificate names each use of one."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from prover.patterns import match
from prover.program import Equality, Program, Statement
from prover.rewriting.ordering import Ordering
from prover.terms import Apply, Kind, Sort, Symbol, Term, Variable, subterms, variables


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """`left` becomes `right` for all values of its variables but the `fixed` ones.

    `given` says, for each variable of the statement that the certificate names, which term over
    the rule's variables it is. An `ordered` rule is used only where the term gets simpler.
    """

    name: str
    left: Term
    right: Term
    given: tuple[tuple[str, Term], ...] = ()
    fixed: tuple[Variable, ...] = ()
    conditions: tuple[Equality, ...] = ()
    backward: bool = False
    ordered: bool = False

    def bind(self, term: Term) -> dict[Variable, Term] | None:
        """The values of the variables with which the left side is the term."""
        bound: dict[Variable, Term] = {variable: variable for variable in self.fixed}
        return bound if match(self.left, term, bound) else None


def definitions(program: Program) -> dict[Symbol, tuple[Rule, ...]]:
    """The equations of every function, from left to right."""
    found = {}
    for symbol, function in program.functions.items():
        rules = []
        for number, equation in enumerate(function.equations, 1):
            given = tuple((v.name, v) for v in variables(equation.left))
            name = f"define:{symbol.name}:{number}"
            rules.append(Rule(name, equation.left, equation.right, given))
        found[symbol] = tuple(rules)
    return found


def fact(name: str, left: Term, right: Term, backward: bool) -> Rule:
    """A hypothesis as a rule: it speaks of these terms alone."""
    return Rule(f"hypothesis:{name}", left, right, (), variables(left, right), (), backward)


def can_stand_left(term: Term, other: Term) -> bool:
    """Whether a rule may begin with the term: no variable, constructor or builtin is rewritten."""
    if not isinstance(term, Apply) or term.is_partial or term.is_constructor:
        return False
    if term.symbol.kind is Kind.BUILTIN and term.symbol.name != "@":
        return False
    bound = variables(term)
    return all(variable in bound for variable in variables(other))


def oriented(ordering: Ordering, name: str, statement: Statement) -> Iterator[Rule]:
    """The rules that a proved statement or an assumption gives: at most one for each direction."""
    given = tuple((v.name, v) for v in statement.variables)
    left, right = statement.conclusion.left, statement.conclusion.right
    both = [(left, right, False), (right, left, True)]
    both = [each for each in both if can_stand_left(each[0], each[1])]
    down = [each for each in both if ordering.above(each[0], each[1])]
    for one, other, backward in down or both:
        if _closed(one, statement.conditions):
            yield Rule(name, one, other, given, (), statement.conditions, backward, not down)


def _closed(left: Term, conditions: Sequence[Equality]) -> bool:
    """Whether the left side says what all variables of the conditions are."""
    bound = variables(left)
    spoken = variables(*(side for c in conditions for side in (c.left, c.right)))
    return all(variable in bound for variable in spoken)


def hypothesis(
    name: str,
    statement: Statement,
    instance: Mapping[Variable, Term],
    sides: tuple[Equality, tuple[Equality, ...]],
    backward: bool,
) -> Rule | None:
    """A statement, with its induction variables as in `instance`, used in one direction.

    `sides` are its conclusion and conditions in that instance. It is ordered where it
    could be used for ever. None where that direction says nothing of some variable.
    """
    conclusion, conditions = sides
    left, right = conclusion.left, conclusion.right
    if backward:
        left, right = right, left
    if not can_stand_left(left, right):
        return None
    fixed = variables(*instance.values())
    given = tuple((v.name, instance.get(v, v)) for v in statement.variables)
    rule = Rule(name, left, right, given, fixed, conditions, backward)
    again = any(rule.bind(part) is not None for part in subterms(right))
    return replace(rule, ordered=again)


def _holds_itself(program: Program, sort: Sort) -> bool:
    """Whether values of a data type hold such values, perhaps inside those of others."""
    reached: dict[Sort, None] = {}
    waiting = [field for c in program.constructors(sort) for field in c.arguments]
    while waiting:
        field = waiting.pop()
        if field not in reached:
            reached[field] = None
            waiting += [inner for c in program.constructors(field) for inner in c.arguments]
    return sort in reached


class RuleBook:
    """Definitions, assumptions and proved lemmas by the symbol at the root of their left sides."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.ordering = Ordering(program)
        self._definitions = definitions(program)
        self.defined = self._definitions
        self.nested = dict.fromkeys(sort for sort in program.data if _holds_itself(program, sort))
        self.learned: dict[Symbol, list[Rule]] = {}
        self.version = 0
        for assumption in program.assumptions:
            self.learn(f"assume:{assumption.name}", assumption)

    def learn(self, name: str, statement: Statement) -> None:
        """A statement that holds, as rules from now on."""
        for rule in oriented(self.ordering, name, statement):
            assert isinstance(rule.left, Apply)
            self.learned.setdefault(rule.left.symbol, []).append(rule)
            self.version += 1

    @contextmanager
    def without(self, symbols: Container[Symbol]) -> Iterator[None]:
        """The definitions of these functions alone are not used."""
        before = self.defined
        self.defined = {s: rules for s, rules in self._definitions.items() if s not in symbols}
        self.version += 1
        try:
            yield
        finally:
            self.defined = before
            self.version += 1

    def simpler(self, left: Term, right: Term) -> bool:
        """Whether the left term is above the right one, with their variables as constants."""
        return self.ordering.above_here(left, right)

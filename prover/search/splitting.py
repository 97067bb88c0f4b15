"""What a goal waits for: a variable whose constructor, or a condition whose truth, is not known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prover.builtins import FALSE
from prover.program import Program
from prover.rewriting.rules import Rule, RuleBook
from prover.search.branch import Branch, is_builtin, is_truth
from prover.terms import Apply, Kind, Sort, Symbol, Term, Variable, subterms

_CONNECTIVES = ("and", "or", "=>", "not")


@dataclass(frozen=True, slots=True)
class Wait:
    """A call waits for the constructor of `argument`.

    It was `begun` where an equation's patterns fit its other arguments in some constructor: a split
    then unfolds it, and there is nothing else to wait for.
    """

    call: Apply
    argument: Term
    begun: bool


def waits(book: RuleBook, *terms: Term) -> Iterator[Wait]:
    """Each argument whose constructor would let a call unfold."""
    for term in terms:
        for part in subterms(term):
            if isinstance(part, Apply) and not part.is_partial:
                for rule in book.defined.get(part.symbol, ()):
                    for argument, begun in _blocked(rule, part):
                        yield Wait(part, argument, begun)


def _blocked(rule: Rule, call: Apply) -> list[tuple[Term, bool]]:
    """Where an equation's patterns ask for a constructor that the call does not show."""
    assert isinstance(rule.left, Apply)
    begun = False
    asked: list[Term] = []
    stack = list(zip(rule.left.arguments, call.arguments, strict=True))
    while stack:
        pattern, term = stack.pop()
        if isinstance(pattern, Variable):
            continue
        if isinstance(term, Apply) and term.is_constructor:
            if term.symbol is not pattern.symbol:
                return []
            begun = True
            stack.extend(zip(pattern.arguments, term.arguments, strict=True))
        else:
            asked.append(term)
    return [(term, begun) for term in asked]


def conditions(term: Term) -> Iterator[Term]:
    """The conditions of each `ite` that have no `ite` inside."""
    for part in subterms(term):
        if is_builtin(part, "ite"):
            assert isinstance(part, Apply)
            condition = part.arguments[0]
            if not any(is_builtin(inner, "ite") for inner in subterms(condition)):
                yield from atoms(condition)


def atoms(term: Term) -> Iterator[Term]:
    """The parts of a truth value that no connective joins, the first one first."""
    stack = [term]
    while stack:
        part = stack.pop()
        if any(is_builtin(part, name) for name in _CONNECTIVES):
            assert isinstance(part, Apply)
            stack.extend(reversed(part.arguments))
        elif not is_truth(part):
            yield part


def stuck_calls(book: RuleBook, program: Program, *terms: Term) -> Iterator[Term]:
    """Calls that others wait for, where few splits on what they give unfold those for good."""
    for wait in waits(book, *terms):
        argument = wait.argument
        is_data = isinstance(argument, Apply) and bool(program.constructors(argument.sort))
        if is_data and _ends_soon(book, wait.call, argument.sort):
            yield argument


def _ends_soon(book: RuleBook, call: Apply, sort: Sort) -> bool:
    """Whether the call unfolds for good: what it waits for is flat, or it does not go on in it."""
    constructors = book.program.constructors(sort)
    if any(sort in constructor.arguments for constructor in constructors):
        return not calls_itself(book, call.symbol)
    return sort not in book.nested or not book.ordering.is_recursive(call.symbol)


def begun_variables(book: RuleBook, *terms: Term) -> Iterator[Variable]:
    """Variables whose constructor lets a call that was begun, or never returns, unfold."""
    for wait in waits(book, *terms):
        unfolds = wait.begun or not book.ordering.is_recursive(wait.call.symbol)
        if unfolds and isinstance(wait.argument, Variable):
            yield wait.argument


def calls_itself(book: RuleBook, symbol: Symbol) -> bool:
    """Whether an equation of the function calls it at once, and not by way of another one."""
    return any(
        isinstance(part, Apply) and part.symbol is symbol
        for rule in book.defined.get(symbol, ())
        for part in subterms(rule.right)
    )


def worth_splitting(branch: Branch) -> Iterator[Term]:
    """Terms whose cases let the goal or a fact go on, the goal's first."""
    sides = (branch.left, branch.right)
    for side in sides:
        yield from conditions(side)
    book, program = branch.tools.book, branch.tools.program
    yield from stuck_calls(book, program, *sides)
    for side, other in (sides, sides[::-1]):
        if any(is_builtin(side, name) for name in _CONNECTIVES):
            yield from atoms(side)
        if other is FALSE and is_builtin(side, "="):
            yield side
    facts = [term for rule in branch.facts.values() for term in (rule.left, rule.right)]
    for term in facts:
        yield from conditions(term)
        if any(is_builtin(term, name) for name in _CONNECTIVES):
            yield from atoms(term)
    yield from stuck_calls(book, program, *facts)


def is_call(term: Term) -> bool:
    """Whether a function, free or defined, is at the root."""
    if not isinstance(term, Apply) or term.is_partial:
        return False
    return term.symbol.kind is Kind.FUNCTION or is_builtin(term, "@")

"""Formulas become statements, and asserted equations become the functions that they define."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from prover.builtins import FALSE, TRUE
from prover.patterns import are_patterns, clash, gaps
from prover.program import Equality, Equation, Statement
from prover.syntax.elaborate import Elaborator
from prover.syntax.scope import Scope, names
from prover.syntax.sexpr import Node
from prover.terms import (
    BOOL,
    Apply,
    Kind,
    Sort,
    Symbol,
    Term,
    Variable,
    subterms,
    variables,
)


def statement(
    elaborator: Elaborator, name: str, node: Node, premises: list[Statement] | None = None
) -> Statement:
    """What a closed formula says; its type parameters become sorts that nothing is known of.

    `(=> (forall ...) ...)` is read where `premises` takes the inner statement: if it speaks of no
    variable outside, what follows from it as an assumption is the same.
    """
    types: dict[str, Sort] = {}
    while node.head == "par" and len(node.items) == 3:
        for item in node.items[1].items:
            types[item.text] = _new_sort(elaborator, item)
        node = node.items[2]
    reading = _Reading(elaborator, Scope(name, {}, types), premises)
    conclusion = reading.formula(node)
    bound = tuple(reading.bound)
    return Statement(name, bound, tuple(reading.conditions), conclusion)


def _new_sort(elaborator: Elaborator, node: Node) -> Sort:
    name = node.text
    while name in elaborator.signature.sorts:
        name += "'"
    if name.endswith("'"):
        name = name.replace("'", "_")
    elaborator.signature.sorts.setdefault(name, 0)
    return Sort(name)


class _Reading:
    """One formula on its way: variables met so far, and conditions."""

    def __init__(
        self, elaborator: Elaborator, scope: Scope, premises: list[Statement] | None
    ) -> None:
        self.elaborator, self.scope, self.premises = elaborator, scope, premises
        self.closed = scope
        self.bound: list[Variable] = []
        self.conditions: list[Equality] = []

    def formula(self, node: Node) -> Equality:
        """Peels quantifiers, lets and implications off; what is left is the conclusion."""
        while True:
            if node.head == "forall" and len(node.items) == 3:
                self._bind(node.items[1])
                node = node.items[2]
            elif node.head == "let" and len(node.items) == 3:
                self.scope = self.elaborator.let_scope(node, self.scope)
                node = node.items[2]
            elif node.head == "=>" and len(node.items) > 2:
                for part in node.items[1:-1]:
                    self._assume(part)
                node = node.items[-1]
            elif node.head == "!" and len(node.items) > 2:
                node = node.items[1]
            else:
                return equality(self.term(node, BOOL))

    def term(self, node: Node, expected: Sort | None = None) -> Term:
        return self.elaborator.term(node, self.scope, expected)

    def _bind(self, typed: Node) -> None:
        source = self.elaborator.source
        if any(len(item.items) != 2 or item.items[0].is_list for item in typed.items):
            raise source.error("(name sort) was expected", typed)
        hints = [item.head for item in typed.items]
        sorts = [self.elaborator.sort(item.items[1], self.scope) for item in typed.items]
        new = self.elaborator.instances.fresh(
            hints, sorts, [variable.name for variable in self.bound]
        )
        self.bound += new
        self.scope = self.scope.with_terms(dict(zip(hints, new, strict=True)))

    def _assume(self, node: Node) -> None:
        if node.head == "and":
            for part in node.items[1:]:
                self._assume(part)
        elif node.head == "forall" and self.premises is not None and self._is_closed(node):
            inner = _Reading(self.elaborator, self.closed, None)
            conclusion = inner.formula(node)
            conditions = tuple(inner.conditions)
            self.premises.append(Statement("", tuple(inner.bound), conditions, conclusion))
        else:
            self.conditions.append(equality(self.term(node, BOOL)))

    def _is_closed(self, node: Node) -> bool:
        return not any(name in self.scope.terms for name in names(node))


def equality(term: Term) -> Equality:
    """A Bool term as an equality: of two terms, or with true or false."""
    if isinstance(term, Apply) and term.symbol.kind is Kind.BUILTIN:
        if term.symbol.name == "=":
            return Equality(term.arguments[0], term.arguments[1])
        if term.symbol.name == "not":
            return Equality(term.arguments[0], FALSE)
    return Equality(term, TRUE)


def as_equation(found: Statement, declared: dict[str, Symbol]) -> Equation | None:
    """The equation of a declared function that an assertion is, if it has the form of one."""
    left, right = found.conclusion.left, found.conclusion.right
    if found.conditions or not isinstance(left, Apply) or left.is_partial:
        return None
    if left.symbol not in declared.values():
        return None
    if not are_patterns(left.arguments):
        return None
    bound = variables(left)
    if any(variable not in bound for variable in variables(right)):
        return None
    return Equation(left, right)


def define_by_equations(elaborator: Elaborator) -> dict[Symbol, list[Equation]]:
    """What our own language defines: variables are the names in patterns that nothing else has."""
    signature = elaborator.signature
    defined: dict[Symbol, list[Equation]] = {}
    for node in signature.equations:
        left, right = node.items[1:]
        name = left.head if left.is_list else left.text
        if name not in signature.total:
            raise signature.source.error("an equation of something that no fun declares", left)
        symbol = elaborator.declared(name)
        if len(left.items[1:]) != len(symbol.arguments):
            wrong = f"{name} takes {len(symbol.arguments)} arguments"
            raise signature.source.error(wrong, left)
        terms: dict[str, Term] = {}
        pairs = zip(left.items[1:], symbol.arguments, strict=True)
        patterns = [_pattern(elaborator, item, sort, terms) for item, sort in pairs]
        body = elaborator.term(right, Scope(name, terms, {}), symbol.result)
        defined.setdefault(symbol, []).append(Equation(symbol(*patterns), body))
    for name in signature.total:
        if name in elaborator.instances.declared:
            defined.setdefault(elaborator.instances.declared[name], [])
    return defined


def _pattern(elaborator: Elaborator, node: Node, sort: Sort, terms: dict[str, Term]) -> Term:
    source, name = elaborator.source, node.head if node.is_list else node.text
    if name not in elaborator.signature.constructors and name not in ("true", "false"):
        if node.is_list or name in terms or name.isdecimal() or elaborator.signature.has(name):
            raise source.error("a pattern was expected: a constructor, or a new name", node)
        key = f" {node.offset}" if name == "_" else name
        (terms[key],) = elaborator.instances.fresh(
            (name,), (sort,), [str(term) for term in terms.values()]
        )
        return terms[key]
    constructors = {s.name: s for s in elaborator.instances.constructors(sort)}
    chosen = constructors.get(name)
    if chosen is None or len(chosen.arguments) != len(node.items[1:]):
        raise source.error(f"it is no pattern of sort {sort}", node)
    pairs = zip(node.items[1:], chosen.arguments, strict=True)
    return chosen(*(_pattern(elaborator, item, inner, terms) for item, inner in pairs))


def define_by_assertions(
    elaborator: Elaborator, asserted: list[Statement]
) -> tuple[dict[Symbol, list[Equation]], list[Statement]]:
    """Equations by function, and the assertions that define nothing: these are assumptions.

    An equation that disagrees with an earlier one on some arguments is an assumption too. Where no
    equation says what a function is, SMT-LIB means: anything. There it is a free function's value.
    """
    defined: dict[Symbol, list[Equation]] = {}
    assumed: list[Statement] = []
    for found in asserted:
        declared = elaborator.instances.declared if elaborator.signature.assertions_define else {}
        equation = as_equation(found, declared)
        others = defined.get(equation.left.symbol, []) if equation else []
        if equation is None or any(clash(other, equation) for other in others):
            assumed.append(replace(found, name=f"assumption-{len(assumed) + 1}"))
        else:
            defined.setdefault(equation.left.symbol, []).append(equation)
    for symbol, equations in defined.items():
        equations.extend(completion(elaborator, symbol, equations))
    return defined, assumed


def completion(
    elaborator: Elaborator, symbol: Symbol, equations: list[Equation]
) -> Iterator[Equation]:
    """Equations with free functions for what the others leave open."""
    rows = [equation.left.arguments for equation in equations]
    for gap in tuple(gaps(elaborator.instances.constructors, rows, symbol.arguments)):
        bound = variables(*gap)
        name = elaborator.instances.unique(f"{symbol.name}.any")
        takes = tuple(variable.sort for variable in bound)
        yield Equation(symbol(*gap), Symbol(name, takes, symbol.result, Kind.FUNCTION)(*bound))


def used_symbols(terms: list[Term]) -> list[Symbol]:
    """Every symbol once, in the order in which they are met."""
    met = (p.symbol for t in terms for p in subterms(t) if isinstance(p, Apply))
    return list(dict.fromkeys(met))

"""Turns lambdas and matches into functions defined by equations, so that terms need no binders.

A match on a variable of an equation splits the equation, one for each constructor, and the body is
read again with the variable replaced. Every other match, and every lambda, becomes a function of
its own that takes the variables it speaks of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from prover.errors import Inadmissible
from prover.program import Equation
from prover.syntax.branches import Branches
from prover.syntax.instances import Instances
from prover.syntax.scope import AmbiguousError, Build, Scope, SplitSignal, names
from prover.syntax.sexpr import Node
from prover.terms import Apply, Kind, Sort, Symbol, Term, Variable, substitute, variables

MOST_EQUATIONS = 600
_SUBJECT = " subject"  # no name in a file begins with a space


class Reader(Protocol):
    """What reads the expressions inside."""

    def term(self, node: Node, scope: Scope, expected: Sort | None = None) -> Term: ...

    def sort(self, node: Node, scope: Scope) -> Sort: ...

    def data_of(self, subject: Term, node: Node) -> Sort: ...


class Functions:
    """The functions that a problem defines, with those that were lambdas and matches."""

    def __init__(self, reader: Reader, instances: Instances) -> None:
        self.reader = reader
        self.instances = instances
        self.source = instances.signature.source
        self.signature = instances.signature
        self.branches = Branches(instances)
        self._waiting: list[Callable[[], None]] = []
        self._lifted: dict[object, Symbol] = {}
        self._keep: list[Node] = []

    def later(self, work: Callable[[], None]) -> None:
        """Equations are made once what called for them is read."""
        self._waiting.append(work)

    def run_waiting(self) -> None:
        """Makes the equations of every function that was met, and of those which they call."""
        while self._waiting:
            self._waiting.pop(0)()

    def equations(self, left: Apply, build: Build, scope: Scope) -> None:
        """All equations of a function: of `left` with what `build` makes of the scope."""
        made: list[Equation] = []
        stack = [(left, replace(scope, splits=True))]
        while stack:
            if len(made) + len(stack) > MOST_EQUATIONS:
                raise Inadmissible(left.symbol.name, f"more than {MOST_EQUATIONS} equations")
            left, scope = stack.pop()
            try:
                made.append(Equation(left, build(scope)))
            except SplitSignal as split:
                data = self.instances.data(split.variable.sort)
                assert data is not None
                for constructor in reversed(data.constructors):
                    hints = split.names.get(constructor.name, ())
                    kept = [v.name for v in variables(left) if v is not split.variable]
                    fields = self.instances.fresh(hints, constructor.arguments, kept)
                    by: dict[Variable, Term] = {split.variable: constructor(*fields)}
                    new = substitute(left, by)
                    assert isinstance(new, Apply)
                    stack.append((new, scope.substituted(by)))
        self.instances.equations[made[0].left.symbol] = made

    def of_lambda(self, node: Node, scope: Scope, expected: Sort | None) -> Term:
        if len(node.items) != 3 or not node.items[1].items:
            raise self.source.error("(lambda ((name sort) ...) body) was expected", node)
        bound = node.items[1].items
        if any(len(item.items) != 2 for item in bound):
            raise self.source.error("(name sort) was expected", node.items[1])
        hints = [item.head for item in bound]
        sorts = [self.reader.sort(item.items[1], scope) for item in bound]
        free = self._free(scope, node)
        parameters = self.instances.fresh(hints, sorts, [variable.name for variable in free])
        inner = scope.with_terms(dict(zip(hints, parameters, strict=True)))
        body, result = node.items[2], expected
        for _ in sorts:
            result = result.arguments[1] if result is not None and result.is_function else None

        def build(scope: Scope) -> Term:
            return self.reader.term(body, scope, result)

        if result is None:
            result = build(replace(inner, splits=False)).sort
        return self._lift("lambda", node, (*free, *parameters), result, (build, inner))(*free)

    def of_match(self, node: Node, scope: Scope, expected: Sort | None) -> Term:
        if len(node.items) < 3:
            raise self.source.error("(match subject (pattern body) ...) was expected", node)
        subject = self.reader.term(node.items[1], scope)
        self.reader.data_of(subject, node.items[1])
        return self._match_on(node, subject, scope, expected)

    def _match_on(self, node: Node, subject: Term, scope: Scope, expected: Sort | None) -> Term:
        if isinstance(subject, Variable) and scope.splits:
            raise SplitSignal(subject, self.branches.field_names(node, subject.sort))
        if isinstance(subject, Apply) and subject.is_constructor:
            pattern, body = self.branches.chosen(node, subject)
            names = [item.text for item in pattern.items[1:]]
            new = dict(zip(names, subject.arguments, strict=False)) if pattern.is_list else {}
            names_subject = not pattern.is_list and pattern.text not in ("_", "true", "false")
            if names_subject and pattern.text not in self.signature.constructors:
                new = {pattern.text: subject}
            return self.reader.term(body, scope.with_terms(new), expected)
        return self._lift_match(node, subject, scope, expected)

    def _lift_match(self, node: Node, subject: Term, scope: Scope, expected: Sort | None) -> Term:
        if expected is None:
            expected = self._sort_of_match(node, subject, scope)
        free = self._free(scope, *node.items[2:])
        (variable,) = self.instances.fresh(("it",), (subject.sort,), [each.name for each in free])

        def build(scope: Scope) -> Term:
            return self._match_on(node, scope.terms[_SUBJECT], scope, expected)

        inner = scope.with_terms({_SUBJECT: variable})
        branches = node.items[-1] if len(node.items) == 3 else node
        return self._lift("match", branches, (variable, *free), expected, (build, inner))(
            subject, *free
        )

    def _sort_of_match(self, node: Node, subject: Term, scope: Scope) -> Sort:
        """What any of its branches tells."""
        data = self.instances.data(subject.sort)
        assert data is not None
        failed: AmbiguousError | None = None
        for constructor in data.constructors:
            fields = self.instances.fresh((), constructor.arguments)
            try:
                inner = replace(scope, splits=False)
                return self._match_on(node, constructor(*fields), inner, None).sort
            except AmbiguousError as error:
                failed = error
        assert failed is not None
        raise failed

    def _lift(
        self,
        what: str,
        node: Node,
        parameters: tuple[Variable, ...],
        result: Sort,
        made_of: tuple[Build, Scope],
    ) -> Symbol:
        """A function for a lambda or match; the same one where the same is met again."""
        build, scope = made_of
        seen = tuple((n, scope.terms[n]) for n in names(node) if n in scope.terms)
        key = (id(node), seen, parameters, result)
        if key not in self._lifted:
            self._keep.append(node)  # so that no other node gets its id
            name = self.instances.unique(f"{scope.owner}.{what}")
            takes = tuple(variable.sort for variable in parameters)
            symbol = self._lifted[key] = Symbol(name, takes, result, Kind.FUNCTION)
            if len(self._lifted) > MOST_EQUATIONS:
                raise Inadmissible(scope.owner, f"more than {MOST_EQUATIONS} functions inside it")
            self._waiting.append(lambda: self.equations(symbol(*parameters), build, scope))
        return self._lifted[key]

    def _free(self, scope: Scope, *nodes: Node) -> tuple[Variable, ...]:
        return variables(*(scope.terms[n] for n in names(*nodes) if n in scope.terms))

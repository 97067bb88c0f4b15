"""Gives sorts to expressions: what a node of a file means, as a term without binders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prover.builtins import FALSE, TRUE, if_then_else, literal
from prover.errors import SortClash
from prover.syntax.fields import Fields
from prover.syntax.instances import Instances, bind, fill, is_generic
from prover.syntax.lifting import Functions
from prover.syntax.operators import (
    COMPARISONS,
    CONNECTIVES,
    NUMERIC,
    comparison,
    connective,
    numeric,
)
from prover.syntax.scope import AmbiguousError, QuantifierError, Scope
from prover.syntax.sexpr import Node
from prover.syntax.signature import FunctionTemplate, Signature
from prover.terms import BOOL, INT, Apply, Sort, Symbol, Term, apply_to

MOST_SIZE = 100_000
MOST_DIGITS = 1000


class Elaborator:
    """Reads expressions against one signature."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.source = signature.source
        self.instances = Instances(signature)
        self.functions = Functions(self, self.instances)
        self.fields = Fields(self, self.instances)

    # Expressions

    def term(self, node: Node, scope: Scope, expected: Sort | None = None) -> Term:
        """The term that a node spells, of the sort that is expected."""
        try:
            found = self._term(node, scope, expected)
        except SortClash as clash:
            raise self.source.error(f"sort clash: {clash}", node) from None
        if found.size > MOST_SIZE:
            raise self.source.error(f"larger than {MOST_SIZE} symbols", node)
        if expected is not None and found.sort is not expected:
            wrong = f"it has sort {found.sort} where {expected} is expected"
            raise self.source.error(wrong, node)
        return found

    def _term(self, node: Node, scope: Scope, expected: Sort | None) -> Term:
        if not node.is_list:
            return self._call(node, node, (), scope, expected)
        if not node.items:
            raise self.source.error("an expression was expected", node)
        special = _SPECIAL.get(node.head)
        if special is not None and node.head not in scope.terms:
            return special(self, node, scope, expected)
        return self._call(node, node.items[0], node.items[1:], scope, expected)

    def _call(
        self,
        node: Node,
        head: Node,
        arguments: tuple[Node, ...],
        scope: Scope,
        expected: Sort | None,
    ) -> Term:
        if head.is_list:
            return self._call_list(node, head, arguments, scope, expected)
        name = head.text
        if name in scope.terms:
            return self._apply_all(scope.terms[name], arguments, scope)
        if name in self.signature.constructors or name in self.signature.functions:
            return self._instance(node, name, arguments, scope, expected)
        if name in self.signature.selectors:
            return self.fields.selector(node, name, arguments, scope)
        if name.startswith("is-") and name[3:] in self.signature.constructors:
            return self.fields.tester(node, name[3:], arguments, scope)
        return self._builtin(node, name, arguments, scope, expected)

    def _call_list(
        self,
        node: Node,
        head: Node,
        arguments: tuple[Node, ...],
        scope: Scope,
        expected: Sort | None,
    ) -> Term:
        """Heads that are lists: `(_ is C)`, `(_ f sorts)`, `(as f sort)`, or a function's value."""
        if head.head == "_" and len(head.items) == 3 and head.items[1].text == "is":
            return self.fields.tester(node, head.items[2].text, arguments, scope)
        if head.head == "_" and len(head.items) > 1:
            sorts = tuple(self.sort(item, scope) for item in head.items[2:])
            return self._instance(node, head.items[1].text, arguments, scope, expected, sorts)
        if head.head == "as" and len(head.items) == 3:
            result = self.sort(head.items[2], scope)
            return self._call(node, head.items[1], arguments, scope, result)
        return self._apply_all(self.term(head, scope), arguments, scope)

    def sort(self, node: Node, scope: Scope) -> Sort:
        return self.signature.sort(node, dict(scope.types))

    def _apply_all(self, function: Term, arguments: Iterable[Node], scope: Scope) -> Term:
        for node in arguments:
            if not function.sort.is_function:
                wrong = f"a term of sort {function.sort} is applied to it"
                raise self.source.error(wrong, node)
            function = apply_to(function, self.term(node, scope, function.sort.arguments[0]))
        return function

    def _instance(
        self,
        node: Node,
        name: str,
        arguments: tuple[Node, ...],
        scope: Scope,
        expected: Sort | None,
        sorts: tuple[Sort, ...] = (),
    ) -> Term:
        """A constructor or function of the file, at the sorts that its arguments ask for."""
        parameters, takes, gives = self._shape(node, name)
        if len(arguments) > len(takes) and not gives.is_function:
            wrong = f"{name} takes {len(takes)} arguments, not {len(arguments)}"
            raise self.source.error(wrong, node)
        if sorts and len(sorts) != len(parameters):
            raise self.source.error(f"{name} takes {len(parameters)} sorts", node)
        binding = dict(zip(parameters, sorts, strict=False))
        arguments, rest = arguments[: len(takes)], arguments[len(takes) :]
        if expected is not None and len(arguments) == len(takes) and not rest:
            bind(gives, expected, binding)
        found = self._arguments(arguments, takes, binding, scope)
        if any(parameter not in binding for parameter in parameters):
            message = "its sort cannot be told here: say (_ name sorts) or (as name sort)"
            raise AmbiguousError(message, self.source.place(node.offset), name)
        at = tuple(binding[parameter] for parameter in parameters)
        symbol = self._symbol(name, at, fill(gives, binding))
        return self._apply_all(Apply(symbol, found), rest, scope)

    def _shape(self, node: Node, name: str) -> tuple[tuple[Sort, ...], tuple[Sort, ...], Sort]:
        """Type parameters, what it takes and what it gives."""
        if name in self.signature.constructors:
            data, constructor = self.signature.constructors[name]
            return data.sort.arguments, constructor.fields, data.sort
        if name not in self.signature.functions:
            raise self.source.error("unknown symbol", node)
        template = self.signature.functions[name]
        parameters = tuple(Sort(f"'{each}") for each in template.type_parameters)
        return parameters, tuple(sort for _, sort in template.parameters), template.result

    def _arguments(
        self,
        nodes: tuple[Node, ...],
        takes: tuple[Sort, ...],
        binding: dict[Sort, Sort],
        scope: Scope,
    ) -> tuple[Term, ...]:
        """Arguments whose sort cannot be told yet wait for those that tell it."""
        found: dict[int, Term] = {}
        waiting = list(range(len(nodes)))
        while waiting:
            failed: AmbiguousError | None = None
            later = []
            for index in waiting:
                wanted = fill(takes[index], binding)
                try:
                    known = None if is_generic(wanted) else wanted
                    found[index] = self.term(nodes[index], scope, known)
                except AmbiguousError as error:
                    failed = error
                    later.append(index)
                    continue
                if not bind(takes[index], found[index].sort, binding):
                    wrong = f"it has sort {found[index].sort} where {wanted} is expected"
                    raise self.source.error(wrong, nodes[index])
            if failed is not None and len(later) == len(waiting):
                raise failed
            waiting = later
        return tuple(found[index] for index in range(len(nodes)))

    def _symbol(self, name: str, at: tuple[Sort, ...], result: Sort) -> Symbol:
        if name in self.signature.constructors:
            return self.instances.constructor(name, result)
        template = self.signature.functions[name]
        symbol, is_new = self.instances.function(template, at)
        if template.body is None:
            self.instances.declared[name] = symbol
        elif is_new:
            self.functions.later(lambda: self._define(template, symbol, at))
        return symbol

    def declared(self, name: str) -> Symbol:
        """The symbol of a function that was declared without a body."""
        return self._symbol(name, (), self.signature.functions[name].result)

    def _define(self, template: FunctionTemplate, symbol: Symbol, at: tuple[Sort, ...]) -> None:
        names = [name for name, _ in template.parameters]
        if len(set(names)) != len(names):
            raise self.source.error("two parameters have one name", template.node)
        parameters = self.instances.fresh(names, symbol.arguments)
        types = dict(zip(template.type_parameters, at, strict=True))
        scope = Scope(symbol.name, dict(zip(names, parameters, strict=True)), types)
        body = template.body
        assert body is not None

        def build(scope: Scope) -> Term:
            return self.term(body, scope, symbol.result)

        self.functions.equations(symbol(*parameters), build, scope)

    def data_of(self, subject: Term, node: Node) -> Sort:
        if self.instances.data(subject.sort) is None:
            raise self.source.error(f"{subject.sort} is no data type", node)
        return subject.sort

    # Builtins

    def _builtin(
        self,
        node: Node,
        name: str,
        arguments: tuple[Node, ...],
        scope: Scope,
        expected: Sort | None,
    ) -> Term:
        if name in ("true", "false") and not arguments:
            return TRUE if name == "true" else FALSE
        if name.isdecimal() and not arguments:
            if len(name) > MOST_DIGITS:
                raise self.source.error(f"a number of more than {MOST_DIGITS} digits", node)
            return literal(int(name))
        found: Term | None = None
        if name in COMPARISONS:
            found = comparison(name, self._alike(arguments, scope))
        elif name == "ite" and len(arguments) == 3:
            condition = self.term(arguments[0], scope, BOOL)
            found = if_then_else(condition, *self._alike(arguments[1:], scope, expected))
        elif name in CONNECTIVES and arguments:
            found = connective(name, [self.term(a, scope, BOOL) for a in arguments])
        elif name in NUMERIC and arguments:
            found = numeric(name, [self.term(a, scope, INT) for a in arguments])
        elif name not in ("ite", "true", "false", *CONNECTIVES, *NUMERIC):
            raise self.source.error("unknown symbol", node)
        if found is None:
            raise self.source.error("wrong number of arguments", node)
        return found

    def _alike(
        self, nodes: Sequence[Node], scope: Scope, expected: Sort | None = None
    ) -> list[Term]:
        """Terms of one sort, which any of them may tell."""
        parameter = Sort("'one")
        binding = {} if expected is None else {parameter: expected}
        return list(self._arguments(tuple(nodes), (parameter,) * len(nodes), binding, scope))

    # Forms that bind

    def _let(self, node: Node, scope: Scope, expected: Sort | None) -> Term:
        inner = self.let_scope(node, scope)
        return self.term(node.items[2], inner, expected)

    def let_scope(self, node: Node, scope: Scope) -> Scope:
        """The scope of a let's body."""
        pairs = node.items[1].items if len(node.items) == 3 else ()
        if not pairs or any(len(item.items) != 2 or not item.head for item in pairs):
            raise self.source.error("(let ((name value) ...) body) was expected", node)
        return scope.with_terms({item.head: self.term(item.items[1], scope) for item in pairs})

    def _apply(self, node: Node, scope: Scope, expected: Sort | None) -> Term:
        del expected
        if len(node.items) < 3:
            raise self.source.error("(@ function argument) was expected", node)
        return self._apply_all(self.term(node.items[1], scope), node.items[2:], scope)

    def _qualified(self, node: Node, scope: Scope, expected: Sort | None) -> Term:
        return self._call_list(node, node, (), scope, expected)

    def _refuse_binder(self, node: Node, scope: Scope, expected: Sort | None) -> Term:
        del scope, expected
        place = self.source.place(node.offset)
        raise QuantifierError("it is read only at the top of a formula", place, node.head)


_SPECIAL: dict[str, Callable[[Elaborator, Node, Scope, Sort | None], Term]] = {
    "let": Elaborator._let,
    "@": Elaborator._apply,
    "_": Elaborator._qualified,
    "as": Elaborator._qualified,
    "lambda": lambda self, *rest: self.functions.of_lambda(*rest),
    "match": lambda self, *rest: self.functions.of_match(*rest),
    "forall": Elaborator._refuse_binder,
    "exists": Elaborator._refuse_binder,
}

"""Selectors and testers: functions of a data type that a file uses and does not define."""

from __future__ import annotations

from prover.builtins import FALSE, TRUE
from prover.program import Equation
from prover.syntax.instances import Instances
from prover.syntax.lifting import Reader
from prover.syntax.scope import Scope
from prover.syntax.sexpr import Node
from prover.terms import BOOL, Symbol, Term


class Fields:
    """Of one file. `selectors` are those that were used: what they leave open is to be filled."""

    def __init__(self, reader: Reader, instances: Instances) -> None:
        self.reader, self.instances = reader, instances
        self.selectors: list[Symbol] = []

    def selector(self, node: Node, name: str, arguments: tuple[Node, ...], scope: Scope) -> Term:
        _, constructor, index = self.instances.signature.selectors[name]
        subject = self._only(node, arguments, scope)
        data = self.reader.data_of(subject, node)
        chosen = self.instances.constructor(constructor.name, subject.sort)
        shape = ((subject.sort,), chosen.arguments[index])
        symbol, is_new = self.instances.new_symbol("selector", name, data.arguments, shape)
        if is_new:
            fields = self.instances.fresh(constructor.selectors, chosen.arguments)
            left = symbol(chosen(*fields))
            self.instances.equations[symbol] = [Equation(left, fields[index])]
            self.selectors.append(symbol)
        return symbol(subject)

    def tester(self, node: Node, name: str, arguments: tuple[Node, ...], scope: Scope) -> Term:
        if name not in self.instances.signature.constructors:
            raise self.instances.signature.source.error(f"{name} is no constructor", node)
        subject = self._only(node, arguments, scope)
        self.reader.data_of(subject, node)
        chosen = self.instances.constructor(name, subject.sort)
        shape = ((subject.sort,), BOOL)
        key = ("tester", f"is-{name}", subject.sort.arguments)
        symbol, is_new = self.instances.new_symbol(*key, shape)
        if is_new:
            data = self.instances.data(subject.sort)
            assert data is not None
            self.instances.equations[symbol] = [
                Equation(
                    symbol(c(*self.instances.fresh((), c.arguments))),
                    TRUE if c is chosen else FALSE,
                )
                for c in data.constructors
            ]
        return symbol(subject)

    def _only(self, node: Node, arguments: tuple[Node, ...], scope: Scope) -> Term:
        if len(arguments) != 1:
            raise self.instances.signature.source.error(
                f"it takes 1 argument, not {len(arguments)}", node
            )
        return self.reader.term(arguments[0], scope)

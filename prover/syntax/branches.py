"""The branches of a match: their patterns, and which one a constructor takes."""

from __future__ import annotations

from prover.syntax.instances import Instances
from prover.syntax.sexpr import Node
from prover.terms import BOOL, Apply, Sort, Symbol


class Branches:
    """Reads the branches of matches against one signature."""

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self.signature = instances.signature
        self.source = instances.signature.source

    def of(self, node: Node) -> list[tuple[Node, Node]]:
        """Patterns and bodies, in the spelling of SMT-LIB 2.6 or in TIP's older one with `case`."""
        parts = node.items[2:]
        if (len(parts) == 1 and parts[0].items and parts[0].items[0].is_list) or (
            len(parts) == 1 and parts[0].head != "case" and len(parts[0].items) == 1
        ):
            parts = parts[0].items
        found = []
        for part in parts:
            items = part.items[1:] if part.head == "case" and len(part.items) == 3 else part.items
            if len(items) != 2:
                raise self.source.error("(pattern body) was expected", part)
            self._check_pattern(items[0])
            found.append((items[0], items[1]))
        return found

    def _check_pattern(self, pattern: Node) -> None:
        names = pattern.items[1:] if pattern.is_list else ()
        if any(item.is_list or item.text in self.signature.constructors for item in names):
            raise self.source.error("a nested pattern is not read here", pattern)
        bound = [item.text for item in names if item.text != "_"]
        if len(set(bound)) != len(bound):
            raise self.source.error("a pattern binds a name twice", pattern)
        if pattern.is_list and pattern.head not in self.signature.constructors:
            raise self.source.error("a constructor was expected", pattern)

    def field_names(self, node: Node, sort: Sort) -> dict[str, list[str]]:
        data = self.instances.data(sort)
        assert data is not None
        written = {p.head: [i.text for i in p.items[1:]] for p, _ in self.of(node)}
        plain = self._plain_names(sort)
        return {c.name: written.get(plain[c], []) for c in data.constructors}

    def _plain_names(self, sort: Sort) -> dict[Symbol, str]:
        """What the file calls each constructor."""
        data = self.instances.data(sort)
        assert data is not None
        if sort is BOOL:
            return {symbol: symbol.name for symbol in data.constructors}
        templates = self.signature.data[sort.name].constructors
        return {s: t.name for s, t in zip(data.constructors, templates, strict=True)}

    def chosen(self, node: Node, subject: Apply) -> tuple[Node, Node]:
        """The first branch that a constructor matches."""
        plain = self._plain_names(subject.sort)
        name = plain[subject.symbol]
        for pattern, body in self.of(node):
            word = pattern.head if pattern.is_list else pattern.text
            if word in ("true", "false") or word in self.signature.constructors:
                if word not in plain.values():
                    wrong = f"{word} is no constructor of {subject.sort}"
                    raise self.source.error(wrong, pattern)
                if word == name:
                    if len(pattern.items[1:]) != len(subject.arguments):
                        wrong = f"{word} takes {len(subject.arguments)} arguments"
                        raise self.source.error(wrong, pattern)
                    return pattern, body
            else:
                return pattern, body
        raise self.source.error(f"the match has no case for {name}", node)

"""Our own language, made to be read::

    sort elem
    data nat = zero | succ(nat)
    data list = nil | cons(elem, list)

    fun app(list, list): list
    app(nil, ys) = ys
    app(cons(x, xs), ys) = cons(x, app(xs, ys))

    free likes(elem): bool
    assume even(zero)
    prove forall xs: list, ys: list. len(app(xs, ys)) = plus(len(xs), len(ys))
    prove grows: forall x: nat, y: nat. leq(x, y) => leq(x, succ(y))

Sorts are names, `bool`, `int`, or functions `a -> b`. Terms are names, numbers, calls `f(a, b)`,
`if c then a else b`, `a = b`, `a != b`, `not a`, `a and b`, `a or b`, `a => b`, and `a + b`,
`a - b`, `a * b`, `a < b`, `a <= b` on int. A comment begins with #. An equation ends where the next
one begins. A goal may have a name. What is read becomes the same nodes as an S-expression's, with
the same places.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from prover.syntax.declarations import EQUATION, NAMED, TOTAL, declare
from prover.syntax.sexpr import MOST_NESTED, Node, Source
from prover.syntax.signature import Signature

_TOKEN = re.compile(r"\s+|#[^\n]*|(->|=>|!=|<=|[()=|,:.+*<-]|[A-Za-z_][A-Za-z0-9_']*|[0-9]+)")
_KEYWORDS = {"sort", "data", "fun", "free", "assume", "prove", "forall", "if", "then", "else"}
_KEYWORDS |= {"and", "or", "not"}
# From the loosest: operators of one row associate to the right, but for + - *.
_LEVELS = (("=>",), ("or",), ("and",), ("=", "!=", "<", "<="), ("+", "-"), ("*",))
_SORTS = {"bool": "Bool", "int": "Int"}


@dataclass(slots=True)
class _Tokens:
    """Words with their places, and how far they are read."""

    source: Source
    words: list[Node]
    index: int = 0
    depth: int = 0

    @property
    def next(self) -> Node:
        return self.words[self.index]

    @property
    def after(self) -> Node:
        """The word after the next."""
        return self.words[min(self.index + 1, len(self.words) - 1)]

    def take(self, *wanted: str) -> Node:
        """The next word, which must be one of these where some are given."""
        word = self.next
        if wanted and word.text not in wanted:
            message = f"expected {' or '.join(wanted)}"
            raise self.source.error(f"{message}, found {word.text or 'the end'}", word.offset)
        self.index += 1
        return word

    def accept(self, text: str) -> bool:
        if self.next.text != text:
            return False
        self.index += 1
        return True

    def name(self) -> Node:
        word = self.next
        if not re.match(r"[A-Za-z_]", word.text) or word.text in _KEYWORDS:
            message = f"expected a name, found {word.text or 'the end'}"
            raise self.source.error(message, word.offset)
        return self.take()


def declare_surface(source: Source) -> Signature:
    """The signature of a file in our own language."""
    tokens = _Tokens(source, _words(source))
    found: dict[str, list[Node]] = {"sort": [], "data": [], "": []}
    while tokens.next.text:
        word = tokens.next
        rule = _COMMANDS.get(word.text)
        if rule is None:
            found[""].append(_equation(tokens))
        else:
            tokens.take()
            found.get(word.text, found[""]).append(rule(tokens, word))
    nodes = (*found["sort"], *_together(found["data"]), *found[""])
    return declare(source, nodes, assertions_define=False)


def _together(data: list[Node]) -> tuple[Node, ...]:
    """Data types may speak of each other, so one command declares them all."""
    if not data:
        return ()
    first = data[0]
    return (_list(first, "declare-datatypes", _list(first), _list(first, *data)),)


def _words(source: Source) -> list[Node]:
    words, offset = [], 0
    while offset < len(source.text):
        found = _TOKEN.match(source.text, offset)
        if found is None:
            raise source.error(f"unexpected {source.text[offset]!r}", offset)
        if found[1] is not None:
            words.append(Node(found[1], (), offset))
        offset = found.end()
    words.append(Node("", (), offset))
    return words


def _list(at: Node, *items: Node | str) -> Node:
    nodes = (Node(item, (), at.offset) if isinstance(item, str) else item for item in items)
    return Node("", tuple(nodes), at.offset, True)


def _many(tokens: _Tokens, one: Callable[[_Tokens], Node]) -> list[Node]:
    """`(a, b, c)`, or nothing where no bracket opens."""
    found: list[Node] = []
    if tokens.accept("("):
        found.append(one(tokens))
        while tokens.take(",", ")").text == ",":
            found.append(one(tokens))
    return found


# Commands


def _sort_command(tokens: _Tokens, word: Node) -> Node:
    return _list(word, "declare-sort", tokens.name(), "0")


def _data_command(tokens: _Tokens, word: Node) -> Node:
    name = tokens.name()
    tokens.take("=")
    constructors = [_constructor(tokens)]
    while tokens.accept("|"):
        constructors.append(_constructor(tokens))
    return _list(word, name, *constructors)


def _constructor(tokens: _Tokens) -> Node:
    name = tokens.name()
    fields = [_list(sort, "", sort) for sort in _many(tokens, _sort)]
    return _list(name, name, *fields)


def _fun_command(tokens: _Tokens, word: Node) -> Node:
    name = tokens.name()
    takes = _many(tokens, _sort)
    tokens.take(":")
    kind = "declare-fun" if word.text == "free" else TOTAL
    return _list(word, kind, name, _list(word, *takes), _sort(tokens))


def _assume_command(tokens: _Tokens, word: Node) -> Node:
    return _list(word, "assert", _formula(tokens))


def _prove_command(tokens: _Tokens, word: Node) -> Node:
    if tokens.after.text != ":":
        return _list(word, "prove", _formula(tokens))
    name = tokens.name()
    tokens.take(":")
    return _list(word, NAMED, name, _formula(tokens))


def _equation(tokens: _Tokens) -> Node:
    start = tokens.next
    left = _call(tokens)
    tokens.take("=")
    return _list(start, EQUATION, left, _term(tokens))


_COMMANDS: dict[str, Callable[[_Tokens, Node], Node]] = {
    "sort": _sort_command,
    "data": _data_command,
    "fun": _fun_command,
    "free": _fun_command,
    "assume": _assume_command,
    "prove": _prove_command,
}


# Sorts, formulas, terms


def _sort(tokens: _Tokens) -> Node:
    _enter(tokens)
    if tokens.accept("("):
        sort = _sort(tokens)
        tokens.take(")")
    else:
        name = tokens.name()
        sort = Node(_SORTS.get(name.text, name.text), (), name.offset)
    if tokens.accept("->"):
        sort = _list(sort, "=>", sort, _sort(tokens))
    tokens.depth -= 1
    return sort


def _formula(tokens: _Tokens) -> Node:
    start = tokens.next
    if not tokens.accept("forall"):
        return _term(tokens)
    bound = []
    while True:
        name = tokens.name()
        tokens.take(":")
        bound.append(_list(name, name, _sort(tokens)))
        if tokens.take(",", ".").text == ".":
            return _list(start, "forall", _list(start, *bound), _formula(tokens))


def _enter(tokens: _Tokens) -> None:
    tokens.depth += 1
    if tokens.depth > MOST_NESTED:
        raise tokens.source.error(f"nested deeper than {MOST_NESTED}", tokens.next.offset)


def _term(tokens: _Tokens, level: int = 0) -> Node:
    if level == len(_LEVELS):
        return _prefix(tokens)
    if level == 0:
        _enter(tokens)
    left = _term(tokens, level + 1)
    while tokens.next.text in _LEVELS[level]:
        word = tokens.take()
        is_left = level >= len(_LEVELS) - 2
        right = _term(tokens, level + 1 if is_left or word.text in ("=", "!=") else level)
        name = "distinct" if word.text == "!=" else word.text
        left = _list(word, name, left, right)
    if level == 0:
        tokens.depth -= 1
    return left


def _prefix(tokens: _Tokens) -> Node:
    start = tokens.next
    if tokens.accept("not"):
        _enter(tokens)
        # It binds looser than a comparison: not a = b says that they differ.
        inner = _term(tokens, 3)
        tokens.depth -= 1
        return _list(start, "not", inner)
    if tokens.accept("if"):
        condition = _term(tokens)
        tokens.take("then")
        then = _term(tokens)
        tokens.take("else")
        return _list(start, "ite", condition, then, _term(tokens))
    if tokens.accept("("):
        inner = _term(tokens)
        tokens.take(")")
        return inner
    if start.text.isdecimal():
        return tokens.take()
    return _call(tokens)


def _call(tokens: _Tokens) -> Node:
    name = tokens.name()
    arguments = _many(tokens, _term)
    return _list(name, name, *arguments) if arguments else name

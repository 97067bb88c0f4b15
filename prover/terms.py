"""Sorts, symbols and terms: immutable, and interned, so that equal means the same object.

There are no binders in a term: lambdas and matches became functions when the problem was read, and
the variables of a statement are bound at its top. A symbol applied to fewer arguments than it
takes is a function value, and `apply_to` gives it one more: no term applies one with @.

Terms hash by identity: a set or dict of terms is fast, but the order of a *set* of them differs
from run to run. Iterate over dicts and tuples only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Union
from weakref import WeakValueDictionary

from prover.errors import SortClash

_SMALL = 200  # symbols: recursion goes no deeper


class Sort:
    """A sort by name, applied to others: `Nat`, `(list Nat)`, `(=> Nat Bool)`."""

    __slots__ = ("__weakref__", "arguments", "depth", "name")
    _interned: ClassVar[WeakValueDictionary[Any, Sort]] = WeakValueDictionary()
    name: str
    arguments: tuple[Sort, ...]
    depth: int

    def __new__(cls, name: str, arguments: tuple[Sort, ...] = ()) -> Sort:
        found = cls._interned.get((name, arguments))
        if found is None:
            found = object.__new__(cls)
            found.name, found.arguments = name, arguments
            found.depth = 1 + max((inner.depth for inner in arguments), default=0)
            cls._interned[name, arguments] = found
        return found

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return Sort, (self.name, self.arguments)

    @property
    def is_function(self) -> bool:
        return self.name == "=>"

    def __str__(self) -> str:
        inner = " ".join([self.name, *map(str, self.arguments)])
        return f"({inner})" if self.arguments else self.name

    __repr__ = __str__


BOOL = Sort("Bool")
INT = Sort("Int")


def function_sort(arguments: Sequence[Sort], result: Sort) -> Sort:
    """The curried sort of a function: one arrow for each argument."""
    for argument in reversed(arguments):
        result = Sort("=>", (argument, result))
    return result


class Kind(Enum):
    """What a symbol is. Whether a FUNCTION is defined or free, a `Program` says."""

    CONSTRUCTOR = "constructor"
    FUNCTION = "function"
    BUILTIN = "builtin"
    LITERAL = "literal"  # an integer
    ELEMENT = "element"  # of an uninterpreted sort; only evaluation makes them


_RIGID = (Kind.CONSTRUCTOR, Kind.LITERAL, Kind.ELEMENT)


class Symbol:
    """A constructor, function or builtin with the sorts it takes and gives. Never polymorphic."""

    __slots__ = ("__weakref__", "arguments", "kind", "name", "result")
    _interned: ClassVar[WeakValueDictionary[Any, Symbol]] = WeakValueDictionary()
    name: str
    arguments: tuple[Sort, ...]
    result: Sort
    kind: Kind

    def __new__(cls, name: str, arguments: tuple[Sort, ...], result: Sort, kind: Kind) -> Symbol:
        key = (name, arguments, result, kind)
        found = cls._interned.get(key)
        if found is None:
            found = object.__new__(cls)
            found.name, found.arguments, found.result, found.kind = key
            cls._interned[key] = found
        return found

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return Symbol, (self.name, self.arguments, self.result, self.kind)

    def __call__(self, *arguments: Term) -> Apply:
        return Apply(self, arguments)

    def __repr__(self) -> str:
        return self.name


class Variable:
    """A variable of a statement, an equation or a proof's context."""

    __slots__ = ("__weakref__", "name", "sort")
    _interned: ClassVar[WeakValueDictionary[Any, Variable]] = WeakValueDictionary()
    name: str
    sort: Sort
    size = 1
    is_ground = False

    def __new__(cls, name: str, sort: Sort) -> Variable:
        found = cls._interned.get((name, sort))
        if found is None:
            found = object.__new__(cls)
            found.name, found.sort = name, sort
            cls._interned[name, sort] = found
        return found

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return Variable, (self.name, self.sort)

    def __repr__(self) -> str:
        return self.name


class Apply:
    """A symbol with at most as many arguments as it takes; fewer make it a function value.

    `size` counts the symbols and variables of the tree, not of the shared graph.
    """

    __slots__ = ("__weakref__", "arguments", "is_ground", "size", "sort", "symbol")
    _interned: ClassVar[WeakValueDictionary[Any, Apply]] = WeakValueDictionary()
    symbol: Symbol
    arguments: tuple[Term, ...]
    sort: Sort
    size: int
    is_ground: bool

    def __new__(cls, symbol: Symbol, arguments: tuple[Term, ...] = ()) -> Apply:
        found = cls._interned.get((symbol, arguments))
        if found is None:
            found = object.__new__(cls)
            found.symbol, found.arguments = symbol, arguments
            found.sort = _result_sort(symbol, arguments)
            found.size = 1 + sum(argument.size for argument in arguments)
            found.is_ground = all(argument.is_ground for argument in arguments)
            cls._interned[symbol, arguments] = found
        return found

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return Apply, (self.symbol, self.arguments)

    @property
    def is_partial(self) -> bool:
        return len(self.arguments) < len(self.symbol.arguments)

    @property
    def is_constructor(self) -> bool:
        """Whether it is a constructor with all its arguments, or a literal or element."""
        return self.symbol.kind in _RIGID and not self.is_partial

    def __repr__(self) -> str:
        return show(self)


Term = Union[Variable, Apply]  # noqa: UP007  the classes name it before it is there
Substitution = Mapping[Variable, Term]


def _result_sort(symbol: Symbol, arguments: tuple[Term, ...]) -> Sort:
    expected = symbol.arguments
    if len(arguments) > len(expected):
        raise SortClash(f"{symbol.name} takes {len(expected)} arguments, not {len(arguments)}")
    for sort, argument in zip(expected, arguments, strict=False):
        if argument.sort is not sort:
            raise SortClash(f"{symbol.name} takes {sort}, not {argument.sort}")
    return function_sort(expected[len(arguments) :], symbol.result)


def apply_to(function: Term, argument: Term) -> Apply:
    """`(@ function argument)`, or the partial application with one argument more."""
    if isinstance(function, Apply) and function.is_partial:
        return Apply(function.symbol, (*function.arguments, argument))
    if not function.sort.is_function:
        raise SortClash(f"a term of sort {function.sort} is applied to an argument")
    takes, gives = function.sort.arguments
    return Apply(Symbol("@", (function.sort, takes), gives, Kind.BUILTIN), (function, argument))


def make(symbol: Symbol, arguments: tuple[Term, ...]) -> Apply:
    """`Apply`, but keeps the promise that no partial application stands under @."""
    if symbol.kind is Kind.BUILTIN and symbol.name == "@" and len(arguments) == 2:
        return apply_to(arguments[0], arguments[1])
    return Apply(symbol, arguments)


def rebuild(term: Term, leaf: Callable[[Term], Term | None]) -> Term:
    """The term with every topmost part replaced for which `leaf` gives one; no deep recursion."""
    done: dict[Term, Term] = {}
    stack = [term]
    while stack:
        part = stack[-1]
        if part in done:
            stack.pop()
            continue
        new = leaf(part)
        if new is None and isinstance(part, Apply):
            waiting = [argument for argument in part.arguments if argument not in done]
            if waiting:
                stack.extend(waiting)
                continue
            new = make(part.symbol, tuple(done[argument] for argument in part.arguments))
        done[part] = part if new is None else new
        stack.pop()
    return done[term]


def substitute(term: Term, substitution: Substitution) -> Term:
    """All at once: what is put in is not substituted again."""
    if not substitution:
        return term
    if term.size <= _SMALL:
        return _substitute_small(term, substitution)

    def leaf(part: Term) -> Term | None:
        if isinstance(part, Variable):
            return substitution.get(part, part)
        return part if part.is_ground else None

    return rebuild(term, leaf)


def _substitute_small(term: Term, substitution: Substitution) -> Term:
    """The same by recursion, several times faster for the terms that most are."""
    if isinstance(term, Variable):
        return substitution.get(term, term)
    if term.is_ground:
        return term
    arguments = [_substitute_small(argument, substitution) for argument in term.arguments]
    return make(term.symbol, tuple(arguments))


def subterms(term: Term) -> Iterator[Term]:
    """Each different subterm once, the term itself first."""
    seen: dict[Term, None] = {}
    stack = [term]
    while stack:
        part = stack.pop()
        if part not in seen:
            seen[part] = None
            yield part
            if isinstance(part, Apply):
                stack.extend(reversed(part.arguments))


def variables(*terms: Term) -> tuple[Variable, ...]:
    """The variables, in the order in which they are met."""
    met = (part for term in terms for part in subterms(term) if isinstance(part, Variable))
    return tuple(dict.fromkeys(met))


def show(term: Term) -> str:
    """The term as an S-expression; no deep recursion."""
    words: list[str] = []
    stack: list[Term | str] = [term]
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            words.append(part)
        elif isinstance(part, Variable):
            words.append(part.name)
        elif not part.arguments:
            words.append(part.symbol.name)
        else:
            words.append(f"({part.symbol.name}")
            stack.append(")")
            stack.extend(reversed(part.arguments))
    return " ".join(words).replace(" )", ")")

"""Instances of what is declared with type parameters: one symbol for each choice of sorts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prover.errors import Inadmissible
from prover.program import BOOL_TYPE, DataType, Equation
from prover.syntax.signature import FunctionTemplate, Signature
from prover.terms import BOOL, Kind, Sort, Symbol, Variable

MOST_INSTANCES = 2000
MOST_DEPTH = 16  # of a sort
_OPERATORS = ("true", "false", "not", "and", "or", "=>", "ite", "=", "@", "+", "-", "*")
_RESERVED = (*_OPERATORS, "div", "mod", "<", "<=", "forall", "let", "match", "lambda")

SortArguments = tuple[Sort, ...]


def fill(sort: Sort, binding: Mapping[Sort, Sort]) -> Sort:
    """The sort with type parameters replaced."""
    if sort in binding:
        return binding[sort]
    if not sort.arguments:
        return sort
    return Sort(sort.name, tuple(fill(inner, binding) for inner in sort.arguments))


def is_generic(sort: Sort) -> bool:
    """Whether a type parameter is left in it."""
    return sort.name.startswith("'") or any(map(is_generic, sort.arguments))


def bind(pattern: Sort, sort: Sort, binding: dict[Sort, Sort]) -> bool:
    """Fills `binding` so that the pattern becomes the sort; False where nothing can."""
    if pattern.name.startswith("'"):
        return binding.setdefault(pattern, sort) is sort
    if pattern.name != sort.name or len(pattern.arguments) != len(sort.arguments):
        return False
    pairs = zip(pattern.arguments, sort.arguments, strict=True)
    return all(bind(inner, other, binding) for inner, other in pairs)


class Instances:
    """Names and remembers the symbols that a problem uses, and how each function is defined.

    `equations` holds what defines each function, and `declared` those that have no body.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.equations: dict[Symbol, list[Equation]] = {}
        self.declared: dict[str, Symbol] = {}
        self._symbols: dict[tuple[str, str, SortArguments], Symbol] = {}
        self._names: dict[str, None] = dict.fromkeys(_RESERVED)
        self._data: dict[Sort, DataType] = {BOOL: BOOL_TYPE}

    def unique(self, name: str) -> str:
        """A readable name that no symbol has yet, and that an S-expression can hold bare."""
        name = "".join("_" if c.isspace() or c in "();|\"'" else c for c in name) or "_"
        if name.lstrip("-").isdecimal():
            name = f"_{name}"
        new, count = name, 1
        while new in self._names:
            count += 1
            new = f"{name}.{count}"
        self._names[new] = None
        return new

    def new_symbol(
        self, what: str, name: str, sorts: SortArguments, shape: tuple[SortArguments, Sort]
    ) -> tuple[Symbol, bool]:
        """The instance of a `what` called `name` at these sorts, and whether it is new."""
        key = (what, name, sorts)
        if key in self._symbols:
            return self._symbols[key], False
        too_deep = any(sort.depth > MOST_DEPTH for sort in sorts)
        if too_deep or len(self._symbols) > MOST_INSTANCES:
            raise Inadmissible(name, "it needs too many instances: is its recursion polymorphic?")
        kind = Kind.CONSTRUCTOR if what == "constructor" else Kind.FUNCTION
        symbol = Symbol(self.unique(name), *shape, kind)
        self._symbols[key] = symbol
        return symbol, True

    def data(self, sort: Sort) -> DataType | None:
        """The data type of a sort, with its constructors at the sort's arguments."""
        if sort not in self._data:
            template = self.signature.data.get(sort.name)
            if template is None:
                return None
            parameters = template.sort.arguments
            binding = dict(zip(parameters, sort.arguments, strict=True))
            made = []
            for constructor in template.constructors:
                shape = (tuple(fill(part, binding) for part in constructor.fields), sort)
                name = constructor.name
                made.append(self.new_symbol("constructor", name, sort.arguments, shape)[0])
            self._data[sort] = DataType(sort, tuple(made))
        return self._data[sort]

    def fresh(
        self, hints: Sequence[str], sorts: Sequence[Sort], taken: Iterable[str] = ()
    ) -> tuple[Variable, ...]:
        """New variables, called as the hints say where nothing else is called so."""
        used = dict.fromkeys(taken)
        made = []
        for index, sort in enumerate(sorts):
            hint = hints[index] if index < len(hints) else ""
            base = hint if hint.strip("_") and " " not in hint else "v"
            base = "".join(c for c in base if not c.isspace() and c not in "();|\"'") or "v"
            name, count = base, 1
            while name in used or self._is_taken(name) or name.lstrip("-").isdecimal():
                count += 1
                name = f"{base}{count}"
            used[name] = None
            made.append(Variable(name, sort))
        return tuple(made)

    def _is_taken(self, name: str) -> bool:
        return name in self._names or self.signature.has(name)

    def constructors(self, sort: Sort) -> tuple[Symbol, ...]:
        """Of a data type or Bool; none for every other sort."""
        data = self.data(sort)
        return data.constructors if data else ()

    def constructor(self, name: str, sort: Sort) -> Symbol:
        """The constructor that the file calls `name`, of a data type's sort."""
        data = self.data(sort)
        template = self.signature.data[sort.name]
        index = [each.name for each in template.constructors].index(name)
        assert data is not None
        return data.constructors[index]

    def function(self, template: FunctionTemplate, sorts: SortArguments) -> tuple[Symbol, bool]:
        """The instance of a function, and whether its equations are still to be made."""
        parameters = (Sort(f"'{name}") for name in template.type_parameters)
        binding = dict(zip(parameters, sorts, strict=True))
        takes = tuple(fill(sort, binding) for _, sort in template.parameters)
        shape = (takes, fill(template.result, binding))
        return self.new_symbol("function", template.name, sorts, shape)

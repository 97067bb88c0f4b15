"""A problem, read: data types, functions by equations, assumptions and goals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prover.builtins import FALSE, TRUE
from prover.terms import BOOL, Apply, Sort, Symbol, Term, Variable, show


@dataclass(frozen=True, slots=True)
class DataType:
    """A sort whose values are built by its constructors and by nothing else."""

    sort: Sort
    constructors: tuple[Symbol, ...]


BOOL_TYPE = DataType(BOOL, (FALSE.symbol, TRUE.symbol))


@dataclass(frozen=True, slots=True)
class Equality:
    """Two terms of one sort. What holds as a Bool term `t` is written `t = true`."""

    left: Term
    right: Term

    def __str__(self) -> str:
        return f"{show(self.left)} = {show(self.right)}"


@dataclass(frozen=True, slots=True)
class Equation:
    """One equation of a function: `left` applies it to linear patterns of constructors."""

    left: Apply
    right: Term

    def __str__(self) -> str:
        return f"{show(self.left)} = {show(self.right)}"


@dataclass(frozen=True, slots=True)
class Function:
    """A function by all its equations; their order says nothing."""

    symbol: Symbol
    equations: tuple[Equation, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """`for all variables: conditions imply the conclusion`. Sorts are never empty."""

    name: str
    variables: tuple[Variable, ...]
    conditions: tuple[Equality, ...]
    conclusion: Equality

    def __str__(self) -> str:
        bound = ", ".join(f"{v.name}: {v.sort}" for v in self.variables)
        body = " and ".join(map(str, self.conditions))
        body = f"{body} implies {self.conclusion}" if body else str(self.conclusion)
        return f"for all {bound}. {body}" if bound else body

    def equalities(self) -> tuple[Equality, ...]:
        return (*self.conditions, self.conclusion)


@dataclass(frozen=True, slots=True)
class Program:
    """A whole problem. Names of symbols are unique; a function without equations is free.

    It holds what its goals and assumptions speak of, and no more. Nothing may be concluded from it
    before `checks.check` let it pass. `left_out` names assertions that are not read because a
    quantifier stands inside them: what is proved holds without them, what is refuted may not be.
    """

    file: str
    data: Mapping[Sort, DataType]
    functions: Mapping[Symbol, Function]
    free: tuple[Symbol, ...]
    assumptions: tuple[Statement, ...]
    goals: tuple[Statement, ...]
    left_out: tuple[str, ...] = ()

    def symbols(self) -> Iterator[Symbol]:
        """Constructors, functions and free functions; not the builtins."""
        for data in self.data.values():
            yield from data.constructors
        yield from self.functions
        yield from self.free

    def constructors(self, sort: Sort) -> tuple[Symbol, ...]:
        """Of a data type or Bool; none for every other sort."""
        data = self.data.get(sort)
        return data.constructors if data else ()

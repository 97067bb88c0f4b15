"""What is to be proved, with its variables named as a person would name them.

Two conjectures that differ in the names of their variables become the same one, so that what was
found out about one is known of the other, whatever the problem calls its variables.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from prover.notation import Notation
from prover.program import Equality, Program, Statement
from prover.terms import BOOL, INT, Sort, Term, Variable, substitute, variables

_LETTERS = {
    "number": ("n", "m", "k", "l", "j"),
    "list": ("xs", "ys", "zs", "ws", "vs"),
    "tree": ("t", "u", "v", "w"),
    "truth": ("p", "q", "r"),
    "integer": ("i", "j", "k"),
    "function": ("f", "g", "h"),
    "other": ("a", "b", "c", "d", "e"),
}


@dataclass(frozen=True, slots=True)
class Conjecture:
    """`conditions imply left = right`, for all values of all variables."""

    left: Term
    right: Term
    conditions: tuple[Equality, ...] = ()

    @staticmethod
    def of(statement: Statement) -> Conjecture:
        conclusion = statement.conclusion
        return Conjecture(conclusion.left, conclusion.right, statement.conditions)

    @property
    def size(self) -> int:
        """Symbols and variables; conditions count half, for they also help."""
        assumed = sum(c.left.size + c.right.size for c in self.conditions)
        return self.left.size + self.right.size + assumed // 2

    @property
    def conclusion(self) -> Equality:
        return Equality(self.left, self.right)

    def terms(self) -> tuple[Term, ...]:
        return (self.left, self.right, *(s for c in self.conditions for s in (c.left, c.right)))

    def variables(self) -> tuple[Variable, ...]:
        return variables(*self.terms())

    def instance(self, by: Mapping[Variable, Term]) -> Conjecture:
        return Conjecture(
            substitute(self.left, by),
            substitute(self.right, by),
            tuple(
                Equality(substitute(c.left, by), substitute(c.right, by)) for c in self.conditions
            ),
        )

    def flipped(self) -> Conjecture:
        return Conjecture(self.right, self.left, self.conditions)

    def statement(self, name: str) -> Statement:
        return Statement(name, self.variables(), self.conditions, self.conclusion)

    def __str__(self) -> str:
        conditions = " and ".join(map(str, self.conditions))
        return f"{conditions} implies {self.conclusion}" if conditions else str(self.conclusion)


class Names:
    """Names that no symbol of the program has."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.reserved = dict.fromkeys([*Notation(program).symbols, "ite", "=", "@"])
        self.reserved |= dict.fromkeys(goal.name for goal in program.goals)
        self._lemmas = count(1)
        self._kinds: dict[Sort, str] = {}

    def lemma(self) -> str:
        """A name for a lemma that no other has."""
        return next(n for i in self._lemmas if (n := f"lemma-{i}") not in self.reserved)

    def fresh(self, sort: Sort, taken: Container[str]) -> Variable:
        """A variable whose name is not taken."""
        free = (name for name in self._candidates(sort) if name not in taken)
        return Variable(next(free), sort)

    def part_of(self, whole: Variable, sort: Sort, taken: Container[str]) -> Variable:
        """A variable for a field of what another one stands for."""
        primed = whole.name.rstrip("'") + "'"  # the name of no symbol
        while primed in taken:
            primed += "'"
        if sort is whole.sort and len(primed) < len(whole.name) + 3:
            return Variable(primed, sort)
        return self.fresh(sort, taken)

    def canonical(self, conjecture: Conjecture) -> tuple[Conjecture, dict[Variable, Variable]]:
        """The conjecture with new names, and which variable each is."""
        by: dict[Variable, Variable] = {}
        taken: dict[str, None] = {}
        for variable in conjecture.variables():
            by[variable] = self.fresh(variable.sort, taken)
            taken[by[variable].name] = None
        return conjecture.instance(by), {new: old for old, new in by.items()}

    def _candidates(self, sort: Sort) -> Iterator[str]:
        if sort not in self._kinds:
            self._kinds[sort] = self._kind(sort)
        letters = _LETTERS[self._kinds[sort]]
        for number in count():
            yield from (self.unreserved(f"{letter}{number or ''}") for letter in letters)

    def unreserved(self, name: str) -> str:
        """The name, or where a symbol has it one that `Ordering` puts at the same place."""
        while name in self.reserved:
            name += "_"
        return name

    def _kind(self, sort: Sort) -> str:
        if sort is BOOL or sort is INT:
            return "truth" if sort is BOOL else "integer"
        if sort.is_function:
            return "function"
        fields = [c.arguments for c in self.program.constructors(sort)]
        recursive = [each for each in fields if sort in each]
        if recursive and all(each == (sort,) for each in recursive):
            return "number"
        if recursive and all(each.count(sort) == 1 for each in recursive):
            return "list"
        return "tree" if recursive else "other"


def names_of(found: Iterable[Variable]) -> dict[str, None]:
    return dict.fromkeys(variable.name for variable in found)

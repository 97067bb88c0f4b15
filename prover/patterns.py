"""Patterns: what matches them, what linear ones leave open, and where two equations disagree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prover.errors import Inadmissible
from prover.program import Equation
from prover.terms import Apply, Kind, Sort, Symbol, Term, Variable, substitute, variables

MOST_STEPS = 20_000

Row = tuple[Term, ...]
Constructors = Callable[[Sort], tuple[Symbol, ...]]


def match(pattern: Term, term: Term, bound: dict[Variable, Term] | None = None) -> bool:
    """Whether an instance of the pattern is the term; fills `bound` with the substitution."""
    bound = {} if bound is None else bound
    stack = [(pattern, term)]
    while stack:
        left, right = stack.pop()
        if isinstance(left, Variable):
            if left.sort is not right.sort or bound.setdefault(left, right) is not right:
                return False
        elif left is not right or not left.is_ground:
            if isinstance(right, Variable) or left.symbol is not right.symbol:
                return False
            if len(left.arguments) != len(right.arguments):
                return False
            stack.extend(zip(left.arguments, right.arguments, strict=True))
    return True


def are_patterns(row: Row) -> bool:
    """Whether they are made of constructors and variables, and no variable is there twice."""
    met: dict[Variable, None] = {}
    stack = list(row)
    while stack:
        part = stack.pop()
        if isinstance(part, Variable):
            if part in met:
                return False
            met[part] = None
        elif part.symbol.kind is Kind.CONSTRUCTOR and not part.is_partial:
            stack.extend(part.arguments)
        else:
            return False
    return True


def gaps(constructors: Constructors, rows: Sequence[Row], sorts: Sequence[Sort]) -> Iterator[Row]:
    """Patterns that together are all that no row matches; none where the rows cover everything."""
    count = len(sorts)
    whole = tuple(Variable(f"v{index + 1}", sort) for index, sort in enumerate(sorts))
    waiting: list[tuple[Row, Sequence[Row]]] = [(whole, rows)]
    for _ in range(MOST_STEPS):
        if not waiting:
            return
        open_part, rows = waiting.pop()
        met = [(row, splits) for row in rows if (splits := _compare(row, open_part)) is not None]
        if not met:
            yield open_part
            continue
        if not met[0][1]:
            continue
        variable = met[0][1][0]
        for constructor in reversed(constructors(variable.sort)):
            fields = []
            for sort in constructor.arguments:
                count += 1
                fields.append(Variable(f"v{count}", sort))
            by: dict[Variable, Term] = {variable: constructor(*fields)}
            new = tuple(substitute(part, by) for part in open_part)
            waiting.append((new, [row for row, _ in met]))
    raise Inadmissible("patterns", "they take too long to check")


def _compare(row: Row, part: Row) -> list[Variable] | None:
    """Variables of `part` to split before the row matches; None where they never meet."""
    splits = []
    stack = list(zip(reversed(row), reversed(part), strict=True))
    while stack:
        mine, other = stack.pop()
        if isinstance(mine, Variable):
            continue
        if isinstance(other, Variable):
            splits.append(other)
        elif mine.symbol is not other.symbol:
            return None
        else:
            stack.extend(zip(reversed(mine.arguments), reversed(other.arguments), strict=True))
    return splits


def unify(left: Term, right: Term) -> dict[Variable, Term] | None:
    """The most general unifier of two linear patterns that share no variable."""
    found: dict[Variable, Term] = {}
    stack = [(left, right)]
    while stack:
        a, b = stack.pop()
        if isinstance(a, Variable):
            found[a] = b
        elif isinstance(b, Variable):
            found[b] = a
        elif a.symbol is not b.symbol or len(a.arguments) != len(b.arguments):
            return None
        else:
            stack.extend(zip(a.arguments, b.arguments, strict=True))
    return found


def _may_meet(left: Term, right: Term) -> bool:
    """Whether two linear patterns have a common instance, whatever their variables are called."""
    stack = [(left, right)]
    while stack:
        a, b = stack.pop()
        if isinstance(a, Apply) and isinstance(b, Apply):
            if a.symbol is not b.symbol or len(a.arguments) != len(b.arguments):
                return False
            stack.extend(zip(a.arguments, b.arguments, strict=True))
    return True


def clash(first: Equation, second: Equation) -> Term | None:
    """A term on which two equations of one function disagree, as far as can be seen at once."""
    if not _may_meet(first.left, second.left):
        return None
    renamed = {v: Variable(f"{v.name} ", v.sort) for v in variables(second.left)}
    unifier = unify(first.left, substitute(second.left, renamed))
    if unifier is None:
        return None
    one = substitute(first.right, unifier)
    other = substitute(substitute(second.right, renamed), unifier)
    return None if one is other else substitute(first.left, unifier)

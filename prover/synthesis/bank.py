"""Terms by size, one for each column of values that they have on a batch of samples.

Two terms that no sample tells apart are the same here: the smaller one, or the first, stands for
both (observational equivalence). That is what keeps bottom-up enumeration small.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

from prover.program import Program
from prover.samples.batch import Batch, Column
from prover.samples.pool import compositions
from prover.terms import Apply, Kind, Sort, Symbol, Term, make, subterms

_CALLS_OF_ONE = 32

Entry = tuple[Term, Column]


class Bank:
    """Grows by size. `left` is how many terms it may still compute: dear ones count for more.

    A column that is `asked` for is given each time that a term has it. Terms that `accepts` says
    no to are not there at all.
    """

    def __init__(
        self,
        batch: Batch,
        operators: Sequence[Symbol],
        left: int,
        asked: Container[tuple[Sort, Column]] = (),
        accepts: Callable[[Term], bool] = lambda _term: True,
    ) -> None:
        self.batch, self.left, self.asked, self.accepts = batch, left, asked, accepts
        self.operators = [symbol for symbol in operators if symbol.arguments]
        self._entries: dict[tuple[Sort, int], list[Entry]] = {}
        self._seen: dict[tuple[Sort, Column], Term] = {}
        self._forbidden: dict[tuple[Sort, Column], None] = {}

    def add(self, term: Term, column: Column, size: int = 1) -> bool:
        """Whether it is new: no term of its sort has this column yet."""
        key = (term.sort, column)
        if key in self._seen:
            return False
        self._seen[key] = term
        self._entries.setdefault((term.sort, size), []).append((term, column))
        return True

    def forbid(self, sort: Sort, column: Column) -> None:
        """No term with this column is made."""
        self._forbidden[sort, column] = None

    def of(self, sort: Sort, column: Column) -> Term | None:
        """The term that stands for all with this column."""
        return self._seen.get((sort, column))

    def of_size(self, size: int) -> Iterator[Entry]:
        """The terms of a size that are there already, in the order in which they came."""
        for (_, each), entries in self._entries.items():
            if each == size:
                yield from entries

    def grow(self, size: int) -> Iterator[Entry]:
        """Computes all terms of a size from smaller ones: those of a new column, which are kept,
        and those of a column that is asked for."""
        for symbol, sorts in self._applicable():
            for sizes in compositions(size - 1, len(sorts)):
                lists = [self._entries.get(key, ()) for key in zip(sorts, sizes, strict=True)]
                for chosen in itertools.product(*lists):
                    if self.left <= 0:
                        return
                    entry = self._entry(symbol, chosen)
                    if entry is not None:
                        self.add(*entry, size)
                        yield entry

    def _entry(self, symbol: Symbol, chosen: Sequence[Entry]) -> Entry | None:
        before = self.batch.machine.spent
        column = self.batch.whole(symbol, [column for _, column in chosen])
        self.left -= 1 + (self.batch.machine.spent - before) // _CALLS_OF_ONE
        key = (symbol.result, column)
        if column is None or key in self._forbidden:
            return None
        if key in self._seen and key not in self.asked:
            return None
        term = make(symbol, tuple(term for term, _ in chosen))
        return (term, column) if self.accepts(term) else None

    def _applicable(self) -> Iterator[tuple[Symbol, tuple[Sort, ...]]]:
        """The operators, and the application of each function sort that there are terms of."""
        for symbol in self.operators:
            yield symbol, symbol.arguments
        for sort in dict.fromkeys(sort for sort, _ in self._entries if sort.is_function):
            takes, gives = sort.arguments
            yield Symbol("@", (sort, takes), gives, Kind.BUILTIN), (sort, takes)


def operators(
    program: Program, terms: Iterable[Term], ranks: Mapping[Symbol, int], most_rank: int
) -> tuple[Symbol, ...]:
    """What terms of a program are made of: constructors and functions up to a rank.

    Of the builtins and numbers those that stand in these terms or in the equations of a function.
    """
    named = [symbol for symbol in program.symbols() if ranks.get(symbol, 0) <= most_rank]
    whole = [
        e.right for s in named if s in program.functions for e in program.functions[s].equations
    ]
    parts = dict.fromkeys(part for term in (*terms, *whole) for part in subterms(term))
    met = dict.fromkeys(part.symbol for part in parts if isinstance(part, Apply))
    more = [s for s in met if s.kind not in (Kind.FUNCTION, Kind.ELEMENT) and s.name != "@"]
    return tuple(dict.fromkeys((*named, *more)))

"""Functions that call each other, directly or not."""

from __future__ import annotations

from prover.program import Program
from prover.terms import Apply, Symbol, subterms


def components(program: Program) -> list[list[Symbol]]:
    """Functions that call each other, callees first (Tarjan, 1972, with a stack of its own)."""
    called = {symbol: _callees(program, symbol) for symbol in program.functions}
    order: dict[Symbol, int] = {}
    low: dict[Symbol, int] = {}
    placed: dict[Symbol, None] = {}
    opened: list[Symbol] = []
    found: list[list[Symbol]] = []
    for root, callees in called.items():
        work = [] if root in order else [(root, iter(callees))]
        while work:
            symbol, rest = work[-1]
            if symbol not in order:
                order[symbol] = low[symbol] = len(order)
                opened.append(symbol)
            following = next((each for each in rest if each not in placed), None)
            if following is not None and following not in order:
                work.append((following, iter(called[following])))
                continue
            if following is not None:
                low[symbol] = min(low[symbol], order[following])
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[symbol])
            if low[symbol] == order[symbol]:
                at = opened.index(symbol)
                found.append(opened[at:])
                placed |= dict.fromkeys(opened[at:])
                del opened[at:]
    return found


def _callees(program: Program, symbol: Symbol) -> list[Symbol]:
    rights = [equation.right for equation in program.functions[symbol].equations]
    met = (part for right in rights for part in subterms(right) if isinstance(part, Apply))
    return list(dict.fromkeys(part.symbol for part in met if part.symbol in program.functions))

"""cvc5 on one file of SMT-LIB 2.6: `with_cvc5.py FILE SECONDS OPTION...`; prints its answer.

It runs in an environment of its own, which has cvc5 and nothing of this project. Its own time limit
ends it in order; who waits for it keeps the clock too.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def main(file: str, seconds: str, options: list[str]) -> None:
    cvc5 = import_module("cvc5")  # only its own environment has it
    solver: Any = cvc5.Solver(cvc5.TermManager())
    for option in options:
        name, _, value = option.partition("=")
        solver.setOption(name, value or "true")
    solver.setOption("tlimit-per", str(int(1000 * float(seconds))))
    parser: Any = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, file)
    symbols = parser.getSymbolManager()
    while not (command := parser.nextCommand()).isNull():
        print(command.invoke(solver, symbols).strip(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])

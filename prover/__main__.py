"""`python -m prover FILE...`: reads problems, checks their definitions, replays a certificate.

It does not search for proofs yet: without a certificate nothing is proved here. The exit status is
0 where all is well, 1 for a certificate that is rejected, 2 for a file that cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from prover import checks
from prover.checker import verify
from prover.errors import ProverError, Rejected
from prover.program import Program
from prover.syntax.problem import load


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m prover", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--certificate", type=Path, help="a proof of the only FILE, to be replayed")
    parser.add_argument("--show", action="store_true", help="print the program that was read")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.certificate and len(options.files) > 1:
        print("one certificate is for one file", file=sys.stderr)
        return 2
    status = 0
    for file in options.files:
        status = max(status, _run(file, options.certificate, options.show))
    return status


def _run(file: Path, certificate: Path | None, show: bool) -> int:
    try:
        program = load(file)
        checks.check(program)
        if show:
            print(_listing(program))
        if certificate is None:
            print(f"{file}: well-defined; no proof was asked for, and none is searched for yet")
        else:
            print(verify(program, _read(certificate)))
    except Rejected as error:
        print(f"{certificate}: rejected: {error}", file=sys.stderr)
        return 1
    except ProverError as error:
        where = "" if str(error).startswith(str(file)) else f"{file}: "
        print(f"{where}{error}", file=sys.stderr)
        return 2
    return 0


def _read(certificate: Path) -> object:
    try:
        return json.loads(certificate.read_bytes())
    except OSError as error:
        raise Rejected(error.strerror or "it cannot be read") from None
    except (ValueError, RecursionError):
        raise Rejected("it is no JSON") from None


def _listing(program: Program) -> str:
    lines = []
    for function in program.functions.values():
        lines += [f"  {number}  {each}" for number, each in enumerate(function.equations, 1)]
    lines += [f"  free: {symbol}" for symbol in program.free]
    lines += [f"  {each.name}: {each}" for each in (*program.assumptions, *program.goals)]
    lines += [f"  left out: {each}" for each in program.left_out]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

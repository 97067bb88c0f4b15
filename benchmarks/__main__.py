"""`python -m benchmarks --list`, and `python -m benchmarks NAME [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.catalogue import BENCHMARKS, Benchmark, Scale
from benchmarks.result import CannotRun, Setting, show, write
from benchmarks.tables import tables

ALL = "all"


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 when every benchmark ran, whatever its verdicts; 2 for a wrong command, and
    for one benchmark that cannot run here. Of `all`, those are skipped."""
    said = _parser().parse_args(arguments)
    console = Console()
    if said.tables:
        print(tables())
        return 0
    if said.list or said.name is None:
        for each in BENCHMARKS:
            console.print(
                f"{each.name} ({each.full_minutes} minutes): {each.summary}", soft_wrap=True
            )
        return 0
    chosen = [each for each in BENCHMARKS if said.name in (each.name, ALL)]
    for each in chosen:
        command = shlex.join(["python", "-m", "benchmarks", *arguments])
        try:
            _run(each, Scale.QUICK if said.quick else Scale.FULL, command, _target(said, each))
        except CannotRun as reason:
            console.print(f"{each.name} is skipped: {reason}", soft_wrap=True)
            if said.name != ALL:
                return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    names = [each.name for each in BENCHMARKS]
    parser.add_argument("name", nargs="?", choices=[*names, ALL], help="which one to run")
    parser.add_argument("--list", action="store_true", help="name every benchmark")
    parser.add_argument(
        "--tables", action="store_true", help="the committed results as in the README"
    )
    parser.add_argument(
        "--quick", action="store_true", help="the smallest run that means something"
    )
    parser.add_argument("--json", type=Path, help="write the result here; a folder for `all`")
    return parser


def _target(said: argparse.Namespace, benchmark: Benchmark) -> Path | None:
    target: Path | None = said.json
    return target / f"{benchmark.name}.json" if target and said.name == ALL else target


def _run(benchmark: Benchmark, scale: Scale, command: str, target: Path | None) -> None:
    console = Console()
    setting = Setting(benchmark.name, command)
    outcome = benchmark.load()(scale, console)
    show(console, benchmark.name, outcome)
    if target is not None:
        write(target, setting, outcome)
        console.print(f"written to {target}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

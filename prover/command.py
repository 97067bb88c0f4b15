"""`python -m prover FILE...` and `thoth prove FILE...`: what is asked for, and what is said of it.

The exit status is 0 where every goal is proved (or a certificate accepted), 1 where one is not, and
2 where a file cannot be used. What is not proved is named at the end on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prover.checker import verify
from prover.checks import check
from prover.errors import ProverError, Rejected, Unusable
from prover.processes import Outcome
from prover.program import Program
from prover.proving import Problem, Settings, prove_all
from prover.store.database import Store
from prover.syntax.problem import load
from prover.terms import show
from prover.verdict import Budget, Mode, Proved, Refuted, Unknown

PROVED, NOT_PROVED, UNUSABLE = 0, 1, 2
MEBIBYTE = 1 << 20
MOST_BYTES = 1 << 26  # of a certificate


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for. `check` replays a certificate instead; `show` prints the program alone."""

    files: Sequence[Path]
    settings: Settings
    explain: bool = False
    certificate: Path | None = None
    check: Path | None = None
    show: bool = False
    as_json: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `python -m prover`."""
    said = _parser().parse_args(arguments)
    budget = Budget(said.steps, said.time_limit)
    settings = Settings(Mode(said.mode), budget, said.seed, said.jobs, said.memory * MEBIBYTE)
    try:
        settings = with_lemmas(settings, said.lemmas)
    except Unusable as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    return run(
        Order(
            said.files,
            settings,
            said.explain,
            said.certificate,
            said.check,
            said.show,
            said.json,
        )
    )


def with_lemmas(settings: Settings, folder: Path | None) -> Settings:
    """With the store of a folder, if one is named. Raises Unusable where it is of no use."""
    return settings if folder is None else replace(settings, lemmas=Store(folder))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prover",
        description="Proves that functional programs are equal, or finds values that refute it.",
        epilog="Exit status: 0 where all is proved, 1 where it is not, 2 for a file of no use.",
    )
    add, usual = parser.add_argument, Budget()
    add("files", nargs="+", type=Path, metavar="FILE", help="SMT-LIB, TIP, or .prove: our own")
    add("--mode", choices=[mode.value for mode in Mode], default=Mode.DIRECTED.value)
    add("--time-limit", type=_positive, default=usual.seconds, help="seconds for each goal")
    add("--steps", type=_count, default=usual.steps, help="inference steps for each goal")
    add("--seed", type=int, default=0, help="of samples; the same seed gives the same proofs")
    add("--jobs", type=_count, default=1, help="files that are looked at side by side")
    add("--memory", type=_count, default=2048, help="MiB for each process")
    add("--lemmas", type=Path, metavar="DIR", help="a store of lemmas, to use and to add to")
    add("--explain", action="store_true", help="say how each proof was found")
    add("--certificate", type=Path, metavar="OUT", help="write what proves the only FILE")
    add("--check", type=Path, metavar="CERT", help="replay a certificate of the only FILE")
    add("--show", action="store_true", help="print the program that is read, and prove nothing")
    add("--json", action="store_true", help="one JSON object for each goal")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError("a positive number of seconds was expected")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("a whole number from 1 was expected")
    return value


def run(order: Order) -> int:
    """Does what is asked for; the exit status."""
    if (order.certificate or order.check) and len(order.files) > 1:
        print("one certificate is for one file", file=sys.stderr)
        return UNUSABLE
    if order.check or order.show:
        return max(_read_only(file, order) for file in order.files)
    try:
        outcomes = _outcomes(order)
    except Unusable as error:  # the store of lemmas
        print(error, file=sys.stderr)
        return UNUSABLE
    _name_what_is_not_proved(outcomes)
    if order.certificate and not _write(order.certificate, outcomes):
        return UNUSABLE
    return max(map(_status, outcomes))


def _outcomes(order: Order) -> list[Outcome]:
    """All outcomes, each said when it comes."""
    outcomes = []
    for outcome in prove_all([Problem(str(file)) for file in order.files], order.settings):
        outcomes.append(outcome)
        _say(outcome, order)
        _warn(outcome, order)
    return outcomes


def _status(outcome: Outcome) -> int:
    if isinstance(outcome.verdict, Unusable):
        return UNUSABLE
    return PROVED if isinstance(outcome.verdict, Proved) else NOT_PROVED


def _write(path: Path, outcomes: Sequence[Outcome]) -> bool:
    """Writes the certificate of the only goal, or a list of those that are proved."""
    proofs = [each.verdict.certificate for each in outcomes if isinstance(each.verdict, Proved)]
    if proofs:
        try:
            path.write_text(json.dumps(proofs[0] if len(outcomes) == 1 else proofs) + "\n")
        except OSError as error:
            print(f"{path}: {error.strerror}", file=sys.stderr)
            return False
    return True


# What is said of an outcome


def _say(outcome: Outcome, order: Order) -> None:
    if order.as_json:
        print(json.dumps(as_data(outcome)), flush=True)
    elif isinstance(outcome.verdict, ProverError):
        print(_name_of(outcome), outcome.verdict, sep="", file=sys.stderr, flush=True)
    else:
        print("\n  ".join(_lines(outcome, order.explain)), flush=True)


def _warn(outcome: Outcome, order: Order) -> None:
    """Names what the store holds and is of no use."""
    for statement, reason in outcome.lemmas.rejected.items():
        folder = order.settings.lemmas.folder if order.settings.lemmas is not None else ""
        text = f"{folder}: lemma {statement} is left out: {reason}" if statement else reason
        print(text, file=sys.stderr, flush=True)


def _name_of(outcome: Outcome) -> str:
    """The file and the goal, where the message does not begin with them."""
    if isinstance(outcome.verdict, Unusable):
        return ""
    return f"{outcome.file}: {outcome.goal + ': ' if outcome.goal else ''}"


def _lines(outcome: Outcome, explain: bool) -> Iterator[str]:
    verdict = outcome.verdict
    yield f"{_name_of(outcome)}{_word(outcome)} after {outcome.seconds:.2f} s"
    if isinstance(verdict, Proved):
        yield from verdict.statement.removeprefix("proved: ").split("\n  ")
        yield from verdict.explanation if explain else ()
        return
    if outcome.statement:
        yield outcome.statement
    if isinstance(verdict, Refuted):
        yield from (f"with {variable.name} = {show(v)}" for variable, v in verdict.values.items())
        yield f"the left side is {show(verdict.left)}"
        yield f"the right side is {show(verdict.right)}"
    elif isinstance(verdict, Unknown) and verdict.stuck is not None:
        yield f"stuck on {verdict.stuck}"


def _word(outcome: Outcome) -> str:
    verdict = outcome.verdict
    if isinstance(verdict, Unknown):
        return f"unknown ({verdict.reason})"
    return type(verdict).__name__.lower()


def _name_what_is_not_proved(outcomes: Sequence[Outcome]) -> None:
    missing = [each for each in outcomes if not isinstance(each.verdict, Proved)]
    if len(outcomes) > 1 and missing:
        proved = len(outcomes) - len(missing)
        print(f"{proved} of {len(outcomes)} proved, but not", file=sys.stderr)
        for each in missing:
            where = f"{each.file}: {each.goal}" if each.goal else each.file
            print(f"  {where}: {_word(each)}", file=sys.stderr)


def as_data(outcome: Outcome) -> Mapping[str, Any]:
    """An outcome as JSON data, terms as they are shown."""
    verdict = outcome.verdict
    data: dict[str, Any] = {
        "file": outcome.file,
        "goal": outcome.goal,
        "verdict": _word(outcome).partition(" ")[0],
        "statement": outcome.statement,
        "seconds": round(outcome.seconds, 3),
    }
    if isinstance(verdict, Proved):
        data |= {"checked": verdict.statement, "explanation": list(verdict.explanation)}
    elif isinstance(verdict, Refuted):
        data["values"] = {variable.name: show(value) for variable, value in verdict.values.items()}
        data |= {"left": show(verdict.left), "right": show(verdict.right)}
    elif isinstance(verdict, Unknown):
        data |= {"reason": verdict.reason.value, "stuck": verdict.stuck and str(verdict.stuck)}
    else:
        data["message"] = str(verdict)
    return data


# Without a search


def _read_only(file: Path, order: Order) -> int:
    try:
        program = load(file)
        check(program)
        if order.show:
            print(_listing(program))
        if order.check:
            for certificate in _certificates(order.check):
                print(verify(program, certificate))
    except Rejected as error:
        print(f"{order.check}: rejected: {error}", file=sys.stderr)
        return NOT_PROVED
    except ProverError as error:
        where = "" if str(error).startswith(str(file)) else f"{file}: "
        print(f"{where}{error}", file=sys.stderr)
        return UNUSABLE
    return PROVED


def _certificates(path: Path) -> Sequence[object]:
    """One certificate, or a list of them."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise Rejected(f"it is longer than {MOST_BYTES} bytes")
        read = json.loads(data)
    except OSError as error:
        raise Rejected(error.strerror or "it cannot be read") from None
    except (ValueError, RecursionError):
        raise Rejected("it is no JSON") from None
    return read if isinstance(read, list) and read else [read]


def _listing(program: Program) -> str:
    lines = []
    for function in program.functions.values():
        lines += [f"  {number}  {each}" for number, each in enumerate(function.equations, 1)]
    lines += [f"  free: {symbol}" for symbol in program.free]
    lines += [f"  {each.name}: {each}" for each in (*program.assumptions, *program.goals)]
    lines += [f"  left out: {each}" for each in program.left_out]
    return "\n".join(lines)

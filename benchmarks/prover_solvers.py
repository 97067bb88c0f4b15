"""Who is asked for a proof: our prover in its modes, and cvc5 with and without conjectures.

cvc5 proves by induction with `quant-ind`; `conjecture-gen` makes it look for lemmas. `make peers`
installs it; so does a virtual environment `cvc5` below THOTH_PEERS with `pip install cvc5`, in the
version that `peers/constraints.txt` names. Wrapped, a goal is a predicate of one of its
variables, which gives cvc5 a hypothesis as general as ours; its variables are tried in turn, each
for its part of the time.
"""

from __future__ import annotations

import hashlib
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import prover
from benchmarks.peers.catalogue import Places
from benchmarks.prover_smtlib import inducible, plain, wrapped
from prover.errors import Failed, ProverError
from prover.proving import Problem, Settings, prove_all
from prover.syntax.problem import load
from prover.verdict import Budget, Mode, Proved, Refuted

MEMORY_BYTES = 4 << 30
GRACE_S = 1.0
# Inference steps are no limit here: the clock is.
STEPS = 10**12
CVC5 = Path(__file__).parent / "peers" / "with_cvc5.py"
_VERSION = "from importlib.metadata import version; print(version('cvc5'))"
PROVED, REFUTED, UNKNOWN, FAILED = "proved", "refuted", "unknown", "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a solver said, after how many seconds from the start of its process."""

    said: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Solver:
    """A name for the table, how it is asked about a file with seconds to spare, and a version:
    answers of another one are not its own."""

    name: str
    ask: Callable[[Path, float], Answer]
    version: str


def solvers() -> list[Solver]:
    """All that are there; modes whose search is not built are left out."""
    modes = [mode for mode in (Mode.DIRECTED, Mode.ENUMERATIVE) if _is_built(mode)]
    ours = [Solver(f"ours, {mode}", _ours(mode), _digest()) for mode in modes]
    python = Places.standard().python("cvc5")
    return [*ours, *(_peers(python) if python.exists() else ())]


def _peers(python: Path) -> Iterator[Solver]:
    said = subprocess.run([str(python), "-c", _VERSION], capture_output=True, text=True, check=True)
    options = {"cvc5 -i": ("quant-ind",), "cvc5 -ig": ("quant-ind", "conjecture-gen")}
    for kind, is_wrapped in (("", False), (", wrapped", True)):
        for name, chosen in options.items():
            yield Solver(f"{name}{kind}", _cvc5(python, chosen, is_wrapped), said.stdout.strip())


def _digest() -> str:
    """Of the sources of the prover that is asked."""
    package = Path(prover.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _is_built(mode: Mode) -> bool:
    return find_spec(f"prover.search.{mode}") is not None


def _ours(mode: Mode) -> Callable[[Path, float], Answer]:
    def ask(file: Path, limit_s: float) -> Answer:
        settings = Settings(mode, Budget(STEPS, limit_s), memory_bytes=MEMORY_BYTES)
        outcomes = list(prove_all([Problem(str(file))], settings))
        seconds = sum(each.seconds for each in outcomes)
        return Answer(_said([each.verdict for each in outcomes]), seconds)

    return ask


def _said(verdicts: Sequence[object]) -> str:
    """Of all goals of a file together."""
    if all(isinstance(each, Proved) for each in verdicts):
        return PROVED
    if any(isinstance(each, Failed) for each in verdicts):
        return FAILED
    return REFUTED if any(isinstance(each, Refuted) for each in verdicts) else UNKNOWN


def _cvc5(
    python: Path, options: Sequence[str], is_wrapped: bool
) -> Callable[[Path, float], Answer]:
    def ask(file: Path, limit_s: float) -> Answer:
        texts = list(_texts(file, is_wrapped))
        seconds = 0.0
        for text in texts:
            answer = _run(python, text, limit_s / len(texts), options)
            seconds += answer.seconds
            if answer.said != UNKNOWN:
                return Answer(answer.said, seconds)
        return Answer(UNKNOWN, seconds)

    return ask


def _texts(file: Path, is_wrapped: bool) -> Iterator[str]:
    """What cvc5 is asked, one after the other; nothing where we cannot read the file ourselves."""
    try:
        program = load(file)
    except ProverError:
        return
    if len(program.goals) != 1:
        return
    (goal,) = program.goals
    variables = inducible(program, goal) if is_wrapped else ()
    if not variables:
        yield plain(program, goal)
    for variable in variables:
        yield wrapped(program, goal, variable)


def _run(python: Path, text: str, limit_s: float, options: Sequence[str]) -> Answer:
    begun_s = time.perf_counter()
    with tempfile.NamedTemporaryFile("w", suffix=".smt2") as file:
        file.write(text)
        file.flush()
        command = [str(python), str(CVC5), file.name, str(limit_s), *options]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=limit_s + GRACE_S,
                preexec_fn=_bound_memory,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer(UNKNOWN, time.perf_counter() - begun_s)
    words = done.stdout.split()
    said = PROVED if "unsat" in words else REFUTED if "sat" in words else UNKNOWN
    return Answer(said, time.perf_counter() - begun_s)


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

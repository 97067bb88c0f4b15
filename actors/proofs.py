"""Between the wire and the prover: requests become problems with settings, outcomes records."""

from __future__ import annotations

import json
from typing import TypeVar

from cluster.config import ProverConfig
from cluster.errors import InvalidArgument, TooLarge
from cluster.proofs import GoalOutcome, ProblemLanguage, ProofVerdict, UnknownReason
from cluster.wire.proofs import language_from_pb, mode_from_pb
from protos.thoth.v1 import prover_pb2 as pb
from prover.processes import Outcome
from prover.proving import Problem, Settings
from prover.terms import show
from prover.verdict import Budget, Mode, Proved, Refuted, Unknown

# Less than a message may take, with room for what is beside it.
MAX_CERTIFICATE_BYTES = 24 * 2**20
# Below it not even an interpreter starts.
MIN_MEMORY_BYTES = 2**28
_MAX_NAME_CHARS = 200
_ENDINGS = {ProblemLanguage.SMT_LIB: ".smt2", ProblemLanguage.PROVE: ".prove"}

Number = TypeVar("Number", int, float)


def problem_of(request: pb.ProveRequest, limits: ProverConfig) -> Problem:
    """Raises InvalidArgument and TooLarge, naming the field."""
    name = request.name or "problem"
    if len(name) > _MAX_NAME_CHARS or not name.isprintable():
        limit = f"at most {_MAX_NAME_CHARS} characters that can be printed"
        raise InvalidArgument(f"name is not {limit}", field="name", limit=limit)
    data = request.text.encode()
    if not data.strip():
        raise InvalidArgument("text is empty", field="text", limit="definitions and goals")
    if len(data) > limits.max_problem_bytes:
        raise TooLarge(
            f"text has {len(data)} bytes, {limits.max_problem_bytes} are allowed",
            field="text",
            limit=f"at most {limits.max_problem_bytes} bytes (prover.max_problem_bytes)",
        )
    return Problem(_with_ending(name, request), data)


def _with_ending(name: str, request: pb.ProveRequest) -> str:
    """The prover tells languages by the endings of files."""
    language = language_from_pb(request.language)
    if language is None:
        if name.endswith(tuple(_ENDINGS.values())):
            return name
        starts_as_list = request.text.lstrip().startswith(("(", ";"))
        language = ProblemLanguage.SMT_LIB if starts_as_list else ProblemLanguage.PROVE
    ending = _ENDINGS[language]
    return name if name.endswith(ending) else name + ending


def settings_of(request: pb.ProveRequest, limits: ProverConfig) -> Settings:
    """Raises InvalidArgument, naming the field and its limit."""
    seconds, memory_bytes, steps = limits.time_limit_s, limits.memory_bytes, Budget().steps
    if request.HasField("time_limit_s"):
        most_s = limits.max_time_limit_s
        seconds = _within(request.time_limit_s, (0.001, most_s), "time_limit_s")
    if request.HasField("memory_bytes"):
        allowed = MIN_MEMORY_BYTES, max(MIN_MEMORY_BYTES, limits.max_memory_bytes)
        memory_bytes = _within(request.memory_bytes, allowed, "memory_bytes")
    if request.HasField("steps"):
        steps = _within(request.steps, (1, 2**63 - 1), "steps")
    mode = Mode(mode_from_pb(request.mode))
    budget = Budget(steps, seconds)
    return Settings(mode, budget, request.seed, memory_bytes=memory_bytes, nice=limits.nice)


def _within(value: Number, allowed: tuple[Number, Number], field: str) -> Number:
    least, most = allowed
    if not least <= value <= most:
        raise InvalidArgument(
            f"{field} is {value}, which is not in [{least}, {most}]",
            field=field,
            limit=f"{least} to {most}",
        )
    return value


def record_of(outcome: Outcome, request: pb.ProveRequest) -> GoalOutcome:
    """What came of a goal, with as much of a proof as the request asks for."""
    verdict, known = outcome.verdict, (outcome.goal, outcome.statement)
    if isinstance(verdict, Proved):
        return _proved(outcome, verdict, request)
    if isinstance(verdict, Refuted):
        return GoalOutcome(
            *known,
            ProofVerdict.REFUTED,
            outcome.seconds,
            values={variable.name: show(value) for variable, value in verdict.values.items()},
            left=show(verdict.left),
            right=show(verdict.right),
        )
    if isinstance(verdict, Unknown):
        return GoalOutcome(
            *known,
            ProofVerdict.UNKNOWN,
            outcome.seconds,
            reason=UnknownReason(verdict.reason),
            stuck="" if verdict.stuck is None else str(verdict.stuck),
        )
    return GoalOutcome(*known, ProofVerdict.FAILED, outcome.seconds, message=str(verdict))


def _proved(outcome: Outcome, verdict: Proved, request: pb.ProveRequest) -> GoalOutcome:
    certificate, message = None, ""
    if request.certificate:
        num_bytes = len(json.dumps(verdict.certificate))
        if num_bytes <= MAX_CERTIFICATE_BYTES:
            certificate = verdict.certificate
        else:
            message = f"a certificate of {num_bytes} bytes is left out: no message holds it"
    return GoalOutcome(
        outcome.goal,
        outcome.statement,
        ProofVerdict.PROVED,
        outcome.seconds,
        checked=verdict.statement.removeprefix("proved: "),
        certificate=certificate,
        explanation=verdict.explanation if request.explanation else (),
        message=message,
    )

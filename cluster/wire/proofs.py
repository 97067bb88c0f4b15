"""Problems and what came of their goals on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict, TypeVar

from cluster.errors import InvalidArgument, ThothError
from cluster.proofs import GoalOutcome, ProblemLanguage, ProofMode, ProofVerdict, UnknownReason
from cluster.wire.requests import Call, make_call, put
from cluster.wire.status import from_detail
from protos.thoth.v1 import prover_pb2 as pb

_LANGUAGES: Mapping[str, pb.ProblemLanguage.ValueType] = {
    ProblemLanguage.SMT_LIB: pb.PROBLEM_LANGUAGE_SMT_LIB,
    ProblemLanguage.PROVE: pb.PROBLEM_LANGUAGE_PROVE,
}
_MODES: Mapping[str, pb.ProofMode.ValueType] = {
    ProofMode.DIRECTED: pb.PROOF_MODE_DIRECTED,
    ProofMode.ENUMERATIVE: pb.PROOF_MODE_ENUMERATIVE,
    ProofMode.PORTFOLIO: pb.PROOF_MODE_PORTFOLIO,
}
_VERDICTS = {
    ProofVerdict.PROVED: pb.PROOF_VERDICT_PROVED,
    ProofVerdict.REFUTED: pb.PROOF_VERDICT_REFUTED,
    ProofVerdict.UNKNOWN: pb.PROOF_VERDICT_UNKNOWN,
    ProofVerdict.FAILED: pb.PROOF_VERDICT_FAILED,
}
_VERDICTS_BACK = {value: verdict for verdict, value in _VERDICTS.items()}
_REASONS = {
    UnknownReason.TIMEOUT: pb.UNKNOWN_REASON_TIMEOUT,
    UnknownReason.STEPS: pb.UNKNOWN_REASON_STEPS,
    UnknownReason.MEMORY: pb.UNKNOWN_REASON_MEMORY,
    UnknownReason.STUCK: pb.UNKNOWN_REASON_STUCK,
}
_REASONS_BACK = {value: reason for reason, value in _REASONS.items()}
Number = TypeVar("Number", bound=int)
_FIELDS = ("time_limit_s", "steps", "memory_bytes", "seed", "certificate", "explanation")


class ProveOptions(TypedDict, total=False):
    """What may be said beside a problem; what is not said is the server's choice."""

    # What messages call the problem, as a file is called.
    name: str
    # smt_lib or prove; by default the name's ending or the text's beginning says which.
    language: str
    # directed, enumerative or portfolio.
    mode: str
    # Of each goal: seconds, inference steps, and bytes of memory of its process.
    time_limit_s: float
    steps: int
    memory_bytes: int
    # Of samples: the same seed and steps give the same verdicts and certificates.
    seed: int
    # Whether outcomes carry these for what is proved.
    certificate: bool
    explanation: bool
    # Seconds for all goals together, retries included.
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ProofsFinished:
    """Last event of a stream of outcomes."""

    request_id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Proofs:
    """What came of every goal of a problem, in its order."""

    outcomes: tuple[GoalOutcome, ...]
    request_id: str
    seconds: float

    @property
    def all_proved(self) -> bool:
        """Whether every goal is a theorem."""
        return all(each.verdict is ProofVerdict.PROVED for each in self.outcomes)


ProofEvent = GoalOutcome | ProofsFinished | ThothError


def prove(text: str, options: ProveOptions, timeout_s: float) -> Call[ProofEvent]:
    """An error in the stream is an event here: it is for the reader of the stream to raise."""
    request = prove_request_to_pb(text, options, timeout_s)
    return make_call("/thoth.v1.ProverService/Prove", request, pb.ProveResponse, event_from_pb)


def prove_request_to_pb(
    text: str, options: ProveOptions, timeout_s: float | None
) -> pb.ProveRequest:
    """Raises InvalidArgument for what fits in no field, or is no word for a language or mode."""
    request = pb.ProveRequest()
    put(request, "text", text)
    put(request, "name", options.get("name"))
    put(request, "timeout_s", timeout_s)
    for name in _FIELDS:
        put(request, name, options.get(name))
    if (language := options.get("language")) is not None:
        request.language = _word(language, _LANGUAGES, "language")
    if (mode := options.get("mode")) is not None:
        request.mode = _word(mode, _MODES, "mode")
    return request


def _word(word: str, words: Mapping[str, Number], field: str) -> Number:
    if word not in words:
        known = ", ".join(words)
        raise InvalidArgument(f"{field} is {word!r}, not one of {known}", field=field, limit=known)
    return words[word]


def language_from_pb(value: pb.ProblemLanguage.ValueType) -> ProblemLanguage | None:
    """None: the problem says itself. Raises InvalidArgument for a number that is none."""
    if value == pb.PROBLEM_LANGUAGE_UNSPECIFIED:
        return None
    return ProblemLanguage(_read(value, _LANGUAGES, "language"))


def mode_from_pb(value: pb.ProofMode.ValueType) -> ProofMode:
    """Raises InvalidArgument for a number that is none."""
    if value == pb.PROOF_MODE_UNSPECIFIED:
        return ProofMode.DIRECTED
    return ProofMode(_read(value, _MODES, "mode"))


def _read(value: int, words: Mapping[str, int], field: str) -> str:
    for word, number in words.items():
        if number == value:
            return word
    raise InvalidArgument(
        f"{field} is {value}, which means nothing here", field=field, limit=", ".join(words)
    )


def outcome_to_pb(outcome: GoalOutcome) -> pb.GoalOutcome:
    values = (pb.GroundValue(variable=v, value=value) for v, value in outcome.values.items())
    certificate = outcome.certificate
    return pb.GoalOutcome(
        goal=outcome.goal,
        statement=outcome.statement,
        verdict=_VERDICTS[outcome.verdict],
        seconds=outcome.seconds,
        checked=outcome.checked,
        certificate_json="" if certificate is None else json.dumps(certificate),
        explanation=outcome.explanation,
        values=values,
        left=outcome.left,
        right=outcome.right,
        reason=_REASONS[outcome.reason] if outcome.reason else pb.UNKNOWN_REASON_UNSPECIFIED,
        stuck=outcome.stuck,
        message=outcome.message,
    )


def outcome_from_pb(message: pb.GoalOutcome) -> GoalOutcome:
    """A newer server's verdict is unknown to us."""
    written = message.certificate_json
    return GoalOutcome(
        goal=message.goal,
        statement=message.statement,
        verdict=_VERDICTS_BACK.get(message.verdict, ProofVerdict.UNKNOWN),
        seconds=message.seconds,
        checked=message.checked,
        certificate=json.loads(written) if written else None,
        explanation=tuple(message.explanation),
        values={each.variable: each.value for each in message.values},
        left=message.left,
        right=message.right,
        reason=_REASONS_BACK.get(message.reason),
        stuck=message.stuck,
        message=message.message,
    )


def event_from_pb(message: pb.ProveResponse) -> ProofEvent:
    match message.WhichOneof("event"):
        case "finished":
            return ProofsFinished(message.finished.request_id, message.finished.seconds)
        case "error":
            return from_detail(message.error)
        case _:
            return outcome_from_pb(message.outcome)

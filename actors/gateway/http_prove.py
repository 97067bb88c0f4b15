"""POST /v1/prove: what came of the goals of a problem, at once or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from actors.gateway.ahead import Ahead
from actors.gateway.bodies import ProveBody, parse
from actors.gateway.body import Gateway
from actors.gateway.http_schema import takes
from actors.gateway.openai import Json, error_to_json
from actors.gateway.streams import DONE, EventStream, frame, read_body, while_connected
from cluster.errors import InvariantBroken, ThothError
from cluster.proofs import GoalOutcome, ProofVerdict
from cluster.wire.proofs import ProveOptions, outcome_from_pb, prove_request_to_pb
from protos.thoth.v1 import prover_pb2 as pb

Events = AsyncGenerator[pb.ProveResponse, None]

_ALWAYS = ("goal", "statement", "verdict", "seconds")
_BY_VERDICT: Mapping[ProofVerdict, tuple[str, ...]] = {
    ProofVerdict.PROVED: ("checked",),
    ProofVerdict.REFUTED: ("values", "left", "right"),
    ProofVerdict.UNKNOWN: ("reason",),
    ProofVerdict.FAILED: (),
}
_IF_THERE = ("certificate", "explanation", "stuck", "message")


def routes(gateway: Callable[[], Gateway]) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["proofs"])

    @router.post("/prove", openapi_extra=takes(ProveBody))
    async def prove(request: Request) -> Response:
        """For every goal a checked proof, values that refute it, or why there is neither."""
        raw = await read_body(request, gateway().config.gateway.max_body_bytes)
        body = parse(raw, ProveBody)
        events = gateway().prove(_to_pb(body), request.state.principal)
        if not body.stream:
            return JSONResponse(await while_connected(request.receive, _whole(events)))
        # What fails before the first outcome fails with a status of its own.
        frames = Ahead(_frames(events))
        first = await while_connected(request.receive, anext(frames))
        return EventStream(first, frames)

    return router


def _to_pb(body: ProveBody) -> pb.ProveRequest:
    options = body.model_dump(exclude_none=True, exclude={"text", "stream", "timeout_s"})
    return prove_request_to_pb(body.text, cast(ProveOptions, options), body.timeout_s)


async def _whole(events: Events) -> Json:
    data: list[Json] = []
    async with aclosing(events):
        async for event in events:
            if event.HasField("finished"):
                return _finished(event.finished) | {"data": data}
            data.append(outcome_to_json(outcome_from_pb(event.outcome)))
    raise InvariantBroken("a search ended without its last event")


async def _frames(events: Events) -> AsyncGenerator[bytes, None]:
    """Errors before the first outcome are raised, later ones are the last event."""
    has_outcome = False
    try:
        async with aclosing(events):
            async for event in events:
                if event.HasField("finished"):
                    yield frame(_finished(event.finished))
                else:
                    yield frame(outcome_to_json(outcome_from_pb(event.outcome)))
                has_outcome = True
    except ThothError as error:
        if not has_outcome:
            raise
        yield frame(error_to_json(error))
    yield DONE


def _finished(finished: pb.ProveFinished) -> Json:
    return {
        "object": "proofs",
        "id": finished.request_id,
        "num_goals": finished.num_goals,
        "seconds": finished.seconds,
    }


def outcome_to_json(outcome: GoalOutcome) -> Json:
    """What the verdict has to say, and no more."""
    fields: dict[str, Any] = asdict(outcome)
    names = (*_ALWAYS, *_BY_VERDICT[outcome.verdict], *(n for n in _IF_THERE if fields[n]))
    return {"object": "goal"} | {name: fields[name] for name in names}

"""POST /v1/chat/completions, POST /v1/retrieve and GET /v1/models."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from actors.gateway.ahead import Ahead
from actors.gateway.bodies import ChatCompletionBody, RetrieveBody, parse
from actors.gateway.body import Gateway
from actors.gateway.http_schema import takes
from actors.gateway.openai import Completion, Json, chunk_to_json, error_to_json
from actors.gateway.openai_calls import ask_of
from actors.gateway.streams import DONE, EventStream, frame, read_body, while_connected
from cluster.errors import InvariantBroken, ThothError
from cluster.request import RetrievalOptions
from cluster.wire.answers import ChoiceFinished, Delta, Finished, Started, StreamEvent
from cluster.wire.choices import Choices

Events = AsyncGenerator[StreamEvent, None]


def routes(gateway: Callable[[], Gateway]) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["answers"])

    @router.post("/chat/completions", openapi_extra=takes(ChatCompletionBody))
    async def chat_completions(request: Request) -> Response:
        """An answer, at once or as server-sent events, over documents when `retrieval` is given."""
        body = parse(await _body(request), ChatCompletionBody)
        return await _complete(gateway(), body, request)

    @router.post("/retrieve", openapi_extra=takes(RetrieveBody))
    async def retrieve(request: Request) -> Json:
        """The passages that an answer would be given, without the answer."""
        body = parse(await _body(request), RetrieveBody)
        options = RetrievalOptions(tuple(body.collections), body.top_k, body.filters)
        search = gateway().retrieve(options, body.query)
        chunks, retrieval_s = await while_connected(request.receive, search)
        return {"data": [chunk_to_json(chunk) for chunk in chunks], "retrieval_s": retrieval_s}

    @router.get("/models")
    async def models() -> Json:
        """The one model that is served."""
        model = gateway().model
        entry = {
            "id": model.name,
            "object": "model",
            "created": 0,
            "owned_by": "thoth",
            "context_tokens": model.context_tokens,
        }
        return {"object": "list", "data": [entry]}

    async def _body(request: Request) -> bytes:
        return await read_body(request, gateway().config.gateway.max_body_bytes)

    return router


async def _complete(gateway: Gateway, body: ChatCompletionBody, request: Request) -> Response:
    default_timeout_s = gateway.config.gateway.default_timeout_s
    ask = replace(
        ask_of(body, gateway.new_request_id(), gateway.new_seed(), default_timeout_s),
        principal=request.state.principal,
    )
    events = gateway.chat(ask)
    if not body.stream:
        whole = await while_connected(request.receive, _whole(events, body))
        return JSONResponse(whole)
    # The first frame is there before the status is sent: what fails until then fails with its own.
    frames = Ahead(_frames(events, body))
    first = await while_connected(request.receive, anext(frames))
    return EventStream(first, frames)


async def _whole(events: Events, body: ChatCompletionBody) -> Json:
    async with aclosing(events):
        completion, choices = await _begin(events, body), Choices()
        async for event in events:
            choices.add(event)
            if isinstance(event, Finished):
                return completion.whole(choices.whole(), event)
    raise InvariantBroken("an answer ended without its last event")


async def _frames(events: Events, body: ChatCompletionBody) -> AsyncGenerator[bytes, None]:
    """All frames of a stream. Errors before the first are raised, later ones are the last event."""
    async with aclosing(events):
        completion = await _begin(events, body)
        yield b"".join(map(frame, completion.first_chunks()))
        try:
            async with aclosing(_chunks(events, completion)) as chunks:
                async for chunk in chunks:
                    yield frame(chunk)
        except ThothError as error:
            yield frame(error_to_json(error))
        yield DONE


async def _chunks(events: Events, completion: Completion) -> AsyncGenerator[Json, None]:
    """The end of the last choice waits for the last event, to carry what that one knows."""
    num_open, last = completion.num_choices, None
    async for event in events:
        match event:
            case Delta():
                yield completion.text_chunk(event)
            case ChoiceFinished():
                num_open, last = num_open - 1, event
                if num_open:
                    yield completion.end_chunk(event)
            case Finished():
                for chunk in completion.last_chunks(
                    last or ChoiceFinished(0, event.finish_reason), event
                ):
                    yield chunk


async def _begin(events: Events, body: ChatCompletionBody) -> Completion:
    started = await anext(events)
    if not isinstance(started, Started):
        raise InvariantBroken(f"an answer began with {type(started).__name__}")
    options = body.stream_options
    return Completion(
        started=started,
        created=int(time.time()),
        is_retrieval=body.retrieval is not None,
        include_usage=options is not None and options.include_usage,
        num_choices=body.n or 1,
        has_logprobs=bool(body.logprobs),
    )

"""One request's token ids, whichever workers they come from.

The ids received so far are the whole state of a generation: a worker that is lost is replaced by
another one, which is given the prompt and those ids and goes on after them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from actors.gateway.peers import PATIENCE_S, GenerateCall, Peers, Placement, answered
from cluster.errors import (
    DeadlineExceeded,
    InvariantBroken,
    Lost,
    Overloaded,
    Starting,
    Unavailable,
)
from cluster.request import CachedTokens, FinishReason, Request, TokenIds, TokenLogprobs
from cluster.telemetry import catalogue
from cluster.telemetry.metrics import Metrics
from cluster.wire.generation import cached_from_pb, finish_reason_from_pb
from cluster.wire.sampling import logprobs_from_pb
from cluster.wire.status import from_detail
from protos.thoth.v1 import worker_pb2

MAX_RETRIES = 2


@dataclass(frozen=True, slots=True)
class FirstToken:
    """What came before the first token, in seconds on the worker's clock; `cached` tokens of the
    prompt were not computed."""

    queue_s: float
    prefill_s: float
    cached: CachedTokens = field(default_factory=CachedTokens)


@dataclass(frozen=True, slots=True)
class Tokens:
    """More ids, as many as the worker sent together; `first` comes with a worker's first ones.

    `logprobs` are as many as `ids` when they were asked for, else none.
    """

    ids: TokenIds
    first: FirstToken | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()

    def joined(self, later: Tokens) -> Tokens:
        """Both, as if they had come together."""
        return Tokens(
            self.ids + later.ids, self.first or later.first, self.logprobs + later.logprobs
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """Last."""

    finish_reason: FinishReason


class Generation:
    """`request.output_ids` grows with what arrives."""

    def __init__(self, request: Request, peers: Peers, metrics: Metrics) -> None:
        self.request = request
        self._peers = peers
        self._retries = metrics.counter(catalogue.RETRIES)
        self._rejected = metrics.counter(catalogue.REQUESTS_REJECTED)
        self._failed: set[Placement] = set()
        self._num_retries = 0
        self._refusal: Overloaded | None = None

    async def events(self) -> AsyncGenerator[Tokens | Ended, None]:
        """Ids, then how they ended. Raises what no other worker can mend."""
        while not self._is_complete:
            placement = await self._place()
            try:
                async with aclosing(self._stream(placement)) as stream:
                    async for event in stream:
                        yield event
                return
            except (Lost, Unavailable) as error:
                self._give_up_or_go_on(placement, error)
        yield Ended(FinishReason.LENGTH)

    @property
    def _is_complete(self) -> bool:
        """A worker may be lost between its last token and saying that it was the last."""
        return len(self.request.output_ids) >= self.request.sampling.max_tokens

    async def _place(self) -> Placement:
        patience_s = 0.0 if self._refusal else PATIENCE_S
        try:
            return await self._peers.route(self.request, self._failed, patience_s)
        except (Starting, Overloaded) as error:
            # After a worker that was full, nobody else takes it: that word stands.
            error = self._refusal or error
            is_full = isinstance(error, Overloaded)
            self._rejected.labels("worker_full" if is_full else "no_worker").inc()
            raise error from None

    def _give_up_or_go_on(self, placement: Placement, error: Lost | Unavailable) -> None:
        """Raises `error` unless another worker should try."""
        if isinstance(error, DeadlineExceeded) or self._num_retries >= MAX_RETRIES:
            raise error
        if isinstance(error, Overloaded):
            if self._refusal is not None:
                self._rejected.labels("worker_full").inc()
                raise error
            self._refusal = error
        self._failed.add(placement)
        self._num_retries += 1
        self._retries.labels("lost" if isinstance(error, Lost) else "unavailable").inc()

    async def _stream(self, placement: Placement) -> AsyncGenerator[Tokens | Ended, None]:
        async with self._peers.generating(placement, self.request) as call:
            while True:
                event = await self._next(call, placement)
                if isinstance(event, Tokens):
                    ids = self.request.output_ids + event.ids
                    self.request = replace(self.request, output_ids=ids)
                yield event
                if isinstance(event, Ended):
                    return

    async def _next(self, call: GenerateCall, placement: Placement) -> Tokens | Ended:
        message = await answered(call.read())
        if not isinstance(message, worker_pb2.GenerateResponse):
            raise Lost(f"{placement.worker} ended its stream without a final event")
        match message.WhichOneof("event"):
            case "tokens":
                return _tokens(message.tokens)
            case "finished":
                return _ended(message.finished, placement)
            case "error":
                raise from_detail(message.error)
            case other:
                raise InvariantBroken(f"{placement.worker} sent an event of kind {other}")


def _tokens(tokens: worker_pb2.TokensGenerated) -> Tokens:
    first = _first(tokens.first) if tokens.HasField("first") else None
    return Tokens(tuple(tokens.token_ids), first, tuple(map(logprobs_from_pb, tokens.logprobs)))


def _first(first: worker_pb2.FirstToken) -> FirstToken:
    return FirstToken(first.queue_s, first.prefill_s, cached_from_pb(first.cached))


def _ended(finished: worker_pb2.GenerateFinished, placement: Placement) -> Ended:
    reason = finish_reason_from_pb(finished.finish_reason)
    if reason is FinishReason.CANCELLED:
        # Not by us: we would not be reading any more.
        raise Lost(f"{placement.worker} gave the request back")
    return Ended(reason)

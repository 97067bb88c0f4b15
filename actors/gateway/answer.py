"""The life of one request: retrieve, build the prompt, generate, turn ids into text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from actors.gateway.ahead import Ahead
from actors.gateway.ask import Ask
from actors.gateway.generation import Ended, Generation, Tokens
from actors.gateway.model import ServedModel
from actors.gateway.peers import Peers
from actors.gateway.stopwatch import Stopwatch
from actors.gateway.transcript import Transcript
from actors.gateway.validation import max_tokens_for, nested, query_of
from cluster.config import GatewayConfig
from cluster.errors import DeadlineExceeded
from cluster.request import FinishReason, Request, Usage
from cluster.retrieval.records import Citation, ScoredChunk
from cluster.telemetry.metrics import Metrics
from cluster.text.prompt import Prompt
from cluster.wire.answers import Delta, Finished, Started, StreamEvent

# A worker that is full says so at once. For so long the answer is not said to have started, so that
# the refusal can be the status of the call instead of an event in its stream.
_ACCEPTED_S = 0.25


@dataclass(frozen=True, slots=True)
class Means:
    """What every answer of a gateway is made with."""

    model: ServedModel
    config: GatewayConfig
    peers: Peers
    metrics: Metrics


class Answer:
    """One validated call on its way."""

    def __init__(self, ask: Ask, means: Means, stopwatch: Stopwatch) -> None:
        self._ask = ask
        self._means = means
        self._stopwatch = stopwatch
        self._deadline_s = stopwatch.began_s + ask.call.timeout_s
        # A stop string is met here, and ends the worker without a last word of its own.
        self._ended = Ended(FinishReason.STOP)

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Started, Deltas, Finished. Closing the generator cancels the worker at once."""
        chunks = await self._retrieve()
        # Tokenising a long text takes a while, and needs no event loop.
        prompt = await asyncio.to_thread(self._build_prompt, chunks)
        generation = Generation(self._request(prompt), self._means.peers, self._means.metrics)
        async with aclosing(Ahead(generation.events())) as source:
            await source.arrives_within(_ACCEPTED_S)
            yield self._started(prompt)
            async with aclosing(self._deltas(source)) as deltas:
                async for delta in deltas:
                    yield delta
        yield self._finished(generation.request)

    async def _retrieve(self) -> tuple[ScoredChunk, ...]:
        options = self._ask.call.retrieval
        if options is None:
            return ()
        query = query_of(self._ask.call, options)
        with nested("retrieval"):
            chunks = await self._means.peers.search(options, query, self._deadline_s)
        self._stopwatch.retrieved()
        return chunks

    def _build_prompt(self, chunks: tuple[ScoredChunk, ...]) -> Prompt:
        """Documents are dropped from the end until they and an answer fit the context."""
        options, prompts = self._ask.call.retrieval, self._means.model.prompts
        budget = options.max_context_tokens if options else None
        prompt = prompts.build(self._ask.call.messages, chunks, budget)
        excess = prompt.num_tokens + self._reserved_tokens - self._means.model.context_tokens
        if excess > 0 and prompt.documents:
            budget = max(0, sum(map(len, prompt.segments[1:-1])) - excess)
            prompt = prompts.build(self._ask.call.messages, chunks, budget)
        return prompt

    @property
    def _reserved_tokens(self) -> int:
        """Room for the answer that documents may not take."""
        default = min(self._means.config.default_max_tokens, self._means.model.context_tokens // 4)
        return self._ask.max_tokens or default

    def _request(self, prompt: Prompt) -> Request:
        max_tokens = max_tokens_for(
            self._ask,
            prompt.num_tokens,
            self._means.model.context_tokens,
            self._means.config.default_max_tokens,
        )
        sampling = self._ask.call.sampling
        # A worker knows no text, so not even how the model ends its turn.
        stop_ids = sampling.stop_ids | self._means.model.tokenizer.eos_ids
        return Request(
            id=self._ask.request_id,
            segments=prompt.segments,
            sampling=replace(sampling, max_tokens=max_tokens, stop_ids=stop_ids),
            deadline_s=self._deadline_s,
        )

    def _started(self, prompt: Prompt) -> Started:
        options = self._ask.call.retrieval
        kept = prompt.documents if options is not None and options.citations else ()
        return Started(
            request_id=self._ask.request_id,
            model=self._means.model.name,
            citations=tuple(Citation(i, chunk) for i, chunk in enumerate(kept, start=1)),
            retrieval_s=self._stopwatch.retrieval_s,
        )

    async def _deltas(self, source: Ahead[Tokens | Ended]) -> AsyncGenerator[Delta, None]:
        """Text until the worker ends, a stop string is met, or the deadline passes."""
        call = self._ask.call
        transcript = Transcript(self._means.model.tokenizer, call.stop, call.sampling.stop_ids)
        async for event in self._until_deadline(source):
            if isinstance(event, Ended):
                self._ended = event
                break
            if text := transcript.push(event.ids):
                yield Delta(text)
            if transcript.is_stopped:
                return
        if text := transcript.flush():
            yield Delta(text)
        if transcript.is_stopped:
            self._ended = replace(self._ended, finish_reason=FinishReason.STOP)

    async def _until_deadline(
        self, source: Ahead[Tokens | Ended]
    ) -> AsyncGenerator[Tokens | Ended, None]:
        """With tokens, a deadline that passes ends the answer; without, it is an error."""
        num_tokens = 0
        try:
            async for event in source:
                if isinstance(event, Tokens):
                    num_tokens += len(event.ids)
                    self._stopwatch.generated(event)
                elif event.finish_reason is FinishReason.DEADLINE and not num_tokens:
                    raise _deadline_exceeded()
                yield event
        except DeadlineExceeded:
            if not num_tokens:
                raise
            yield Ended(FinishReason.DEADLINE)

    def _finished(self, request: Request) -> Finished:
        return Finished(
            finish_reason=self._ended.finish_reason,
            usage=Usage(request.num_prompt_tokens, len(request.output_ids)),
            timings=self._stopwatch.timings(),
        )


def _deadline_exceeded() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the time given for the answer has passed before its first token", field="timeout_s"
    )

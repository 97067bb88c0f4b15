"""The life of one call: retrieve, build the prompt, generate its answers side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from actors.gateway.ask import Ask
from actors.gateway.draft import Draft
from actors.gateway.gathering import Gathering
from actors.gateway.generation import Ended, Generation, Tokens
from actors.gateway.model import ServedModel
from actors.gateway.peers import Peers
from actors.gateway.stopwatch import Stopwatch
from actors.gateway.tenants import sources_of
from actors.gateway.validation import (
    check_min_tokens,
    max_tokens_for,
    nested,
    query_of,
    spelled,
)
from cluster.config import GatewayConfig
from cluster.errors import DeadlineExceeded
from cluster.ids import RequestId
from cluster.request import FinishReason, Request, Sampling, Usage
from cluster.retrieval.records import Citation, ScoredChunk
from cluster.telemetry.metrics import Metrics
from cluster.text.prompt import Prompt
from cluster.wire.answers import ChoiceFinished, Delta, Finished, Started, StreamEvent

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
    shared_collections: frozenset[str] = frozenset()


class Answer:
    """One validated call on its way to its `n` answers."""

    def __init__(self, ask: Ask, means: Means, stopwatch: Stopwatch) -> None:
        self._ask = ask
        self._means = means
        self._stopwatch = stopwatch
        self._deadline_s = stopwatch.began_s + ask.call.timeout_s
        self._has_tokens = False

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Started, Deltas, Finished. Closing the generator cancels the workers at once."""
        await self._check_grammar()
        chunks = await self._retrieve()
        # Tokenising a long text takes a while, and needs no event loop.
        prompt = await asyncio.to_thread(self._build_prompt, chunks)
        drafts = self._drafts(prompt)
        async with aclosing(Gathering([self._until_deadline(d) for d in drafts])) as source:
            await source.arrives_within(_ACCEPTED_S)
            yield self._started(prompt)
            async with aclosing(_written(drafts, source)) as events:
                async for event in events:
                    yield event
        yield self._finished(prompt, drafts)

    async def _check_grammar(self) -> None:
        """Compiling takes milliseconds, and a second the first time: beside the event loop."""
        grammar = self._ask.call.sampling.grammar
        if grammar is not None:
            with spelled(self._ask.spelling):
                await asyncio.to_thread(self._means.model.grammars.walk, grammar)

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

    def _drafts(self, prompt: Prompt) -> tuple[Draft, ...]:
        call, means = self._ask.call, self._means
        sampling = self._sampling(prompt)
        shared = means.shared_collections
        sources = sources_of(prompt, call.messages, self._ask.principal, shared)
        requests = (
            Request(
                id=_name(self._ask.request_id, choice),
                segments=prompt.segments,
                sampling=replace(sampling, choice=choice),
                deadline_s=self._deadline_s,
                sources=sources,
                template=means.model.prompts.fingerprint,
            )
            for choice in range(call.n)
        )
        return tuple(
            Draft(Generation(request, means.peers, means.metrics), call, means.model.tokenizer)
            for request in requests
        )

    def _sampling(self, prompt: Prompt) -> Sampling:
        call, model = self._ask.call, self._means.model
        default = self._means.config.default_max_tokens
        max_tokens = max_tokens_for(self._ask, prompt.num_tokens, model.context_tokens, default)
        check_min_tokens(call.sampling.min_tokens, max_tokens)
        # A worker knows no text, so not even how the model ends its turn.
        ends = frozenset() if call.ignore_eos else model.tokenizer.eos_ids
        return replace(call.sampling, max_tokens=max_tokens, stop_ids=call.sampling.stop_ids | ends)

    def _started(self, prompt: Prompt) -> Started:
        options = self._ask.call.retrieval
        kept = prompt.documents if options is not None and options.citations else ()
        return Started(
            request_id=self._ask.request_id,
            model=self._means.model.name,
            citations=tuple(Citation(i, chunk) for i, chunk in enumerate(kept, start=1)),
            retrieval_s=self._stopwatch.retrieval_s,
        )

    async def _until_deadline(self, draft: Draft) -> AsyncGenerator[Tokens | Ended, None]:
        """With tokens, a deadline that passes ends the answer; without any, it is an error."""
        try:
            async with aclosing(draft.generation.events()) as events:
                async for event in events:
                    if isinstance(event, Tokens):
                        self._has_tokens |= bool(event.ids)
                        self._stopwatch.generated(event, draft.choice)
                    elif event.finish_reason is FinishReason.DEADLINE and not self._has_tokens:
                        raise _deadline_exceeded()
                    yield event
        except DeadlineExceeded:
            if not self._has_tokens:
                raise
            yield Ended(FinishReason.DEADLINE)

    def _finished(self, prompt: Prompt, drafts: Sequence[Draft]) -> Finished:
        num_tokens = sum(len(draft.generation.request.output_ids) for draft in drafts)
        return Finished(
            finish_reason=drafts[0].finish_reason or FinishReason.STOP,
            usage=Usage(prompt.num_tokens, num_tokens, self._stopwatch.cached),
            timings=self._stopwatch.timings(),
        )


async def _written(
    drafts: Sequence[Draft], source: Gathering
) -> AsyncGenerator[Delta | ChoiceFinished, None]:
    """Text until every worker ends, or its draft meets a stop string."""
    async for choice, event in source:
        draft = drafts[choice]
        if (delta := draft.take(event)) is not None:
            yield delta
        if draft.finish_reason is not None:
            await source.drop(choice)
            if len(drafts) > 1:
                yield ChoiceFinished(choice, draft.finish_reason)


def _name(request_id: RequestId, choice: int) -> RequestId:
    """A worker tells requests apart by their names."""
    return RequestId(f"{request_id}.{choice}") if choice else request_id


def _deadline_exceeded() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the time given for the answer has passed before its first token", field="timeout_s"
    )

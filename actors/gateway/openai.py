"""OpenAI's shapes: completions, chunks and errors. Ours stand beside theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.errors import ThothError
from cluster.request import FinishReason, Usage
from cluster.retrieval.records import Citation, ScoredChunk
from cluster.wire.answers import Choice, ChoiceFinished, Delta, Finished, Started, TokenLogprob
from cluster.wire.status import code_of, reason_of

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """One call's answers on their way out: what all their objects have in common."""

    started: Started
    created: int
    is_retrieval: bool
    include_usage: bool = False
    num_choices: int = 1
    has_logprobs: bool = False

    def whole(self, choices: Sequence[Choice], finished: Finished) -> Json:
        """The object of a call without stream."""
        return {
            **self._head("chat.completion"),
            "choices": [self._choice(choice) for choice in choices],
            "usage": _usage(finished.usage),
            **self._ours(finished),
        }

    def first_chunks(self) -> Iterator[Json]:
        """The role of every choice; with the first, what was found for the question."""
        found = {"retrieval": self._citations()} if self.is_retrieval else {}
        for choice in range(self.num_choices):
            yield self._chunk(choice, {"role": "assistant", "content": ""}) | found
            found = {}

    def text_chunk(self, delta: Delta) -> Json:
        chunk = self._chunk(delta.choice, {"content": delta.text})
        chunk["choices"][0]["logprobs"] = self._logprobs(delta.logprobs)
        return chunk

    def end_chunk(self, end: ChoiceFinished) -> Json:
        """One of several choices is whole."""
        return self._chunk(end.choice, {}, end.finish_reason)

    def last_chunks(self, end: ChoiceFinished, finished: Finished) -> Iterator[Json]:
        """The last choice's finish reason; then, when asked for, a chunk with nothing but usage."""
        yield self.end_chunk(end) | self._ours(finished)
        if self.include_usage:
            yield self._head("chat.completion.chunk") | {
                "choices": [],
                "usage": _usage(finished.usage),
            }

    def _choice(self, choice: Choice) -> Json:
        return {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "finish_reason": str(choice.finish_reason),
            "logprobs": self._logprobs(choice.logprobs),
        }

    def _chunk(self, choice: int, delta: Json, finish_reason: FinishReason | None = None) -> Json:
        entry = {
            "index": choice,
            "delta": delta,
            "finish_reason": None if finish_reason is None else str(finish_reason),
            "logprobs": None,
        }
        usage = {"usage": None} if self.include_usage else {}
        return self._head("chat.completion.chunk") | {"choices": [entry]} | usage

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json | None:
        if not self.has_logprobs:
            return None
        content = [
            _token(token) | {"top_logprobs": [_token(other) for other in token.top]}
            for token in logprobs
        ]
        return {"content": content, "refusal": None}

    def _head(self, kind: str) -> Json:
        return {
            "id": self.started.request_id.replace("req-", "chatcmpl-", 1),
            "object": kind,
            "created": self.created,
            "model": self.started.model,
        }

    def _ours(self, finished: Finished) -> Json:
        citations = {"citations": self._citations()} if self.is_retrieval else {}
        return {
            "timings": asdict(finished.timings),
            "cached_tokens": asdict(finished.usage.cached),
        } | citations

    def _citations(self) -> list[Json]:
        return citations_to_json(self.started.citations)


def _token(token: TokenLogprob) -> Json:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.bytes)}


def citations_to_json(citations: Sequence[Citation]) -> list[Json]:
    return [{"index": c.index} | chunk_to_json(c.chunk) for c in citations]


def chunk_to_json(chunk: ScoredChunk) -> Json:
    return asdict(chunk)


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached.total},
    }


def error_to_json(error: ThothError) -> Json:
    """`param` names the field at fault; `code` is the reason, `limit` what was passed."""
    fault = {
        "message": error.message,
        "type": code_of(error).kind,
        "param": error.field or None,
        "code": reason_of(error).lower(),
    }
    return {"error": fault | ({"limit": error.limit} if error.limit else {})}

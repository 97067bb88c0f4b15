"""OpenAI's shapes: calls in, completions, chunks and errors out. Ours stand beside theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from actors.gateway.ask import Ask
from actors.gateway.bodies import ChatCompletionBody, ChatMessageBody, RetrievalBody
from cluster.errors import InvalidArgument, ThothError, Unsupported
from cluster.ids import RequestId
from cluster.request import ChatCall, ChatRole, Message, RetrievalOptions, Sampling, Usage
from cluster.retrieval.records import Citation, ScoredChunk
from cluster.wire.answers import Delta, Finished, Started
from cluster.wire.status import code_of, reason_of

Json = dict[str, Any]

_ROLES: Mapping[str, ChatRole] = {
    "system": ChatRole.SYSTEM,
    "developer": ChatRole.SYSTEM,
    "user": ChatRole.USER,
    "assistant": ChatRole.ASSISTANT,
}


def ask_of(
    body: ChatCompletionBody, request_id: RequestId, seed: int, default_timeout_s: float
) -> Ask:
    """The call in our words; `seed` is for one that gives none. Ranges are checked later.

    Raises InvalidArgument or Unsupported for roles and contents that are not text.
    """
    sampling = Sampling(
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k,
        seed=seed if body.seed is None else body.seed,
        stop_ids=frozenset(body.stop_ids),
    )
    call = ChatCall(
        model=body.model,
        messages=tuple(_message(i, message) for i, message in enumerate(body.messages)),
        sampling=sampling,
        stop=tuple(body.stop or ()),
        retrieval=None if body.retrieval is None else _retrieval(body.retrieval),
        timeout_s=default_timeout_s if body.timeout_s is None else body.timeout_s,
    )
    return Ask(request_id, call, _max_tokens(body))


def _max_tokens(body: ChatCompletionBody) -> int | None:
    if body.max_completion_tokens is None:
        return body.max_tokens
    if body.max_tokens not in (None, body.max_completion_tokens):
        raise InvalidArgument(
            f"max_tokens is {body.max_tokens} and max_completion_tokens "
            f"is {body.max_completion_tokens}, and they mean the same",
            field="max_completion_tokens",
            limit="one of the two, or both equal",
        )
    return body.max_completion_tokens


def _message(index: int, message: ChatMessageBody) -> Message:
    field = f"messages[{index}]"
    role = _ROLES.get(message.role)
    if role is None:
        kind = Unsupported if message.role in ("tool", "function") else InvalidArgument
        limit = f"one of: {', '.join(_ROLES)}"
        raise kind(f"{field}.role is {message.role!r}", field=f"{field}.role", limit=limit)
    return Message(role, _text(message.content, f"{field}.content"))


def _text(content: object, field: str) -> str:
    """A string as it is; the texts of an array of text parts, joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidArgument(
            f"{field} is neither a string nor an array of parts",
            field=field,
            limit="a string, or an array of text parts",
        )
    return "".join(_part(part, f"{field}[{i}]") for i, part in enumerate(content))


def _part(part: object, field: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind != "text":
        raise Unsupported(f"{field} is of type {kind!r}", field=field, limit="parts of type text")
    text = part.get("text") if isinstance(part, dict) else None
    if kind is None or not isinstance(text, str):
        raise InvalidArgument(
            f"{field} is no text part", field=field, limit='{"type": "text", "text": STRING}'
        )
    return text


def _retrieval(body: RetrievalBody) -> RetrievalOptions:
    return RetrievalOptions(
        collections=tuple(body.collections),
        top_k=body.top_k,
        filters=body.filters,
        max_context_tokens=body.max_context_tokens,
        query=body.query,
        citations=body.citations,
    )


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer on its way out: what all its objects have in common."""

    started: Started
    created: int
    is_retrieval: bool
    include_usage: bool = False

    def whole(self, text: str, finished: Finished) -> Json:
        """The object of a call without stream."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": str(finished.finish_reason),
            "logprobs": None,
        }
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": _usage(finished.usage),
            **self._ours(finished),
        }

    def first_chunk(self) -> Json:
        """The role, and what was found for the question."""
        found = {"retrieval": self._citations()} if self.is_retrieval else {}
        return self._chunk({"role": "assistant", "content": ""}) | found

    def text_chunk(self, delta: Delta) -> Json:
        return self._chunk({"content": delta.text})

    def last_chunks(self, finished: Finished) -> Iterator[Json]:
        """The finish reason; then, when asked for, a chunk with nothing but usage."""
        last = self._chunk({}, str(finished.finish_reason))
        yield last | self._ours(finished)
        if self.include_usage:
            yield self._head("chat.completion.chunk") | {
                "choices": [],
                "usage": _usage(finished.usage),
            }

    def _chunk(self, delta: Json, finish_reason: str | None = None) -> Json:
        choice = {
            "index": 0,
            "delta": delta,
            "finish_reason": finish_reason,
            "logprobs": None,
        }
        usage = {"usage": None} if self.include_usage else {}
        return self._head("chat.completion.chunk") | {"choices": [choice]} | usage

    def _head(self, kind: str) -> Json:
        return {
            "id": self.started.request_id.replace("req-", "chatcmpl-", 1),
            "object": kind,
            "created": self.created,
            "model": self.started.model,
        }

    def _ours(self, finished: Finished) -> Json:
        citations = {"citations": self._citations()} if self.is_retrieval else {}
        return {"timings": asdict(finished.timings)} | citations

    def _citations(self) -> list[Json]:
        return citations_to_json(self.started.citations)


def citations_to_json(citations: Sequence[Citation]) -> list[Json]:
    return [{"index": c.index} | chunk_to_json(c.chunk) for c in citations]


def chunk_to_json(chunk: ScoredChunk) -> Json:
    return asdict(chunk)


def _usage(usage: Usage) -> Json:
    return asdict(usage) | {"total_tokens": usage.prompt_tokens + usage.completion_tokens}


def error_to_json(error: ThothError) -> Json:
    """`param` names the field at fault; `code` is the reason, `limit` what was passed."""
    fault = {
        "message": error.message,
        "type": code_of(error).kind,
        "param": error.field or None,
        "code": reason_of(error).lower(),
    }
    return {"error": fault | ({"limit": error.limit} if error.limit else {})}

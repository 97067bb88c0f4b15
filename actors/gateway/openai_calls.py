"""OpenAI's calls, in our words."""

from __future__ import annotations

import json
from collections.abc import Mapping

from actors.gateway.ask import Ask
from actors.gateway.bodies import (
    ChatCompletionBody,
    ChatMessageBody,
    ResponseFormatBody,
    RetrievalBody,
)
from cluster.errors import InvalidArgument, Unsupported
from cluster.ids import RequestId
from cluster.request import (
    MAX_LOGPROBS,
    ChatCall,
    ChatRole,
    Grammar,
    GrammarKind,
    Message,
    RetrievalOptions,
    Sampling,
)

_ROLES: Mapping[str, ChatRole] = {
    "system": ChatRole.SYSTEM,
    "developer": ChatRole.SYSTEM,
    "user": ChatRole.USER,
    "assistant": ChatRole.ASSISTANT,
}
# Fields of the body that are fields of Sampling; absent or null is its default.
_PLAIN = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
    "min_tokens",
)
_ANY_OBJECT = '{"type": "object"}'


def ask_of(
    body: ChatCompletionBody, request_id: RequestId, seed: int, default_timeout_s: float
) -> Ask:
    """The call in our words; `seed` is for one that gives none.

    Raises InvalidArgument for values out of their range, and it or Unsupported for roles and
    contents that are not text.
    """
    grammar = _grammar(body)
    call = ChatCall(
        model=body.model,
        messages=tuple(_message(i, message) for i, message in enumerate(body.messages)),
        sampling=_sampling(body, seed, grammar),
        stop=tuple(body.stop or ()),
        retrieval=None if body.retrieval is None else _retrieval(body.retrieval),
        timeout_s=default_timeout_s if body.timeout_s is None else body.timeout_s,
        n=1 if body.n is None else body.n,
        ignore_eos=bool(body.ignore_eos),
    )
    return Ask(request_id, call, _max_tokens(body), _spelling(body))


def _spelling(body: ChatCompletionBody) -> Mapping[str, str]:
    stop_ids = "stop_token_ids" if body.stop_token_ids else "stop_ids"
    return {"json_schema": "response_format.json_schema.schema", "stop_ids": stop_ids}


def _sampling(body: ChatCompletionBody, seed: int, grammar: Grammar | None) -> Sampling:
    said = {name: value for name in _PLAIN if (value := getattr(body, name)) is not None}
    return Sampling(
        **({"seed": seed} | said),
        stop_ids=frozenset(body.stop_token_ids) | frozenset(body.stop_ids),
        num_logprobs=_num_logprobs(body),
        grammar=grammar,
    )


def _num_logprobs(body: ChatCompletionBody) -> int | None:
    num_top = body.top_logprobs or 0
    if num_top and not body.logprobs:
        raise InvalidArgument(
            f"top_logprobs is {num_top} and logprobs is not true",
            field="top_logprobs",
            limit="only with logprobs",
        )
    if not 0 <= num_top <= MAX_LOGPROBS:
        raise InvalidArgument(
            f"top_logprobs is {num_top}, the range is 0 to {MAX_LOGPROBS}",
            field="top_logprobs",
            limit=f"0 to {MAX_LOGPROBS}",
        )
    return num_top if body.logprobs else None


def _grammar(body: ChatCompletionBody) -> Grammar | None:
    schema = None if body.response_format is None else _schema(body.response_format)
    if body.regex is None:
        return None if schema is None else Grammar(GrammarKind.JSON_SCHEMA, schema)
    if schema is not None:
        raise InvalidArgument(
            "regex and response_format exclude each other", field="regex", limit="one of the two"
        )
    return Grammar(GrammarKind.REGEX, body.regex)


def _schema(format_: ResponseFormatBody) -> str | None:
    """As JSON; None when any text will do."""
    if format_.type == "json_schema" and format_.json_schema is not None:
        return json.dumps(format_.json_schema.json_schema)
    if (format_.type == "json_schema") is not (format_.json_schema is not None):
        raise InvalidArgument(
            f"response_format.type is {format_.type!r}: json_schema belongs to it or it does not",
            field="response_format.json_schema",
            limit="there when type is json_schema, and only then",
        )
    return _ANY_OBJECT if format_.type == "json_object" else None


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

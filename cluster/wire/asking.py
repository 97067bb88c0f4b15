"""How a client writes a chat call; `chat` is how the gateway reads it.

What was not said stays absent: it is the server's choice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from cluster.errors import InvalidArgument
from cluster.request import Message
from cluster.wire.answers import AskOptions
from cluster.wire.requests import extend, put, put_pairs
from protos.thoth.v1 import gateway_pb2, types_pb2

_SAMPLING_OPTIONS = (
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "n",
    "max_tokens",
    "min_tokens",
    "ignore_eos",
    "logprobs",
)
_RETRIEVAL_OPTIONS = ("top_k", "filters", "max_context_tokens", "query", "citations")


def chat_call_to_pb(
    messages: Sequence[Message], options: AskOptions, timeout_s: float
) -> gateway_pb2.ChatCall:
    call = gateway_pb2.ChatCall(timeout_s=timeout_s)
    put(call, "model", options.get("model"))
    for i, message in enumerate(messages):
        turn = call.messages.add(role=message.role)
        put(turn, "content", message.content, f"messages[{i}].content")
    _put_sampling(call.sampling, options)
    _put_retrieval(call, options)
    return call


def _put_sampling(sampling: types_pb2.SamplingParams, options: AskOptions) -> None:
    put(sampling, "top_k", options.get("top_k_tokens"), "top_k_tokens")
    for name in _SAMPLING_OPTIONS:
        put(sampling, name, options.get(name))
    extend(sampling, "stop", options.get("stop", ()))
    extend(sampling, "stop_ids", options.get("stop_ids", ()))
    put_pairs(sampling.logit_bias, options.get("logit_bias", {}), "logit_bias")
    _put_grammar(sampling.grammar, options)


def _put_grammar(grammar: types_pb2.Grammar, options: AskOptions) -> None:
    schema = options.get("json_schema")
    if schema is not None and options.get("regex") is not None:
        raise InvalidArgument("regex and json_schema exclude each other", field="regex")
    if schema is not None and not isinstance(schema, str):
        schema = _written(schema)
    put(grammar, "json_schema", schema)
    put(grammar, "regex", options.get("regex"))


def _written(schema: object) -> str:
    try:
        return json.dumps(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"json_schema is no JSON: {error}", field="json_schema") from None


def _put_retrieval(call: gateway_pb2.ChatCall, options: AskOptions) -> None:
    if not options.get("collections"):
        for name in _RETRIEVAL_OPTIONS:
            if name in options:
                raise InvalidArgument(f"{name} says nothing without collections", field=name)
        return
    retrieval = call.retrieval
    extend(retrieval, "collections", options["collections"])
    put(retrieval, "top_k", options.get("top_k"))
    put(retrieval, "max_context_tokens", options.get("max_context_tokens"))
    put(retrieval, "query", options.get("query"))
    put(retrieval, "citations", options.get("citations"))
    put_pairs(retrieval.filters, options.get("filters", {}), "filters")

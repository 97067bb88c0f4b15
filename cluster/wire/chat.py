"""The public chat call as the gateway reads it; `asking` is how the client writes it."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.errors import InvalidArgument
from cluster.request import ChatCall, ChatRole, Message, RetrievalOptions, Sampling
from cluster.wire.sampling import sampling_from_pb
from protos.thoth.v1 import gateway_pb2

_ROLES = frozenset(map(str, ChatRole))
_ROLES_SAID = ", ".join(ChatRole)


def chat_call_from_pb(
    message: gateway_pb2.ChatCall, defaults: Sampling, default_timeout_s: float
) -> ChatCall:
    """Existence, and what depends on the model, are the gateway's to check.

    Raises InvalidArgument for a role that is none, and for a value out of its range.
    """
    return ChatCall(
        model=message.model,
        messages=messages_from_pb(message.messages),
        sampling=sampling_from_pb(message.sampling, defaults),
        stop=tuple(message.sampling.stop),
        retrieval=retrieval_from_pb(message.retrieval) if message.HasField("retrieval") else None,
        timeout_s=message.timeout_s if message.HasField("timeout_s") else default_timeout_s,
        n=message.sampling.n if message.sampling.HasField("n") else 1,
        ignore_eos=message.sampling.ignore_eos,
    )


def messages_from_pb(messages: Sequence[gateway_pb2.ChatMessage]) -> tuple[Message, ...]:
    for i, message in enumerate(messages):
        if message.role not in _ROLES:
            raise InvalidArgument(
                f"messages[{i}].role is {message.role!r}, not one of {_ROLES_SAID}",
                field=f"messages[{i}].role",
                limit=_ROLES_SAID,
            )
    return tuple(Message(ChatRole(m.role), m.content) for m in messages)


def retrieval_from_pb(message: gateway_pb2.RetrievalOptions) -> RetrievalOptions:
    defaults = RetrievalOptions(collections=())
    return RetrievalOptions(
        collections=tuple(message.collections),
        top_k=message.top_k if message.HasField("top_k") else defaults.top_k,
        filters=dict(message.filters),
        max_context_tokens=(
            message.max_context_tokens if message.HasField("max_context_tokens") else None
        ),
        query=message.query if message.HasField("query") else None,
        citations=message.citations if message.HasField("citations") else defaults.citations,
    )

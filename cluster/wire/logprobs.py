"""Tokens of an answer and how likely they were, on the public wire."""

from __future__ import annotations

from cluster.wire.answers import TokenLogprob
from protos.thoth.v1 import gateway_pb2


def logprob_to_pb(logprob: TokenLogprob) -> gateway_pb2.TokenLogprob:
    return gateway_pb2.TokenLogprob(
        token=_token_to_pb(logprob), top=[_token_to_pb(other) for other in logprob.top]
    )


def logprob_from_pb(message: gateway_pb2.TokenLogprob) -> TokenLogprob:
    token, top = message.token, tuple(map(_token_from_pb, message.top))
    return TokenLogprob(token.id, token.bytes, token.logprob, top)


def _token_to_pb(logprob: TokenLogprob) -> gateway_pb2.Token:
    return gateway_pb2.Token(id=logprob.id, bytes=logprob.bytes, logprob=logprob.logprob)


def _token_from_pb(message: gateway_pb2.Token) -> TokenLogprob:
    return TokenLogprob(message.id, message.bytes, message.logprob)

"""How tokens are drawn, and how likely they were, on the wire."""

from __future__ import annotations

from dataclasses import replace

from cluster.request import Grammar, GrammarKind, Sampling, TokenLogprobs
from protos.thoth.v1 import types_pb2

# Fields of one name and one kind on both sides, each of which may be absent.
_PLAIN = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "max_tokens",
    "min_tokens",
)


def sampling_to_pb(sampling: Sampling) -> types_pb2.SamplingParams:
    return types_pb2.SamplingParams(
        **{name: getattr(sampling, name) for name in _PLAIN},
        stop_ids=sorted(sampling.stop_ids),
        logit_bias=sampling.logit_bias,
        logprobs=sampling.num_logprobs,
        grammar=None if sampling.grammar is None else grammar_to_pb(sampling.grammar),
        choice=sampling.choice,
    )


def sampling_from_pb(message: types_pb2.SamplingParams, defaults: Sampling) -> Sampling:
    """Absent fields take their value from `defaults`. Raises InvalidArgument for ranges."""
    said = {field.name: value for field, value in message.ListFields()}
    return replace(
        defaults,
        **{name: said[name] for name in _PLAIN if name in said},
        stop_ids=frozenset(message.stop_ids) | defaults.stop_ids,
        logit_bias=dict(message.logit_bias),
        num_logprobs=said.get("logprobs", defaults.num_logprobs),
        grammar=grammar_from_pb(message.grammar) or defaults.grammar,
        choice=message.choice,
    )


def grammar_to_pb(grammar: Grammar) -> types_pb2.Grammar:
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return types_pb2.Grammar(json_schema=grammar.source)
        case GrammarKind.REGEX:
            return types_pb2.Grammar(regex=grammar.source)


def grammar_from_pb(message: types_pb2.Grammar) -> Grammar | None:
    """None when there is none."""
    match message.WhichOneof("kind"):
        case "json_schema":
            return Grammar(GrammarKind.JSON_SCHEMA, message.json_schema)
        case "regex":
            return Grammar(GrammarKind.REGEX, message.regex)
        case _:
            return None


def logprobs_to_pb(logprobs: TokenLogprobs) -> types_pb2.TokenLogprobs:
    return types_pb2.TokenLogprobs(
        logprob=logprobs.logprob,
        top_ids=[token_id for token_id, _ in logprobs.top],
        top_logprobs=[logprob for _, logprob in logprobs.top],
    )


def logprobs_from_pb(message: types_pb2.TokenLogprobs) -> TokenLogprobs:
    top = zip(message.top_ids, message.top_logprobs, strict=True)
    return TokenLogprobs(message.logprob, tuple(top))

"""What a call may ask for. Every refusal names the field and its limit, and says both numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from actors.gateway.ask import Ask
from actors.gateway.model import ServedModel
from cluster.config import GatewayConfig
from cluster.errors import InvalidArgument, NotFound, Refused
from cluster.request import ChatCall, ChatRole, Message, RetrievalOptions, Sampling
from cluster.retrieval.limits import check_range, check_search

# Texts longer than this per token of the context are not even tokenised: no prose comes near.
MAX_CHARS_PER_TOKEN = 64
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_STOP_IDS = 64
# Of a long message, its head is searched for.
QUERY_HEAD_CHARS = 4096


def check_ask(ask: Ask, limits: GatewayConfig, model: ServedModel) -> None:
    """Everything that can be said before the prompt is made."""
    call = ask.call
    check_model(call.model, model.name)
    check_messages(call.messages, model.context_tokens)
    check_sampling(call.sampling, model.tokenizer.vocab_size)
    check_stop(call.stop)
    if call.ignore_eos and call.sampling.grammar is not None:
        raise InvalidArgument(
            "ignore_eos and a grammar exclude each other: a text that matches has to end",
            field="ignore_eos",
            limit="false, with a grammar",
        )
    if ask.max_tokens is not None and not 1 <= ask.max_tokens <= model.context_tokens:
        raise _out_of_range(
            "max_tokens", ask.max_tokens, f"1 to {model.context_tokens}, the context"
        )
    if call.retrieval is not None:
        with nested("retrieval"):
            check_retrieval(call.retrieval, query_of(call, call.retrieval), limits.max_top_k)
    check_timeout(call.timeout_s, limits)


def check_timeout(timeout_s: float, limits: GatewayConfig) -> None:
    """Raises InvalidArgument."""
    if not 0 < timeout_s <= limits.max_timeout_s:
        raise InvalidArgument(
            f"timeout_s is {timeout_s}, which is not in (0, {limits.max_timeout_s}]",
            field="timeout_s",
            limit=f"above 0, at most {limits.max_timeout_s} s (gateway.max_timeout_s)",
        )


def check_model(asked: str, served: str) -> None:
    """An empty name means the model that is there."""
    if asked not in ("", served):
        raise NotFound(
            f"model {asked[:100]!r} is not served here, {served!r} is",
            field="model",
            limit=f"one of: {served}",
        )


def check_messages(messages: Sequence[Message], context_tokens: int) -> None:
    if not messages:
        raise InvalidArgument(
            "messages is empty, at least one is needed", field="messages", limit="at least one"
        )
    if all(message.role is not ChatRole.USER for message in messages):
        raise InvalidArgument(
            f"none of the {len(messages)} messages is of the user",
            field="messages",
            limit="at least one message with role user",
        )
    num_chars = sum(len(message.content) for message in messages)
    if num_chars > MAX_CHARS_PER_TOKEN * context_tokens:
        raise InvalidArgument(
            f"messages have {num_chars} characters, far more than the {context_tokens} tokens "
            f"of the context, for which at most {MAX_CHARS_PER_TOKEN * context_tokens} are read",
            field="messages",
            limit=f"prompt and answer within {context_tokens} tokens",
        )


def check_sampling(sampling: Sampling, vocab_size: int) -> None:
    """What its own ranges do not say: it depends on the vocabulary, or is a limit of this door."""
    if len(sampling.stop_ids) > MAX_STOP_IDS:
        raise _out_of_range("stop_ids", len(sampling.stop_ids), f"at most {MAX_STOP_IDS} ids")
    for field, ids in (("stop_ids", sampling.stop_ids), ("logit_bias", sampling.logit_bias)):
        for token_id in ids:
            if not 0 <= token_id < vocab_size:
                raise _out_of_range(field, token_id, f"0 to {vocab_size - 1}, the vocabulary")


def check_stop(stop: Sequence[str]) -> None:
    if len(stop) > MAX_STOPS:
        raise _out_of_range("stop", len(stop), f"at most {MAX_STOPS} strings")
    for i, text in enumerate(stop):
        if not 1 <= len(text) <= MAX_STOP_CHARS:
            raise InvalidArgument(
                f"stop[{i}] has {len(text)} characters, 1 to {MAX_STOP_CHARS} are allowed",
                field=f"stop[{i}]",
                limit=f"1 to {MAX_STOP_CHARS} characters",
            )


@contextmanager
def nested(field: str) -> Iterator[None]:
    """Refusals out of the block name their field inside `field`, as the caller nests them."""
    try:
        yield
    except Refused as error:
        error.field = f"{field}.{error.field}" if error.field else field
        raise


@contextmanager
def spelled(spelling: Mapping[str, str]) -> Iterator[None]:
    """Refusals out of the block name their field as the caller spells it."""
    try:
        yield
    except Refused as error:
        error.field = spelling.get(error.field, error.field)
        raise


def check_retrieval(options: RetrievalOptions, query: str, max_top_k: int) -> None:
    check_search(options.collections, query, options.top_k, options.filters)
    check_range(options.top_k, max_top_k, "top_k")
    if options.max_context_tokens is not None and options.max_context_tokens < 1:
        raise _out_of_range("max_context_tokens", options.max_context_tokens, "at least 1")


def query_of(call: ChatCall, options: RetrievalOptions) -> str:
    """What to search for: the query given, or the head of the last user message."""
    if options.query is not None:
        return options.query
    said = [m.content for m in call.messages if m.role is ChatRole.USER]
    return said[-1][:QUERY_HEAD_CHARS]


def max_tokens_for(ask: Ask, prompt_tokens: int, context_tokens: int, default: int) -> int:
    """How many tokens the answer may have. Raises InvalidArgument when the context is too short."""
    room = context_tokens - prompt_tokens
    if room < 1:
        raise InvalidArgument(
            f"the prompt has {prompt_tokens} tokens and the answer needs at least 1, "
            f"the context holds {context_tokens}",
            field="messages",
            limit=f"prompt and answer within {context_tokens} tokens",
        )
    if ask.max_tokens is None:
        return min(default, room)
    if ask.max_tokens > room:
        raise InvalidArgument(
            f"max_tokens is {ask.max_tokens}; the prompt has {prompt_tokens} of the "
            f"{context_tokens} tokens of the context, which leaves {room}",
            field="max_tokens",
            limit=f"prompt and answer within {context_tokens} tokens",
        )
    return ask.max_tokens


def check_min_tokens(min_tokens: int, max_tokens: int) -> None:
    if min_tokens > max_tokens:
        raise _out_of_range("min_tokens", min_tokens, f"0 to {max_tokens}, max_tokens")


def _out_of_range(field: str, value: float, limit: str) -> InvalidArgument:
    return InvalidArgument(f"{field} is {value}, the range is {limit}", field=field, limit=limit)

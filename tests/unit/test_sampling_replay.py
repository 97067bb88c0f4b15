"""Every rule of sampling through the engine: what is drawn, and how likely it was, is the same in
any batch, after preemption, and on a worker that takes over from the ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

from cluster.blocks.pool import BlockPool
from cluster.clock import ManualClock
from cluster.engine.engine import Engine
from cluster.engine.forward import EagerForward
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.sampling import Sampler
from cluster.errors import Refused, ThothError, Unsupported
from cluster.ids import RequestId
from cluster.knowledge.cache import no_cache
from cluster.models.config import decoder_config
from cluster.models.decoder import random_decoder
from cluster.request import FinishReason, Grammar, GrammarKind, Request, Sampling, TokenLogprobs
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.text.grammar import Grammars
from cluster.text.tokenizer import Tokenizer
from tests.tiny_model import EOS_ID, tiny_config, tiny_tokenizer

CONFIG = decoder_config(tiny_config())
MODEL = random_decoder(CONFIG, seed=5)
TOKENIZER = Tokenizer(tiny_tokenizer().to_str(), frozenset({EOS_ID}))
NEVER_S = 1e9
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 999},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
IN_JSON = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(PERSON))


@dataclass
class Story:
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    reason: FinishReason | ThothError | None = None


def make_engine(num_blocks: int = 256, step_tokens: int = 512) -> Engine:
    shape = KvShape(CONFIG.num_layers, CONFIG.num_kv_heads, CONFIG.head_dim)
    limits = IterationLimits(step_tokens, 6, 64, CONFIG.max_position)
    return Engine(
        forward=EagerForward(MODEL, KvCache(shape, num_blocks)),
        vocab_size=CONFIG.vocab_size,
        scheduler=IterationScheduler(limits, no_cache(BlockPool(num_blocks))),
        clock=ManualClock(),
        sampler=Sampler(Grammars(TOKENIZER, CONFIG.vocab_size)),
    )


def run(engine: Engine, requests: Sequence[Request]) -> tuple[dict[str, Story], int]:
    """What each request got, and how many were preempted on the way."""
    stories = {request.id: Story() for request in requests}
    num_preempted = 0
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        report = engine.step()
        engine.scheduler.check()
        num_preempted += report.num_preempted
        for request_id, token in report.tokens:
            stories[request_id].tokens.append(token)
            if request_id in report.logprobs:
                stories[request_id].logprobs.append(report.logprobs[request_id])
        for request_id, error in report.failed:
            stories[request_id].reason = error
        for finished in report.finished:
            stories[finished.request_id].reason = (
                stories[finished.request_id].reason or finished.reason
            )
    assert not engine.sampler._memories
    return {str(request_id): story for request_id, story in stories.items()}, num_preempted


def alone(request: Request) -> Story:
    return run(make_engine(), [request])[0][request.id]


def request_of(name: str, seed: int, num_prompt: int = 30, **rules: Any) -> Request:
    random = Random(seed)
    prompt = tuple(random.randrange(3, TOKENIZER.vocab_size) for _ in range(num_prompt))
    rules = {"temperature": 1.0, "seed": seed, "max_tokens": 60} | rules
    sampling = Sampling(**rules, stop_ids=frozenset({EOS_ID}))
    return Request(RequestId(name), (prompt[:7], prompt[7:]), sampling, NEVER_S)


RULES: list[dict[str, Any]] = [
    {"presence_penalty": 1.0, "frequency_penalty": 0.6, "num_logprobs": 2},
    {"repetition_penalty": 1.4, "top_p": 0.8},
    {"grammar": IN_JSON, "num_logprobs": 0},
    {"grammar": IN_JSON, "repetition_penalty": 1.1, "top_k": 20, "temperature": 0.9},
    {"min_p": 0.2, "min_tokens": 40, "logit_bias": {40: 3.0}},
    {"grammar": IN_JSON, "temperature": 0.0, "frequency_penalty": 0.5, "num_logprobs": 3},
]


@pytest.mark.parametrize("seed", range(3))
def test_batch_and_preemption_change_nothing_under_any_rule(seed: int) -> None:
    requests = [request_of(f"r{i}", 10 * seed + i, **rules) for i, rules in enumerate(RULES)]
    stories, num_preempted = run(make_engine(num_blocks=16, step_tokens=24), requests)
    assert num_preempted > 0
    for request in requests:
        assert stories[request.id] == alone(request)
        wanted = request.sampling.num_logprobs
        assert len(stories[request.id].logprobs) == (
            0 if wanted is None else len(stories[request.id].tokens)
        )


@pytest.mark.parametrize("rules", RULES)
def test_another_worker_goes_on_from_the_ids(rules: dict[str, Any]) -> None:
    whole = request_of("w", 4, **rules)
    expected = alone(whole)
    for cut in {1, len(expected.tokens) // 2, len(expected.tokens) - 1}:
        rest = replace(whole, id=RequestId("c"), output_ids=tuple(expected.tokens[:cut]))
        story = alone(rest)
        assert story.tokens == expected.tokens[cut:]
        assert story.reason == expected.reason
        assert story.logprobs == (expected.logprobs[cut:] if expected.logprobs else [])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_an_answer_under_a_schema_is_json_that_matches_it(seed: int, temperature: float) -> None:
    story = alone(request_of("r", seed, temperature=temperature, grammar=IN_JSON, max_tokens=400))
    assert story.reason is FinishReason.STOP
    person = json.loads(TOKENIZER.decode(story.tokens))
    assert set(person) == {"name", "age", "tags"}
    assert 0 <= person["age"] <= 999
    assert len(person["name"]) <= 6
    assert set(person["tags"]) <= {"red", "green"}


def test_a_whole_answer_ends_with_its_last_token() -> None:
    grammar = Grammar(GrammarKind.REGEX, "[ab]{3}c")
    story = alone(request_of("r", 1, grammar=grammar))
    assert TOKENIZER.decode(story.tokens)[-1] == "c"
    assert story.reason is FinishReason.STOP
    # One that got everything but the word that it is over is over at once.
    over = replace(request_of("o", 1, grammar=grammar), output_ids=tuple(story.tokens))
    assert alone(over) == Story([], [], FinishReason.STOP)


def test_the_end_of_the_sequence_is_drawn_when_the_grammar_allows_it_alone() -> None:
    grammar = Grammar(GrammarKind.REGEX, "a{4,}")
    bias = {EOS_ID: 100.0}
    story = alone(request_of("r", 2, grammar=grammar, logit_bias=bias))
    assert TOKENIZER.decode(story.tokens) == "aaaa"
    assert story.reason is FinishReason.STOP


def test_max_tokens_may_cut_a_grammar() -> None:
    story = alone(request_of("r", 3, grammar=IN_JSON, max_tokens=4))
    assert story.reason is FinishReason.LENGTH
    assert len(story.tokens) == 4


def test_one_request_that_cannot_go_on_fails_alone() -> None:
    wrong = TOKENIZER.encode("[no person")
    broken = replace(request_of("broken", 5, grammar=IN_JSON), output_ids=wrong)
    engine = make_engine()
    stories, _ = run(engine, [broken, request_of("fine", 6)])
    assert isinstance(stories["broken"].reason, Refused)
    assert stories["broken"].tokens == []
    assert stories["fine"] == alone(request_of("fine", 6))
    assert engine.scheduler.pool.num_free == engine.scheduler.pool.num_blocks


def test_a_worker_without_grammars_refuses_them() -> None:
    engine = make_engine()
    engine.sampler = Sampler()
    stories, _ = run(engine, [request_of("r", 7, grammar=IN_JSON)])
    assert isinstance(stories["r"].reason, Unsupported)


@pytest.mark.parametrize(
    ("field", "rules"),
    [("logit_bias", {"logit_bias": {512: 1.0}}), ("stop_ids", {"stop_ids": frozenset({512})})],
)
def test_ids_outside_the_vocabulary_are_refused(field: str, rules: dict[str, Any]) -> None:
    request = Request(RequestId("a"), ((1,),), Sampling(**rules), NEVER_S)
    with pytest.raises(ThothError, match="512 is not in the vocabulary") as caught:
        make_engine().submit(request)
    assert caught.value.field == field

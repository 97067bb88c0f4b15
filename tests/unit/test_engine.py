"""Promise (b): on the cpu device in float32, a request's bits do not depend on what runs beside it.

Logits are compared through a model that records them, for any batch, chunk size and preemption.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from random import Random

import pytest
import torch
from torch import Tensor

from cluster.clock import ManualClock
from cluster.engine.engine import Engine
from cluster.errors import InvalidArgument
from cluster.ids import RequestId
from cluster.models.config import decoder_config
from cluster.request import FinishReason, Request, Sampling
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.plan import StepOutcome
from cluster.scheduling.stages import StageTimes
from tests.engines import TORCH, Hands, Recorder, hands_of_every_backend
from tests.tiny_model import tiny_config

CONFIG = decoder_config(tiny_config())
NEVER_S = 1e9
every_backend = pytest.mark.parametrize("hands", hands_of_every_backend(), ids=str)


@dataclass
class Story:
    """What one request got: its tokens, and the logits each was drawn from."""

    tokens: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    reason: FinishReason | None = None


def make_engine(
    recorder: Recorder,
    num_blocks: int = 256,
    step_tokens: int = 512,
    max_running: int = 32,
    hands: Hands = TORCH,
) -> Engine:
    limits = IterationLimits(step_tokens, max_running, 64, CONFIG.max_position)
    return hands.engine(CONFIG, limits, num_blocks, model=recorder)


def run(engine: Engine, recorder: Recorder, arrivals: dict[int, list[Request]]) -> dict[str, Story]:
    """Submits requests at their step numbers and runs until nothing is left."""
    stories: dict[str, Story] = {}
    step = 0
    while arrivals or engine.has_work:
        for request in arrivals.pop(step, []):
            stories[request.id] = Story()
            engine.submit(request)
        recorder.rows.clear()
        report = engine.step()
        engine.scheduler.check()
        rows = iter(recorder.rows)
        for request_id, token in report.tokens:
            stories[request_id].tokens.append(token)
            stories[request_id].logits.append(next(rows).clone())
        for finished in report.finished:
            stories[finished.request_id].reason = finished.reason
        step += 1
    return stories


def random_request(random: Random, name: str, num_segments: int, max_tokens: int) -> Request:
    segments = tuple(
        tuple(random.randrange(CONFIG.vocab_size) for _ in range(random.randint(1, 60)))
        for _ in range(num_segments)
    )
    sampling = Sampling(
        temperature=random.choice([0.0, 1.0]), seed=random.randrange(99), max_tokens=max_tokens
    )
    return Request(RequestId(name), segments, sampling, NEVER_S)


def alone(request: Request, hands: Hands = TORCH) -> Story:
    recorder = Recorder(hands.model(CONFIG))
    return run(make_engine(recorder, hands=hands), recorder, {0: [request]})[request.id]


def assert_same_bits(story: Story, expected: Story) -> None:
    assert story.tokens == expected.tokens
    assert story.reason == expected.reason
    for ours, theirs in zip(story.logits, expected.logits, strict=True):
        assert torch.equal(ours, theirs)


@every_backend
@pytest.mark.parametrize("seed", range(12))
def test_batch_chunk_size_and_preemption_change_no_bit(seed: int, hands: Hands) -> None:
    random = Random(seed)
    requests = [random_request(random, f"r{i}", random.randint(1, 4), 12) for i in range(6)]
    recorder = Recorder(hands.model(CONFIG))
    # At least the largest request fits; with so few blocks the others take turns.
    num_blocks, step_tokens = random.choice([20, 24, 64]), random.choice([6, 17, 64])
    engine = make_engine(recorder, num_blocks, step_tokens, 6, hands)
    arrivals: dict[int, list[Request]] = {}
    for request in requests:
        arrivals.setdefault(random.choice([0, 0, 3, 9]), []).append(request)
    stories = run(engine, recorder, dict(sorted(arrivals.items())))
    for request in requests:
        assert_same_bits(stories[request.id], alone(request, hands))
    assert engine.scheduler.pool.num_free == engine.scheduler.pool.num_blocks


@every_backend
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit(threads: int, hands: Hands) -> None:
    request = random_request(Random(77), "r", 3, 10)
    expected = alone(request, hands)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same_bits(alone(request, replace(hands, threads=threads)), expected)
    finally:
        torch.set_num_threads(before)


def test_preemption_happens_under_pressure_and_is_counted() -> None:
    random = Random(3)
    recorder = Recorder(TORCH.model(CONFIG))
    engine = make_engine(recorder, num_blocks=10, step_tokens=64)
    for i in range(3):
        prompt = (tuple(random.randrange(CONFIG.vocab_size) for _ in range(30)),)
        engine.submit(Request(RequestId(f"r{i}"), prompt, Sampling(max_tokens=60), NEVER_S))
    preempted = recomputed = 0
    while engine.has_work:
        report = engine.step()
        preempted += report.num_preempted
        recomputed += sum(f.num_recomputed for f in report.finished)
    assert preempted > 0
    assert recomputed >= 30


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_generation_goes_on_from_ids_generated_elsewhere(temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=4, max_tokens=16)
    whole = Request(RequestId("w"), ((5, 9, 200), (7,) * 40), sampling, NEVER_S)
    expected = alone(whole).tokens
    for cut in (1, 7, 15):
        rest = Request(
            RequestId("c"), whole.segments, sampling, NEVER_S, output_ids=tuple(expected[:cut])
        )
        assert alone(rest).tokens == expected[cut:]


def test_a_stop_id_ends_the_answer_and_is_not_passed_on() -> None:
    request = Request(RequestId("a"), ((1, 2, 3),), Sampling(max_tokens=8), NEVER_S)
    tokens = alone(request).tokens
    stop = next(t for t in tokens[1:] if t != tokens[0]) if len(set(tokens)) > 1 else tokens[0]
    sampling = Sampling(max_tokens=8, stop_ids=frozenset({stop}))
    story = alone(Request(RequestId("b"), request.segments, sampling, NEVER_S))
    assert story.tokens == tokens[: tokens.index(stop)]
    assert story.reason is FinishReason.STOP


def test_a_cancelled_request_gives_its_blocks_back_in_any_state() -> None:
    for steps_before in range(6):
        recorder = Recorder(TORCH.model(CONFIG))
        engine = make_engine(recorder, step_tokens=32)
        prompt = (tuple(range(100)),)
        engine.submit(Request(RequestId("a"), prompt, Sampling(max_tokens=50), NEVER_S))
        for _ in range(steps_before):
            engine.step()
        engine.cancel(RequestId("a"))
        report = engine.step()
        assert [f.reason for f in report.finished] == [FinishReason.CANCELLED]
        assert engine.scheduler.pool.num_free == engine.scheduler.pool.num_blocks


def test_a_request_past_its_deadline_ends_and_others_go_on() -> None:
    recorder = Recorder(TORCH.model(CONFIG))
    engine = make_engine(recorder)
    clock = engine.clock
    assert isinstance(clock, ManualClock)
    engine.submit(Request(RequestId("late"), ((1, 2),), Sampling(max_tokens=50), 5.0))
    engine.submit(Request(RequestId("other"), ((3, 4),), Sampling(max_tokens=5), NEVER_S))
    engine.step()
    clock.advance(6.0)
    ends = {f.request_id: f.reason for f in engine.step().finished}
    assert ends == {"late": FinishReason.DEADLINE}
    while engine.has_work:
        ends |= {f.request_id: f.reason for f in engine.step().finished}
    assert ends[RequestId("other")] is FinishReason.LENGTH


def test_a_token_id_outside_the_vocabulary_is_refused() -> None:
    engine = make_engine(Recorder(TORCH.model(CONFIG)))
    request = Request(RequestId("a"), ((1, 512),), Sampling(), NEVER_S)
    with pytest.raises(InvalidArgument, match="token id 512 is not in the vocabulary of 512"):
        engine.submit(request)


class Noting(IterationScheduler):
    """Notes what it is told, in order."""

    def measured(self, times: Collection[StageTimes], rest_s: float | None = None) -> None:
        assert rest_s is not None
        self.told = [len(times)]

    def record(
        self, sampled: Mapping[RequestId, int], now_s: float, ended: Collection[RequestId] = ()
    ) -> StepOutcome:
        self.told.append(-1)
        return super().record(sampled, now_s, ended)


def test_the_scheduler_hears_what_a_step_has_taken_before_its_tokens() -> None:
    engine = make_engine(Recorder(TORCH.model(CONFIG)))
    scheduler = Noting(engine.scheduler.limits, engine.scheduler.cache)
    engine = replace(engine, scheduler=scheduler)
    engine.submit(Request(RequestId("a"), ((1, 2, 3),), Sampling(max_tokens=2), NEVER_S))
    report = engine.step()
    assert scheduler.told == [1, -1]
    assert (len(report.times), report.request_ids) == (1, ((RequestId("a"),),))

"""Requests over a few documents, and what each of them got."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import torch
from torch import Tensor

from cluster.engine.engine import Engine, StepReport
from cluster.ids import RequestId
from cluster.models.config import DecoderConfig
from cluster.request import FinishReason, Request, Sampling, SegmentSource, TokenIds
from cluster.scheduling.plan import FirstToken
from tests.engines import Recorder

NEVER_S = 1e12


@dataclass
class Story:
    tokens: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    reason: FinishReason | None = None
    first: FirstToken | None = None


@dataclass(frozen=True)
class Library:
    """A system prompt and documents of random ids."""

    system: TokenIds
    documents: tuple[TokenIds, ...]

    @classmethod
    def random(
        cls, random: Random, config: DecoderConfig, num_documents: int, most_tokens: int = 40
    ) -> Library:
        def text(most: int) -> TokenIds:
            return tuple(
                random.randrange(config.vocab_size) for _ in range(random.randint(1, most))
            )

        return cls(text(20), tuple(text(most_tokens) for _ in range(num_documents)))

    def request(
        self, name: str, documents: list[int], question: TokenIds, salt: bytes = b""
    ) -> Request:
        sources = [
            SegmentSource(salt=salt),
            *(SegmentSource("kb", f"d{number}", salt=salt) for number in documents),
        ]
        return Request(
            id=RequestId(name),
            segments=(self.system, *(self.documents[number] for number in documents), question),
            sampling=Sampling(max_tokens=4),
            deadline_s=NEVER_S,
            sources=tuple(sources),
        )


def random_ask(library: Library, random: Random, config: DecoderConfig, name: str) -> Request:
    numbers = random.sample(range(len(library.documents)), random.randint(1, 3))
    question = tuple(random.randrange(config.vocab_size) for _ in range(random.randint(1, 20)))
    request = library.request(name, numbers, question)
    temperature = random.choice([0.0, 1.0])
    max_tokens = random.choice([1, 2, 6])
    sampling = Sampling(temperature=temperature, seed=random.randrange(9), max_tokens=max_tokens)
    return replace(request, sampling=sampling)


def step(engine: Engine, recorder: Recorder, stories: dict[RequestId, Story]) -> StepReport:
    """One step, checked; what it gave goes into the stories."""
    recorder.rows.clear()
    report = engine.step()
    engine.scheduler.check()
    tokens = dict(report.tokens)
    drawn = [id for batch in report.request_ids for id in batch if id in tokens]
    for request_id, row in zip(drawn, recorder.rows, strict=True):
        stories[request_id].tokens.append(tokens[request_id])
        stories[request_id].logits.append(row.clone())
    for first in report.first_tokens:
        stories[first.request_id].first = first
    for finished in report.finished:
        stories[finished.request_id].reason = finished.reason
    return report


def run(engine: Engine, recorder: Recorder, requests: list[Request]) -> dict[RequestId, Story]:
    """All at once, to their ends."""
    stories = {request.id: Story() for request in requests}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        step(engine, recorder, stories)
    return stories


def assert_same_bits(story: Story, expected: Story) -> None:
    """What there is of a story is the beginning of what was expected."""
    count = len(story.tokens)
    assert story.tokens == expected.tokens[:count]
    for ours, theirs in zip(story.logits, expected.logits[:count], strict=True):
        assert torch.equal(ours, theirs)

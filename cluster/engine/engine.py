"""A worker's whole life: decide, run, record.

The engine belongs to one thread. It knows token ids and no text, blocks and no documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from cluster.clock import Clock
from cluster.engine.forward import Forward
from cluster.engine.sampling import Drawn, Sampler
from cluster.engine.step import Step, lay_out
from cluster.errors import InvalidArgument, ThothError
from cluster.ids import RequestId
from cluster.request import Request, TokenLogprobs, WorkerLoad
from cluster.scheduling.iteration import Finished, FirstToken, IterationScheduler, StepPlan


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did: new tokens, ends, and its size and time for whoever counts.

    `logprobs` are those of the new tokens, of requests that asked for them. What `failed` has no
    token and is over; nobody else is touched.
    """

    tokens: tuple[tuple[RequestId, int], ...] = ()
    logprobs: Mapping[RequestId, TokenLogprobs] = field(default_factory=dict)
    failed: tuple[tuple[RequestId, ThothError], ...] = ()
    first_tokens: tuple[FirstToken, ...] = ()
    finished: tuple[Finished, ...] = ()
    num_preempted: int = 0
    num_prefill_rows: int = 0
    num_decode_rows: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Engine:
    """One model on one device, with one pool of KV blocks."""

    forward: Forward
    vocab_size: int
    scheduler: IterationScheduler
    clock: Clock
    sampler: Sampler = field(default_factory=Sampler)

    def submit(self, request: Request) -> None:
        """Raises InvalidArgument for what can never run, Overloaded when the queue is full."""
        for segment in (*request.segments, request.output_ids):
            self._check_ids("segments", segment)
        self._check_ids("logit_bias", request.sampling.logit_bias)
        self._check_ids("stop_ids", request.sampling.stop_ids)
        self.scheduler.arrived(request, self.clock.now_s())

    def _check_ids(self, field: str, ids: Iterable[int]) -> None:
        highest = max(ids, default=0)
        if highest >= self.vocab_size:
            raise InvalidArgument(
                f"token id {highest} is not in the vocabulary of {self.vocab_size}",
                field=field,
                limit=f"ids below {self.vocab_size}",
            )

    def cancel(self, request_id: RequestId) -> None:
        """Its blocks are back after the next step."""
        self.scheduler.cancelled(request_id)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def load(self) -> WorkerLoad:
        return self.scheduler.load()

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Decide, run, record."""
        started_s = self.clock.now_s()
        plan = self.scheduler.plan(started_s)
        outcomes = self._run(lay_out(plan.chunks)) if plan.chunks else {}
        drawn = {id: token for id, token in outcomes.items() if isinstance(token, Drawn)}
        failed = tuple((id, e) for id, e in outcomes.items() if isinstance(e, ThothError))
        now_s = self.clock.now_s()
        outcome = self.scheduler.record(
            {id: token.token_id for id, token in drawn.items()},
            now_s,
            ended=frozenset(id for id, token in drawn.items() if token.is_last),
        )
        self._let_go(plan.finished + outcome.finished, failed)
        return StepReport(
            tokens=outcome.tokens,
            logprobs={id: token.logprobs for id, token in drawn.items() if token.logprobs},
            failed=failed,
            first_tokens=outcome.first_tokens,
            finished=plan.finished + outcome.finished,
            num_preempted=len(plan.preempted),
            num_prefill_rows=_prefill_rows(plan),
            num_decode_rows=sum(len(c.token_ids) == 1 for c in plan.chunks),
            seconds=now_s - started_s,
        )

    def _let_go(
        self, finished: Sequence[Finished], failed: Sequence[tuple[RequestId, ThothError]]
    ) -> None:
        for end in finished:
            self.sampler.forget(end.request_id)
        for request_id, _ in failed:
            self.scheduler.cancelled(request_id)

    def _run(self, step: Step) -> dict[RequestId, Drawn | ThothError]:
        outcomes = self.sampler.draw(self.forward.logits(step), step.draws)
        return {draw.request_id: got for draw, got in zip(step.draws, outcomes, strict=True)}


def _prefill_rows(plan: StepPlan) -> int:
    return sum(len(c.token_ids) for c in plan.chunks if len(c.token_ids) > 1)

"""A worker's whole life: decide, run, record.

The engine belongs to one thread. It knows token ids and no text, blocks and no documents.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.reference import ReferenceBackend
from cluster.clock import Clock
from cluster.engine.kv_cache import KvCache
from cluster.engine.sampling import sample
from cluster.engine.step import Step, lay_out
from cluster.errors import InvalidArgument
from cluster.ids import RequestId
from cluster.request import Request, WorkerLoad
from cluster.scheduling.iteration import Finished, FirstToken, IterationScheduler, StepPlan


class Attend(Protocol):
    """Attention of one layer: q [rows, heads, head_dim], k and v [rows, kv_heads, head_dim] in,
    o [rows, heads, head_dim] out."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor: ...


class Model(Protocol):
    """A decoder that leaves keys, values and softmax to `attend`."""

    def forward(
        self, token_ids: Tensor, positions: Tensor, attend: Attend, output_rows: Tensor
    ) -> Tensor:
        """Logits [outputs, vocab] of `output_rows`, from token_ids and positions [rows]."""
        ...


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did: new tokens, ends, and its size and time for whoever counts."""

    tokens: tuple[tuple[RequestId, int], ...] = ()
    first_tokens: tuple[FirstToken, ...] = ()
    finished: tuple[Finished, ...] = ()
    num_preempted: int = 0
    num_prefill_rows: int = 0
    num_decode_rows: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Engine:
    """One model on one device, with one pool of KV blocks."""

    model: Model
    vocab_size: int
    scheduler: IterationScheduler
    cache: KvCache
    clock: Clock
    backend: AttentionBackend = field(default_factory=ReferenceBackend)

    def submit(self, request: Request) -> None:
        """Raises InvalidArgument for what can never run, Overloaded when the queue is full."""
        for segment in (*request.segments, request.output_ids):
            if segment and max(segment) >= self.vocab_size:
                raise InvalidArgument(
                    f"token id {max(segment)} is not in the vocabulary of {self.vocab_size}",
                    field="segments",
                    limit=f"ids below {self.vocab_size}",
                )
        self.scheduler.arrived(request, self.clock.now_s())

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
        sampled = self._run(lay_out(plan.chunks)) if plan.chunks else {}
        now_s = self.clock.now_s()
        outcome = self.scheduler.record(sampled, now_s)
        return StepReport(
            tokens=outcome.tokens,
            first_tokens=outcome.first_tokens,
            finished=plan.finished + outcome.finished,
            num_preempted=len(plan.preempted),
            num_prefill_rows=_prefill_rows(plan),
            num_decode_rows=sum(len(c.token_ids) == 1 for c in plan.chunks),
            seconds=now_s - started_s,
        )

    def _run(self, step: Step) -> dict[RequestId, int]:
        attention = self.backend.prepare(step.attention)
        cache = self.cache

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
            k_cache, v_cache = cache.k[layer], cache.v[layer]
            self.backend.append(k_cache, v_cache, step.slots, k, v)
            return attention.attend(q, k_cache, v_cache).o

        logits = self.model.forward(step.token_ids, step.positions, attend, step.output_rows)
        return {
            draw.request_id: sample(row, draw.sampling, draw.position)
            for row, draw in zip(logits, step.draws, strict=True)
        }


def _prefill_rows(plan: StepPlan) -> int:
    return sum(len(c.token_ids) for c in plan.chunks if len(c.token_ids) > 1)

"""From a step to its logits: eagerly on any device, or by recorded graphs where they serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.port import AttentionPort
from cluster.attention.reference import ReferenceBackend
from cluster.attention.spread import SpreadAttention
from cluster.blocks.segment import Home
from cluster.clock import Clock, MonotonicClock
from cluster.engine.kv_cache import KvCache
from cluster.engine.step import HostRows, Step
from cluster.errors import InvariantBroken
from cluster.models.decoder import Pass
from cluster.scheduling.stages import StageTimes


class Model(Protocol):
    """A decoder that leaves keys, values and softmax to its caller."""

    def begin(self, token_ids: Tensor, positions: Tensor, /) -> Pass:
        """The rows before the first layer, from token_ids and positions [rows]."""
        ...


@dataclass(frozen=True, slots=True)
class Computed:
    """`logits` [outputs, vocab] of all steps' output rows, one step after the other. `times` are
    those of the steps, in their order; without any where the clock does not see the device."""

    logits: Tensor
    times: tuple[StageTimes, ...] = ()


class Forward(Protocol):
    def logits(self, step: Step, /) -> Tensor:
        """[outputs, vocab] of the step's output rows; their keys and values are in the cache."""
        ...

    def compute(self, steps: Sequence[Step], /) -> Computed:
        """One step or more, which take turns layer by layer: what one attends on the host is
        computed beside the others."""
        ...


class Gate(Protocol):
    """Whoever copies blocks while a step computes."""

    def wait(self, layer: int, /) -> None:
        """Returns when the layer's blocks on the device may be read and written. Raises what failed
        in copying them."""
        ...


class OpenGate:
    """Nothing is copied beside the steps."""

    def wait(self, layer: int, /) -> None:
        """At once."""


class Graphs(Protocol):
    def logits(self, step: Step, gate: Gate, /) -> Tensor | None:
        """As `Forward`, or None for a step that it does not serve. What is recorded waits for no
        layer: it is run when all of them may be read and written."""
        ...


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The host's blocks, layer by layer, and what writes new rows to them."""

    k: Sequence[Tensor]
    v: Sequence[Tensor]
    backend: AttentionBackend

    def append(self, layer: int, rows: HostRows, k: Tensor, v: Tensor) -> None:
        """`k` and `v` [rows, kv_heads, head_dim] of all rows of the step, on any device."""
        where = rows.rows.to(k.device)
        own_k, own_v = (each[where].to("cpu", torch.float32) for each in (k, v))
        self.backend.append(self.k[layer], self.v[layer], rows.slots, own_k, own_v)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What lies beside the device: `ports` attend it, rows are written to `host`, and what is
    copied between the two is waited for at the gate."""

    ports: Mapping[Home, AttentionPort]
    gate: Gate
    host: HostMemory | None


@dataclass(frozen=True, slots=True)
class EagerForward:
    """The step is moved to where the cache lies; what is to be planned stays on the cpu. `ports`
    attend what lies elsewhere, and `host` is where rows are written that do not go to the device;
    each layer waits at the gate before it touches its blocks."""

    model: Model
    cache: KvCache
    backend: AttentionBackend = field(default_factory=ReferenceBackend)
    ports: Mapping[Home, AttentionPort] = field(default_factory=dict)
    gate: Gate = field(default_factory=OpenGate)
    host: HostMemory | None = None
    clock: Clock = field(default_factory=MonotonicClock)

    def logits(self, step: Step, /) -> Tensor:
        return self.compute((step,)).logits

    @torch.inference_mode()
    def compute(self, steps: Sequence[Step], /) -> Computed:
        with ExitStack() as stack:
            turns = [Turn(self, step, stack.enter_context(self._spread(step))) for step in steps]
            for layer in range(len(self.cache.k)):
                for turn in turns:
                    turn.take(layer)
            logits = [turn.logits() for turn in turns]
        is_seen = self.cache.k[0].device.type == "cpu"
        together = logits[0] if len(logits) == 1 else torch.cat(logits)
        return Computed(together, tuple(turn.times() for turn in turns) if is_seen else ())

    def _spread(self, step: Step) -> SpreadAttention:
        return SpreadAttention(step.attention, self.backend, self.ports, self.clock)


class Turn:
    """One step's way through the layers, in turn with others'.

        take 0 | .. | take 1                   | ..
                    end 0, finish 0, project 1, write, begin 1

    Between two turns whoever attends on the host computes what the first of them began.
    """

    def __init__(self, forward: EagerForward, step: Step, attention: SpreadAttention) -> None:
        device = forward.cache.k[0].device
        self._forward = forward
        self._step = step
        self._attention = attention
        self._slots = step.slots.to(device)
        self._rows = None if step.device_rows is None else step.device_rows.to(device)
        self._pass = forward.model.begin(step.token_ids.to(device), step.positions.to(device))
        self._last: int | None = None
        self._linear_s = 0.0
        self._device_s = 0.0
        self._exchange_s = 0.0

    def take(self, layer: int) -> None:
        self._end()
        begun_s = self._forward.clock.now_s()
        q, k, v = self._pass.project(layer)
        self._linear_s += self._forward.clock.now_s() - begun_s
        self._forward.gate.wait(layer)
        if self._step.host is not None:
            self._write_to_host(layer, self._step.host, k, v)
        begun_s, exchange_s = self._forward.clock.now_s(), self._attention.exchange_s
        self._write(layer, k, v)
        self._attention.begin(layer, q, self._forward.cache.k[layer], self._forward.cache.v[layer])
        self._device_s += self._forward.clock.now_s() - begun_s
        self._device_s -= self._attention.exchange_s - exchange_s
        self._last = layer

    def _end(self) -> None:
        """What the layer before began."""
        last, self._last = self._last, None
        if last is None:
            return
        o = self._attention.end(last)
        begun_s = self._forward.clock.now_s()
        self._pass.finish(last, o)
        self._linear_s += self._forward.clock.now_s() - begun_s

    def _write_to_host(self, layer: int, rows: HostRows, k: Tensor, v: Tensor) -> None:
        forward = self._forward
        if forward.host is None:
            raise InvariantBroken("rows go to the host, and there is none")
        begun_s = forward.clock.now_s()
        forward.host.append(layer, rows, k, v)
        self._exchange_s += forward.clock.now_s() - begun_s

    def _write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Keys and values of the rows that lie on the device."""
        forward = self._forward
        if self._rows is not None:
            k, v = k[self._rows], v[self._rows]
        if len(self._slots):
            k_cache, v_cache = forward.cache.k[layer], forward.cache.v[layer]
            forward.backend.append(k_cache, v_cache, self._slots, k, v)

    def logits(self) -> Tensor:
        """After the last layer."""
        self._end()
        return self._pass.logits(self._step.output_rows.to(self._slots.device))

    def times(self) -> StageTimes:
        """Of all layers; what follows them is no sub-batch's."""
        attention = self._attention
        return StageTimes(
            self._linear_s,
            self._device_s,
            attention.busy_s,
            attention.waited_s,
            self._exchange_s + attention.exchange_s,
        )


@dataclass(frozen=True, slots=True)
class GraphedForward:
    """Graphs first; what they do not serve is computed eagerly."""

    graphs: Graphs
    eager: Forward
    gate: Gate = field(default_factory=OpenGate)

    def logits(self, step: Step, /) -> Tensor:
        return self.compute((step,)).logits

    def compute(self, steps: Sequence[Step], /) -> Computed:
        logits = self.graphs.logits(steps[0], self.gate) if len(steps) == 1 else None
        return self.eager.compute(steps) if logits is None else Computed(logits)

"""From a step to its logits: eagerly on any device, or by recorded graphs where they serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.port import AttentionPort
from cluster.attention.reference import ReferenceBackend
from cluster.attention.spread import SpreadAttention
from cluster.blocks.segment import Home
from cluster.engine.kv_cache import KvCache
from cluster.engine.step import Step


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


class Forward(Protocol):
    def logits(self, step: Step, /) -> Tensor:
        """[outputs, vocab] of the step's output rows; their keys and values are in the cache."""
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
class EagerForward:
    """The step is moved to where the cache lies; what is to be planned stays on the cpu. `ports`
    attend what lies elsewhere; each layer waits at the gate before it touches its blocks."""

    model: Model
    cache: KvCache
    backend: AttentionBackend = field(default_factory=ReferenceBackend)
    ports: Mapping[Home, AttentionPort] = field(default_factory=dict)
    gate: Gate = field(default_factory=OpenGate)

    @torch.inference_mode()
    def logits(self, step: Step, /) -> Tensor:
        device = self.cache.k[0].device
        slots = step.slots.to(device)
        with SpreadAttention(step.attention, self.backend, self.ports) as attention:

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
                self.gate.wait(layer)
                k_cache, v_cache = self.cache.k[layer], self.cache.v[layer]
                self.backend.append(k_cache, v_cache, slots, k, v)
                return attention.attend(layer, q, k_cache, v_cache)

            return self.model.forward(
                step.token_ids.to(device),
                step.positions.to(device),
                attend,
                step.output_rows.to(device),
            )


@dataclass(frozen=True, slots=True)
class GraphedForward:
    """Graphs first; what they do not serve is computed eagerly."""

    graphs: Graphs
    eager: Forward
    gate: Gate = field(default_factory=OpenGate)

    def logits(self, step: Step, /) -> Tensor:
        logits = self.graphs.logits(step, self.gate)
        return self.eager.logits(step) if logits is None else logits

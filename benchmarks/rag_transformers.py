"""transformers in float32, one request after the other, with the caches of those before.

A finished prompt's keys and values are kept, the one used longest ago leaves first. The next prompt
begins with a copy of those that it shares most tokens with, from the first on.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor

from benchmarks.rag_child import Cell, serve
from benchmarks.rag_clock import Ask, Event, Reuse, SkippingClock

WARM_TOKENS = 64
# A key of what is kept: a prompt's ids.
Ids = tuple[int, ...]


@dataclass(slots=True)
class _Running:
    ask: Ask
    cache: transformers.DynamicCache
    next_id: Tensor
    left: int
    reuse: Reuse


class Shelf:
    """Caches of whole prompts within a number of bytes."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._held: OrderedDict[Ids, transformers.DynamicCache] = OrderedDict()
        self._used_bytes = 0

    def find(self, ids: Ids) -> tuple[transformers.DynamicCache, int]:
        """A cache of its own that holds so many tokens of the prompt, at least one less than it
        has."""
        best, num_shared = None, 0
        for held in self._held:
            shared = shared_tokens(held, ids)
            if shared > num_shared:
                best, num_shared = held, shared
        cache, num_shared = transformers.DynamicCache(), min(num_shared, len(ids) - 1)
        if best is not None and num_shared:
            self._held.move_to_end(best)
            for i, (key, value) in enumerate(_layers(self._held[best])):
                cache.update(key[:, :, :num_shared].clone(), value[:, :, :num_shared].clone(), i)
        return cache, num_shared

    def put(self, ids: Ids, cache: transformers.DynamicCache) -> None:
        """Takes the cache over, of which the tokens of the prompt are kept."""
        kept = transformers.DynamicCache()
        for i, (key, value) in enumerate(_layers(cache)):
            kept.update(key[:, :, : len(ids)].clone(), value[:, :, : len(ids)].clone(), i)
        if ids in self._held:
            self._used_bytes -= _num_bytes(self._held.pop(ids))
        self._held[ids] = kept
        self._used_bytes += _num_bytes(kept)
        while self._used_bytes > self._num_bytes:
            _, left = self._held.popitem(last=False)
            self._used_bytes -= _num_bytes(left)


def shared_tokens(left: Ids, right: Ids) -> int:
    """Length of the beginning that two have in common."""
    most = min(len(left), len(right))
    return next((i for i in range(most) if left[i] != right[i]), most)


def _layers(cache: transformers.DynamicCache) -> list[tuple[Tensor, Tensor]]:
    return [(layer.keys, layer.values) for layer in cache.layers]


def _num_bytes(cache: transformers.DynamicCache) -> int:
    return sum(key.nbytes + value.nbytes for key, value in _layers(cache))


class Transformers:
    def __init__(self, cell: Cell) -> None:
        # The model as transformers' own code made it: of no type that is known here.
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            cell.model, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        self._budget = cell.device_bytes + cell.host_bytes
        self._shelf = Shelf(0)
        self._waiting: deque[Ask] = deque()
        self._running: _Running | None = None
        self.submit(Ask(-1, 0.0, ((1,) * WARM_TOKENS,), (), 2))
        while not any(event.is_last for event in self.step(0.0)):
            pass
        self._shelf = Shelf(self._budget)

    def submit(self, ask: Ask) -> None:
        self._waiting.append(ask)

    @torch.inference_mode()
    def step(self, _: float) -> list[Event]:
        running = self._running
        is_first = running is None
        if running is None:
            running = self._begin(self._waiting.popleft())
        else:
            running.next_id = self._forward(running.next_id, running.cache)
        self._running = running
        running.left -= 1
        number = running.ask.number
        events = [Event(number, is_last=False)] if is_first else []
        if not running.left:
            self._shelf.put(tuple(running.ask.ids), running.cache)
            self._running = None
            events.append(Event(number, is_last=True, reuse=running.reuse))
        return events

    def _begin(self, ask: Ask) -> _Running:
        ids = tuple(ask.ids)
        cache, cached = self._shelf.find(ids)
        next_id = self._forward(torch.tensor([ids[cached:]]), cache)
        reuse = Reuse(cached, 0, 0, len(ids) - cached)
        return _Running(ask, cache, next_id, ask.max_tokens, reuse)

    def _forward(self, token_ids: Tensor, cache: transformers.DynamicCache) -> Tensor:
        """The likeliest next id [1, 1]; `cache` grows by token_ids [1, tokens]."""
        out = self._model(
            input_ids=token_ids, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        best: Tensor = out.logits[:, -1].argmax(-1, keepdim=True)
        return best


def load(cell: Cell, _: SkippingClock) -> tuple[str, Transformers]:
    torch.set_num_threads(cell.threads)
    return transformers.__version__, Transformers(cell)


if __name__ == "__main__":
    serve(load)

"""transformers in float32: `forward` with its own KV cache, one call a step.

Fewer things happen than in `generate`, which adds a tenth for stopping rules and processors. Only
the last position's logits are asked for, as a prompt needs no others.
"""

from __future__ import annotations

import torch
import transformers
from torch import Tensor

from benchmarks.peers.protocol import CONTEXT_TOKENS, Sample, Spec, Stopwatch, serve

WARM_TOKENS = 64


class Transformers:
    """Streams are copies of one prompt's keys and values, in memory of their own."""

    def __init__(self, spec: Spec) -> None:
        self.version = transformers.__version__
        self._spec = spec
        # The model as transformers' own code made it: of no type that is known here.
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            spec.model, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        self._cache = transformers.DynamicCache()
        self._next = torch.empty(0, 1, dtype=torch.int64)
        self.prefill(WARM_TOKENS)

    @torch.inference_mode()
    def prefill(self, num_tokens: int) -> Sample:
        prompt = torch.tensor([self._spec.prompt(num_tokens)])
        with Stopwatch() as watch:
            self._forward(prompt, transformers.DynamicCache())
        return watch.sample(num_tokens)

    @torch.inference_mode()
    def decode(self, streams: int, num_tokens: int) -> Sample:
        if len(self._next) != streams:
            self._hold(streams)
        with Stopwatch() as watch:
            for _ in range(num_tokens):
                self._next = self._forward(self._next, self._cache)
        return watch.sample(streams * num_tokens)

    def _hold(self, streams: int) -> None:
        self._cache = transformers.DynamicCache()
        first = self._forward(torch.tensor([self._spec.prompt(CONTEXT_TOKENS)]), self._cache)
        self._cache.batch_repeat_interleave(streams)
        self._next = first.repeat(streams, 1)
        # The first steps with every stream in them are the warm-up.
        for _ in range(2):
            self._next = self._forward(self._next, self._cache)

    def _forward(self, token_ids: Tensor, cache: transformers.DynamicCache) -> Tensor:
        """The likeliest next ids [streams, 1]; `cache` grows by token_ids [streams, tokens]."""
        out = self._model(
            input_ids=token_ids, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        best: Tensor = out.logits[:, -1].argmax(-1, keepdim=True)
        return best


def load(spec: Spec) -> Transformers:
    torch.set_num_threads(spec.threads)
    return Transformers(spec)


if __name__ == "__main__":
    serve(load)

"""OpenVINO GenAI: continuous batching over paged attention, what `LLMPipeline` runs on a CPU.

The GGUF is read as it is. Of Q4_1 the linear layers stay 4 bits wide at run time (u4 with a scale
and a zero point for 32 weights) and are multiplied with float32 rows; the table of tokens, Q8_0 in
that file, is u8 as embedding and as last layer. Of Q8_0 everything is u8. Keys and values are u8,
its default.
"""

from __future__ import annotations

from importlib import import_module
from itertools import count
from typing import Any

from benchmarks.peers.protocol import (
    CONTEXT_TOKENS,
    Sample,
    Spec,
    Stopwatch,
    serve,
)

WARM_TOKENS = 64
# What a stream may decode over all rounds of a cell.
MOST_DECODED = 512
# In gigabytes: 12 kB a token in u8.
CACHE_GB = 1
# Rows of a step. Twice its default, as much as ours: a long prompt gains a little by it.
STEP_TOKENS = 512


class OpenVino:
    """Streams stay in the pipeline from one `decode` to the next, and grow."""

    def __init__(self, spec: Spec) -> None:
        genai: Any = import_module("openvino_genai")
        self.version = genai.__version__
        self._spec = spec
        self._genai = genai
        self._tensor = import_module("openvino").Tensor
        self._ids: Any = import_module("numpy").array
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        scheduler.max_num_batched_tokens = STEP_TOKENS
        self._pipeline = genai.ContinuousBatchingPipeline(
            spec.model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": spec.threads}
        )
        self._numbers = count()
        self._streams: list[Any] = []
        self.prefill(WARM_TOKENS)

    def prefill(self, num_tokens: int) -> Sample:
        self._drop_streams()
        prompt = self._spec.prompt(num_tokens)
        with Stopwatch() as watch:
            handle = self._add(prompt, max_tokens=1)
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
        if _drawn(handle) != 1:
            raise RuntimeError("a prompt gave no token")
        return watch.sample(num_tokens)

    def decode(self, streams: int, num_tokens: int) -> Sample:
        if len(self._streams) != streams:
            self._hold(streams)
        with Stopwatch() as watch:
            for _ in range(num_tokens):
                self._pipeline.step()
        tokens = sum(map(_drawn, self._streams))
        if tokens != streams * num_tokens:
            raise RuntimeError(f"{tokens} tokens of {streams} streams in {num_tokens} steps")
        return watch.sample(tokens)

    def _hold(self, streams: int) -> None:
        self._drop_streams()
        for stream in range(streams):
            prompt = self._spec.prompt(CONTEXT_TOKENS, stream)
            self._streams.append(self._add(prompt, max_tokens=MOST_DECODED))
        waiting = list(self._streams)
        while waiting:
            self._pipeline.step()
            waiting = [handle for handle in waiting if not handle.can_read()]
        # The first steps with every stream in them are the warm-up.
        for _ in range(2):
            self._pipeline.step()
        for handle in self._streams:
            _drawn(handle)

    def _drop_streams(self) -> None:
        for handle in self._streams:
            handle.cancel()
        self._streams = []
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()

    def _add(self, prompt: list[int], max_tokens: int) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = max_tokens
        config.ignore_eos = True
        config.do_sample = False
        return self._pipeline.add_request(
            next(self._numbers), self._tensor(self._ids([prompt])), config
        )


def _drawn(handle: Any) -> int:
    """Tokens since this was asked last."""
    tokens = 0
    while handle.can_read():
        tokens += sum(len(output.generated_ids) for output in handle.read().values())
    return tokens


if __name__ == "__main__":
    serve(OpenVino)

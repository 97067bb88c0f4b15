"""CTranslate2 with int8 weights: rows are quantised to int8 before each product, sums are int32.

A decode starts from a static prompt, whose keys and values it keeps and copies for each stream, and
is timed between the tokens that it reports: from the first of the last stream to the last.
"""

from __future__ import annotations

import json
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import CONTEXT_TOKENS, Sample, Spec, serve

WARM_TOKENS = 64


class CTranslate2:
    """Every decode begins at CONTEXT_TOKENS again."""

    def __init__(self, spec: Spec) -> None:
        library: Any = import_module("ctranslate2")
        self.version = library.__version__
        self._spec = spec
        vocabulary = json.loads((Path(spec.model) / "vocabulary.json").read_text())
        self._tokens: list[str] = vocabulary
        self._generator = library.Generator(
            spec.model,
            device="cpu",
            compute_type=spec.weights,
            inter_threads=1,
            intra_threads=spec.threads,
        )
        self._held = 0
        self.prefill(WARM_TOKENS)

    def prefill(self, num_tokens: int) -> Sample:
        self._held = 0
        prompt = self._words(self._spec.prompt(num_tokens))
        before = _now()
        self._generator.generate_batch(
            [prompt], max_length=1, include_prompt_in_result=False, sampling_topk=1
        )
        return _between(before, _now(), num_tokens)

    def decode(self, streams: int, num_tokens: int) -> Sample:
        if self._held != streams:
            self._generate(streams, 2)
            self._held = streams
        marks = self._generate(streams, num_tokens + 1)
        return _between(marks[0], marks[num_tokens], streams * num_tokens)

    def _generate(self, streams: int, num_tokens: int) -> list[tuple[float, float]]:
        """When each step had told its last stream."""
        *prompt, last = self._words(self._spec.prompt(CONTEXT_TOKENS))
        marks: dict[int, tuple[float, float]] = {}

        def told(result: Any) -> bool:
            marks[result.step] = _now()
            return False

        self._generator.generate_batch(
            [[last]] * streams,
            max_batch_size=streams,
            static_prompt=prompt,
            include_prompt_in_result=False,
            # No end before: the model's own is forbidden until then.
            min_length=num_tokens,
            max_length=num_tokens,
            sampling_topk=1,
            callback=told,
        )
        if len(marks) != num_tokens:
            raise RuntimeError(f"{len(marks)} steps for {num_tokens} tokens")
        return [marks[step] for step in sorted(marks)]

    def _words(self, ids: list[int]) -> list[str]:
        return [self._tokens[id_] for id_ in ids]


def _now() -> tuple[float, float]:
    """Wall and CPU seconds."""
    return time.perf_counter(), time.process_time()


def _between(before: tuple[float, float], after: tuple[float, float], tokens: int) -> Sample:
    return Sample(tokens, after[0] - before[0], after[1] - before[1])


if __name__ == "__main__":
    serve(CTranslate2)

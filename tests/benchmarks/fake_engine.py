"""An engine that computes nothing, for the tests of those that ask."""

from __future__ import annotations

import os

from benchmarks.peers.protocol import EngineRefused, Sample, Spec, serve


class FakeEngine:
    """Says what it was told, as seconds and tokens."""

    version = "1"

    def __init__(self, spec: Spec) -> None:
        if spec.weights == "int3":
            raise EngineRefused("no weights of int3")
        if spec.weights == "broken":
            raise RuntimeError("out of luck")
        print("chatter that is no answer")
        self._spec = spec

    def prefill(self, num_tokens: int) -> Sample:
        return Sample(len(self._spec.prompt(num_tokens)), 2.0, 1.0)

    def decode(self, streams: int, num_tokens: int) -> Sample:
        if num_tokens == 0:
            raise RuntimeError("nothing to decode")
        return Sample(streams * num_tokens, float(len(os.sched_getaffinity(0))), 1.0)


if __name__ == "__main__":
    serve(FakeEngine)

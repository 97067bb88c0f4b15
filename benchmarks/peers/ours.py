"""Our engine, built as a worker builds it, driven by `submit` and `step`.

No document is cached: every prompt is one segment of its own. A worker also talks to Ray and turns
ids into text; neither happens here, and neither happens in the peers.
"""

from __future__ import annotations

from importlib.metadata import version
from itertools import count
from pathlib import Path

from pydantic import ValidationError

from actors.worker_engine import Built, build_engine
from benchmarks.peers.protocol import (
    CONTEXT_TOKENS,
    EngineRefused,
    Sample,
    Spec,
    Stopwatch,
    serve,
)
from cluster.blocks.pool import blocks_for
from cluster.clock import MonotonicClock
from cluster.config import ThothConfig
from cluster.errors import ThothError
from cluster.ids import RequestId
from cluster.request import Request, Sampling

MAX_STREAMS = 32
# What a stream may decode over all rounds of a cell, and the longest prompt of a prefill.
MOST_DECODED = 512
LONGEST_PROMPT = 2048
WARM_TOKENS = 64


class Ours:
    """Streams stay in the engine from one `decode` to the next, and grow."""

    def __init__(self, spec: Spec, built: Built) -> None:
        self.version = f"{version('thoth-cluster')}, {built.backend}"
        self._spec = spec
        self._engine = built.engine
        self._numbers = count()
        self._streams: list[RequestId] = []
        self.prefill(WARM_TOKENS)

    def prefill(self, num_tokens: int) -> Sample:
        self._drop_streams()
        with Stopwatch() as watch:
            self._submit(self._spec.prompt(num_tokens), max_tokens=1)
            while self._engine.has_work:
                self._engine.step()
        return watch.sample(num_tokens)

    def decode(self, streams: int, num_tokens: int) -> Sample:
        if len(self._streams) != streams:
            self._hold(streams)
        tokens = 0
        with Stopwatch() as watch:
            for _ in range(num_tokens):
                tokens += len(self._engine.step().tokens)
        if tokens != streams * num_tokens:
            raise RuntimeError(f"{tokens} tokens of {streams} streams in {num_tokens} steps")
        return watch.sample(tokens)

    def _hold(self, streams: int) -> None:
        self._drop_streams()
        waiting = set()
        for stream in range(streams):
            prompt = self._spec.prompt(CONTEXT_TOKENS, stream)
            waiting.add(self._submit(prompt, max_tokens=MOST_DECODED))
        self._streams = list(waiting)
        while waiting:
            waiting -= {first.request_id for first in self._engine.step().first_tokens}
        # The first steps with every stream in them are the warm-up.
        for _ in range(2):
            self._engine.step()

    def _drop_streams(self) -> None:
        for stream in self._streams:
            self._engine.cancel(stream)
        self._streams = []
        while self._engine.has_work:
            self._engine.step()

    def _submit(self, prompt: list[int], max_tokens: int) -> RequestId:
        request_id = RequestId(f"bench-{next(self._numbers)}")
        sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
        self._engine.submit(Request(request_id, (tuple(prompt),), sampling, float("inf")))
        return request_id


def load(spec: Spec) -> Ours:
    """Raises EngineRefused for settings that the installed project does not know."""
    worker = {
        "threads": spec.threads,
        "weights": spec.weights,
        "max_running": MAX_STREAMS,
        "kv_blocks": MAX_STREAMS * blocks_for(CONTEXT_TOKENS + MOST_DECODED),
    }
    settings = {
        "model": {"source": spec.model},
        "gpu_worker": worker,
        "cache": {"tiers": []},
        "home": _home(spec),
    }
    try:
        config = ThothConfig.model_validate(settings)
        built = build_engine(config, MonotonicClock(), "worker")
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise EngineRefused(said) from error
    except ThothError as error:
        raise EngineRefused(str(error)) from error
    # What was built says itself what it multiplies: nobody is measured under another's name.
    if f"{spec.weights} weights" not in built.backend:
        raise EngineRefused(f"weights {spec.weights} were asked for: {built.backend}")
    return Ours(spec, built)


def _home(spec: Spec) -> str:
    """Nothing is written there: the model is a folder that has been converted already."""
    return str(Path(spec.model).parent)


if __name__ == "__main__":
    serve(load)

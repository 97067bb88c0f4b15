"""What every engine of the comparison does, ours too, and how the benchmark asks for it.

An engine runs in a process of its own, pinned to as many cores as it has threads. The benchmark
writes one order per line, the process answers each with one line:

    benchmark -> engine   {"order": "prefill", "num_tokens": 512}
    engine -> benchmark   {"tokens": 512, "wall_s": 2.1, "cpu_s": 2.1}

The first line an engine writes says whether it runs at all. This module is imported inside the
environments of the peers: it needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

# Tokens that a stream holds before its first decode is measured.
CONTEXT_TOKENS = 512
# Every stream begins elsewhere in the text, so that no two prompts share a block.
STREAM_STRIDE = 17


class EngineRefused(Exception):
    """This engine is not to be had here; the words say why, and it is left out."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: tokens computed, seconds that passed, seconds that cores were busy."""

    tokens: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Spec:
    """What a process is started with. `model` is a file or a folder, as the engine reads it,
    `programs` the folder of those that it runs, and `text` token ids to make prompts of."""

    model: str
    weights: str
    threads: int
    cores: tuple[int, ...]
    text: tuple[int, ...]
    programs: str = ""

    def prompt(self, num_tokens: int, stream: int = 0) -> list[int]:
        """Raises ValueError when the text is too short."""
        first = stream * STREAM_STRIDE
        prompt = list(self.text[first : first + num_tokens])
        if len(prompt) < num_tokens:
            raise ValueError(f"{len(self.text)} ids are too few for stream {stream}")
        return prompt


class Peer(Protocol):
    """An engine with its weights loaded and warm. Loading and warming up are never measured."""

    version: str

    def prefill(self, num_tokens: int) -> Sample:
        """One prompt to its first token, nothing of it cached."""
        ...

    def decode(self, streams: int, num_tokens: int) -> Sample:
        """So many greedy tokens for each of so many streams, whatever the model's end is.

        The first call with a number of streams brings each to CONTEXT_TOKENS, which is not
        measured; later ones may go on from there.
        """
        ...


class Stopwatch:
    """Wall and CPU seconds of this process, all threads, inside the `with` block."""

    def __enter__(self) -> Stopwatch:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.perf_counter() - self._wall_s
        self.cpu_s = time.process_time() - self._cpu_s

    def sample(self, tokens: int) -> Sample:
        return Sample(tokens, self.wall_s, self.cpu_s)


def serve(load: Callable[[Spec], Peer]) -> None:
    """The life of an engine's process. `load` may raise EngineRefused."""
    orders = sys.stdin
    # Libraries print where they like: the answers get a descriptor that none of them knows.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")

    raw = json.loads(orders.readline())
    spec = Spec(**{**raw, "cores": tuple(raw["cores"]), "text": tuple(raw["text"])})
    # Before the library is imported: it counts the cores it may use once.
    os.sched_setaffinity(0, spec.cores)
    try:
        peer = load(spec)
    except (EngineRefused, ImportError) as error:
        say({"refused": str(error)})
        return
    say({"version": peer.version})
    for line in orders:
        say(asdict(_obey(peer, json.loads(line))))


def _obey(peer: Peer, order: Mapping[str, Any]) -> Sample:
    match order:
        case {"order": "prefill", "num_tokens": num_tokens}:
            return peer.prefill(num_tokens)
        case {"order": "decode", "streams": streams, "num_tokens": num_tokens}:
            return peer.decode(streams, num_tokens)
    raise ValueError(f"no such order: {order}")

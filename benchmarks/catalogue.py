"""Every benchmark there is, as data. Its code is imported when it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import cast

from rich.console import Console

from benchmarks.result import Outcome


class Scale(StrEnum):
    """How much is run: QUICK is the smallest run that still means something, about a minute."""

    QUICK = "quick"
    FULL = "full"


Run = Callable[[Scale, Console], Outcome]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A row of the list. `module` has a function `run(scale, console)`."""

    name: str
    summary: str
    module: str
    full_minutes: int

    def load(self) -> Run:
        return cast(Run, import_module(self.module).run)


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        "ask",
        "questions over real documents through a whole local cluster: time to first token in its "
        "parts, tokens per second, at concurrency 1 and 4",
        "benchmarks.ask",
        full_minutes=8,
    ),
    Benchmark(
        "exact",
        "logits at every position of real texts against transformers in float32, both held against "
        "float64",
        "benchmarks.exact",
        full_minutes=15,
    ),
    Benchmark(
        "gpu",
        "a CUDA device: decode attention against its bandwidth, models of real shapes against "
        "transformers, logits against float64",
        "benchmarks.gpu",
        full_minutes=8,
    ),
    Benchmark(
        "engine",
        "prefill and decode without a cache beside llama.cpp, OpenVINO, CTranslate2 and "
        "transformers (`make peers`), in tokens per CPU second and per second, 1 and 2 threads",
        "benchmarks.engine",
        full_minutes=25,
    ),
    Benchmark(
        "kernel",
        "attention on the cpu against read bandwidth and multiply-add peak of the same moment: "
        "decode, prefill chunks, one segment for many rows; 1 and 2 threads",
        "benchmarks.kernel",
        full_minutes=10,
    ),
    Benchmark(
        "ports",
        "attention in another process, over shared memory and over gRPC: a round trip of 4 KiB to "
        "8 MiB beside a bare copy, and a layer of 1, 8 and 32 rows beside one computed here",
        "benchmarks.ports",
        full_minutes=1,
    ),
    Benchmark(
        "step",
        "where the milliseconds of a step go: a prefill chunk, and decodes of 1, 8 and 32 streams, "
        "torch and the kernels in turn",
        "benchmarks.step",
        full_minutes=10,
    ),
    Benchmark(
        "int8",
        "int8 weights against float32: perplexity of real texts, and matrix products of one core "
        "beside torch's",
        "benchmarks.int8",
        full_minutes=8,
    ),
    Benchmark(
        "cache-sim",
        "the knowledge cache on traces of real services (THOTH_DATA), without a model: what each "
        "policy, size, admission and order reuses, beside what no cache can exceed",
        "benchmarks.cache_sim",
        full_minutes=8,
    ),
    Benchmark(
        "offload-sim",
        "keys and values on the host, on the machines of NEO's evaluation as their sheets describe "
        "them, without a model: throughput and latency of gpu_only, neo and adaptive",
        "benchmarks.offload_sim",
        full_minutes=15,
    ),
    Benchmark(
        "offload",
        "keys and values on the host, by the engine itself: throughput, latency and gaps of "
        "gpu_only, neo and adaptive in turn, the device capped, the host at 5 to 100% of a core",
        "benchmarks.offload",
        full_minutes=35,
    ),
    Benchmark(
        "scheduler",
        "milliseconds that a step's decisions take with 1,000 requests running and 10,000 waiting, "
        "in three modes, with room on the device and without",
        "benchmarks.scheduler",
        full_minutes=3,
    ),
    Benchmark(
        "tree",
        "microseconds of the knowledge cache's decisions with 100,000 nodes: look up a path of ten "
        "documents, insert one, make room",
        "benchmarks.tree",
        full_minutes=3,
    ),
    Benchmark(
        "rag",
        "a real service's requests through our knowledge cache, at three rates, beside the engine "
        "without one and peers with their own prefix caches; what tenants can time",
        "benchmarks.rag",
        full_minutes=55,
    ),
    Benchmark(
        "split",
        "documents on the host, attended where they lie, loaded, or computed again: 1 to 32 "
        "requests that share them, questions of 16 and 128 tokens",
        "benchmarks.split",
        full_minutes=12,
    ),
    Benchmark(
        "prover",
        "theorems of the standard sets (THOTH_DATA): solved and in what time by our modes and by "
        "cvc5 (`make peers`), 5 and 60 seconds each; `python -m benchmarks.prover` for parts of it",
        "benchmarks.prover",
        full_minutes=2400,
    ),
    Benchmark(
        "swap",
        "a step whose documents come from the host while others leave for it: copies before the "
        "step, and beside it layer by layer; 1 and 2 threads",
        "benchmarks.swap",
        full_minutes=10,
    ),
)

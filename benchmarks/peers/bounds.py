"""What no engine can exceed here: how fast weights are read and how fast float32 is multiplied.

Reading is a matrix times a vector, as a decode of one stream does it, over half a gigabyte;
multiplying is torch's product of two square matrices. Both in a process of their own, on the same
cores as the engines.

    decode, S streams:  S / max(weight bytes / bandwidth, flops / speed)
    prefill, n tokens:  n / (flops / speed)

Both speeds are per CPU second, so that whoever else is busy on the cores does not lower them:
threads that share a memory make each of their seconds worth less, and so they should.

Weights are all that is counted as read. Flops are those of float32; for narrower weights there is
no such bound here, as what a core multiplies in whole numbers depends on its instructions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.child import ROOT, environment
from benchmarks.peers.protocol import CONTEXT_TOKENS

READ_SHAPE = (2**13, 2**14)
SQUARE = 2048
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Shape:
    """Numbers of the model: weights of all linear layers but the last, of the last, and floats of
    attention for each pair of a row and a key it sees."""

    layer_weights: int
    head_weights: int
    attention_width: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """From a config.json of the Llama kind."""
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
        queries = config["num_attention_heads"] * head_dim
        keys = config["num_key_value_heads"] * head_dim
        per_layer = hidden * (2 * queries + 2 * keys + 3 * config["intermediate_size"])
        return cls(layers * per_layer, hidden * config["vocab_size"], layers * queries)

    def attention_flops(self, num_keys: float) -> float:
        """Of one row: a product with each key and one with each value."""
        return 4 * self.attention_width * num_keys


@dataclass(frozen=True, slots=True)
class Machine:
    """Measured on some cores together, per second that one of them was busy."""

    bytes_per_cpu_s: float
    flops_per_cpu_s: float

    def prefill(self, shape: Shape, num_tokens: int) -> float:
        """Tokens per CPU second, float32."""
        flops = 2 * shape.layer_weights + shape.attention_flops(num_tokens / 2)
        return self.flops_per_cpu_s / flops

    def decode(self, shape: Shape, streams: int, weight_bytes: float, *, multiply: bool) -> float:
        """Tokens per CPU second of all streams. Without `multiply` reading alone bounds it."""
        weights = shape.layer_weights + shape.head_weights
        flops = streams * (2 * weights + shape.attention_flops(CONTEXT_TOKENS))
        cpu_s = weights * weight_bytes / self.bytes_per_cpu_s
        if multiply:
            cpu_s = max(cpu_s, flops / self.flops_per_cpu_s)
        return streams / cpu_s


def measured(cores: Sequence[int]) -> Machine:
    """In a process pinned to these cores. Raises CalledProcessError."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.bounds", json.dumps(list(cores))],
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
        env=environment(len(cores)),
    )
    return Machine(**json.loads(done.stdout))


def _measure(cores: Sequence[int]) -> Machine:
    os.sched_setaffinity(0, cores)
    # Imported on its cores, which it counts once.
    import torch  # noqa: PLC0415

    torch.set_num_threads(len(cores))
    matrix, vector = torch.ones(READ_SHAPE), torch.ones(READ_SHAPE[1])
    left, right = torch.randn(SQUARE, SQUARE), torch.randn(SQUARE, SQUARE)
    with torch.inference_mode():
        read_cpu_s = _least_cpu_s(lambda: matrix @ vector)
        multiply_cpu_s = _least_cpu_s(lambda: left @ right)
    return Machine(matrix.nbytes / read_cpu_s, 2 * SQUARE**3 / multiply_cpu_s)


def _least_cpu_s(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def shape_of(folder: Path) -> Shape:
    """Of a Hugging Face folder."""
    return Shape.of(json.loads((folder / "config.json").read_text()))


if __name__ == "__main__":
    found = _measure(json.loads(sys.argv[1]))
    print(json.dumps(asdict(found)))

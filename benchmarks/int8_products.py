"""How fast a layer's four matrix products are on one core, by number of rows.

Ours in float32 and int8 beside torch's float32 and its int8 (`quantize_dynamic`, which has one
scale for a whole matrix and one for a whole batch), in turn, each product at its fastest of many
rounds. Enough layers are held that few rows take their weights from memory, as they do in a model.
Times are CPU seconds of the thread, so that a busy machine slows all of them less.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.kernels import kernels

# [outputs, inputs] of q, k and v; output; gate and up; down: those of SmolLM2-135M.
SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536))
LAYERS = 24
# With this many rows the weights are read once for so much work that one layer says the same.
MANY_ROWS = 128

Product = Callable[[Tensor], object]


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to multiply: every layer's products, and the bytes its weights take."""

    name: str
    products: Sequence[Sequence[Product]]
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class Speed:
    """Operations (a product and a sum count two) and weight bytes a second."""

    operations: float
    bytes_read: float


def kinds() -> list[Kind]:
    """All ways of the same random layers."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) for shape in SHAPES]
    count = sum(w.numel() for w in weights)
    layers = [[w.clone() for w in weights] for _ in range(LAYERS)]
    made = [
        Kind("torch_float32", [[_torch(w) for w in layer] for layer in layers], 4 * count),
        Kind("torch_int8", [[_torch_int8(w) for w in layer] for layer in layers], count),
    ]
    for name, size in (("float32", 4), ("int8", 1)):
        products = [[_ours(w, name) for w in layer] for layer in layers]
        made.append(Kind(name, products, size * count))
    return made


def _torch(weight: Tensor) -> Product:
    return lambda x: torch.nn.functional.linear(x, weight)


def _torch_int8(weight: Tensor) -> Product:
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight
    quantize: Callable[..., Product] = torch.ao.quantization.quantize_dynamic
    with warnings.catch_warnings():
        # Its successor is another package.
        warnings.simplefilter("ignore")
        return quantize(torch.nn.Sequential(linear), {torch.nn.Linear}, dtype=torch.qint8)


def _ours(weight: Tensor, precision: str) -> Product:
    linear = kernels().Linear(weight, None, precision, kernels().Threads(1))
    out = torch.empty(0)

    def apply(x: Tensor) -> None:
        nonlocal out
        if len(out) != len(x):
            out = torch.empty(len(x), weight.shape[0])
        linear.apply(x, out)

    return apply


@torch.inference_mode()
def speeds(all_kinds: Sequence[Kind], rows: int, rounds: int) -> Mapping[str, Speed]:
    """Of every kind, whose rounds are taken in turn. Sets torch's threads to 1."""
    torch.set_num_threads(1)
    inputs = [torch.randn(rows, inputs) for _, inputs in SHAPES]
    num_layers = 1 if rows >= MANY_ROWS else LAYERS
    seconds = {kind.name: [float("inf")] * len(SHAPES) for kind in all_kinds}
    for _ in range(rounds):
        for kind in all_kinds:
            for i, x in enumerate(inputs):
                taken = _seconds([layer[i] for layer in kind.products[:num_layers]], x)
                seconds[kind.name][i] = min(seconds[kind.name][i], taken)
    operations = 2 * rows * num_layers * sum(outputs * inputs for outputs, inputs in SHAPES)
    return {
        kind.name: Speed(
            operations / sum(seconds[kind.name]),
            num_layers * kind.weight_bytes / sum(seconds[kind.name]),
        )
        for kind in all_kinds
    }


def _seconds(products: Sequence[Product], x: Tensor) -> float:
    started = time.thread_time()
    for product in products:
        product(x)
    return time.thread_time() - started


def read_bandwidth(rounds: int) -> float:
    """Bytes a CPU second that one core reads from memory, at its fastest."""
    data = torch.zeros(2**26)
    threads = kernels().Threads(1)
    best = float("inf")
    for _ in range(rounds):
        started = time.thread_time()
        kernels().probe_read(data, threads)
        best = min(best, time.thread_time() - started)
    return data.nbytes / best

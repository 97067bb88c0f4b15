"""How far rows must be padded for their bits to be their own: measured, because it is a fact of the
machine's matrix library and not of ours.

A library picks its kernel by the number of rows, and kernels sum in different orders. Padded to a
multiple large enough, every product is computed by kernels that treat all rows alike.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from cluster.models.decoder import DETERMINISTIC_ROWS, Weights

CANDIDATES = (4, 8, DETERMINISTIC_ROWS)
# Rows multiplied together, and how many of them are then multiplied again by themselves.
BATCH_ROWS = 48
ALONE = (1, 2, 3, 5, 7, 8, 12, 17, 31)


def row_multiple_for(weights: Weights, seed: int = 0) -> int:
    """The least of `CANDIDATES` that keeps bits for the weights' shapes and the threads in force;
    the largest when none does. Takes well under a second at 135M parameters."""
    layer = weights.layers[0]
    matrices = (layer.qkv, layer.output, layer.gate_up, layer.down, weights.head)
    generator = torch.Generator().manual_seed(seed)
    for multiple in CANDIDATES[:-1]:
        if all(_keeps_bits(matrix, multiple, generator) for matrix in matrices):
            return multiple
    return CANDIDATES[-1]


@torch.inference_mode()
def _keeps_bits(matrix: Tensor, multiple: int, generator: torch.Generator) -> bool:
    """`matrix` is [out, in]."""
    x = torch.randn((BATCH_ROWS, matrix.shape[1]), generator=generator).to(matrix)
    together = linear(x, matrix)
    for rows in ALONE:
        padded = pad(x[:rows], (0, 0, 0, -rows % multiple))
        if not torch.equal(linear(padded, matrix)[:rows], together[:rows]):
            return False
    return True

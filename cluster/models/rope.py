"""Rotary position embedding (RoFormer, arXiv 2104.09864), in the half-rotation layout.

Element i of a head is paired with element i + head_dim / 2; the pair is turned by the angle
position * frequency[i].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cluster.models.config import DecoderConfig, LinearRope, Llama3Rope


def frequencies(config: DecoderConfig) -> Tensor:
    """Radians per position, [head_dim / 2] float32."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    plain = 1.0 / config.rope_theta**exponents
    match config.rope_scaling:
        case None:
            return plain
        case LinearRope(factor=factor):
            return plain / factor
        case Llama3Rope() as scaling:
            return _stretched(plain, scaling)


def _stretched(plain: Tensor, scaling: Llama3Rope) -> Tensor:
    """Frequencies that turn fewer than `low_freq_factor` times in the original context are divided
    by `factor`, those above `high_freq_factor` are kept, and a linear ramp joins the two."""
    turns = scaling.original_max_position * plain / (2 * math.pi)
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = ((turns - scaling.low_freq_factor) / span).clamp(0, 1)
    return (1 - kept) * plain / scaling.factor + kept * plain


class Rotary:
    """Cosines and sines of every position, computed once so that no batch can change their bits."""

    def __init__(self, config: DecoderConfig, device: torch.device) -> None:
        positions = torch.arange(config.max_position, dtype=torch.float32)
        angles = torch.outer(positions, frequencies(config))
        self._cos = angles.cos().to(device)
        self._sin = angles.sin().to(device)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each [rows, 1, head_dim / 2], for positions [rows]."""
        return self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs of x [rows, heads, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

"""Rotary position embedding (RoFormer, arXiv 2104.09864), in the half-rotation layout.

Element i of a head is paired with element i + head_dim / 2; the pair is turned by the angle
position * frequency[i].

Every value is rounded to float32 in the order in which transformers rounds it. An angle is a
position times a frequency, so at position 100,000 the last bit of a frequency is the third digit
of a cosine.
"""

from __future__ import annotations

import math
from typing import assert_never

import torch
from torch import Tensor

from cluster.models.config import DecoderConfig
from cluster.models.rope_scaling import DividedRope, LinearRope, Llama3Rope, YarnRope


def frequencies(config: DecoderConfig) -> Tensor:
    """Radians per position, [head_dim / 2] float32."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    wavelengths = config.rope_theta**exponents
    match config.rope_scaling:
        case None:
            return 1.0 / wavelengths
        case LinearRope(factor=factor):
            return 1.0 / wavelengths / factor
        case Llama3Rope() as scaling:
            return _llama3(1.0 / wavelengths, scaling)
        case YarnRope() as scaling:
            return _yarn(wavelengths, config, scaling)
        case DividedRope(divisors=divisors):
            return 1.0 / (torch.tensor(divisors, dtype=torch.float32) * wavelengths)
        case never:
            assert_never(never)


def attention_factor(config: DecoderConfig) -> float:
    """What cosines and sines are multiplied by."""
    match config.rope_scaling:
        case YarnRope(attention_factor=factor) | DividedRope(attention_factor=factor):
            return factor
        case _:
            return 1.0


def _llama3(plain: Tensor, scaling: Llama3Rope) -> Tensor:
    """Frequencies that turn fewer than `low_freq_factor` times in the original context are divided
    by `factor`, those above `high_freq_factor` are kept, and a linear ramp joins the two."""
    wavelength = 2 * math.pi / plain
    shortest = scaling.original_max_position / scaling.high_freq_factor
    longest = scaling.original_max_position / scaling.low_freq_factor
    turns = scaling.original_max_position / wavelength
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = (turns - scaling.low_freq_factor) / span
    between = (1 - kept) * plain / scaling.factor + kept * plain
    stretched = torch.where(wavelength > longest, plain / scaling.factor, between)
    return torch.where(wavelength < shortest, plain, stretched)


def _yarn(wavelengths: Tensor, config: DecoderConfig, scaling: YarnRope) -> Tensor:
    first, last = _yarn_ramp(config, scaling)
    indices = torch.arange(config.head_dim // 2, dtype=torch.float32)
    kept = 1 - ((indices - first) / (last - first)).clamp(0, 1)
    stretched = 1.0 / (scaling.factor * wavelengths)
    return stretched * (1 - kept) + 1.0 / wavelengths * kept


def _yarn_ramp(config: DecoderConfig, scaling: YarnRope) -> tuple[float, float]:
    """The indices between which frequencies go from kept to stretched."""

    def index_of(turns: float) -> float:
        """Of the pair that turns so often in the original context."""
        length = scaling.original_max_position / (turns * 2 * math.pi)
        return config.head_dim * math.log(length) / (2 * math.log(config.rope_theta))

    first, last = index_of(scaling.beta_fast), index_of(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, config.head_dim - 1)
    # A step is a ramp that is very steep.
    return first, last + 0.001 if first == last else last


class Rotary:
    """Cosines and sines of every position, computed once so that no batch can change their bits.

    `cos` and `sin` are [max_position, head_dim / 2] float32.
    """

    def __init__(self, config: DecoderConfig, device: torch.device) -> None:
        positions = torch.arange(config.max_position, dtype=torch.float32)
        angles = torch.outer(positions, frequencies(config))
        factor = attention_factor(config)
        self.cos = (angles.cos() * factor).to(device)
        self.sin = (angles.sin() * factor).to(device)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each [rows, 1, head_dim / 2], for positions [rows]."""
        return self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs of x [rows, heads, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

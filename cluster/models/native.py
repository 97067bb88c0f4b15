"""The decoder on the cpu by our own kernels: float32, or int8 weights.

The same computation as `cluster.models.decoder`, a layer in two calls instead of some thirty. A
row's bits depend on no other row and not on the number of threads, for any number of rows and
without padding: every sum of a row runs in an order that only the matrix decides.

int8: each output of a matrix has its weights as integers in [-127, 127] times one scale. Its inputs
become integers too, row by row, but of up to 16 bits, so that what int8 costs in quality it costs
by the weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cluster.kernels import kernels
from cluster.models.config import DecoderConfig
from cluster.models.decoder import Attend, Weights, run_pass
from cluster.models.rope import Rotary

if TYPE_CHECKING:
    import thoth_kernels


class Precision(StrEnum):
    """How the weights of the matrices are kept."""

    FLOAT32 = "float32"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is computed of a step's rows, written anew by every layer."""

    x: Tensor
    q: Tensor
    k: Tensor
    v: Tensor


class NativeDecoder:
    """A model in packed weights. It keeps none of `weights`: who built it can let them go.

    One thread at a time may call it, together with everything else that uses `threads`.
    """

    def __init__(
        self,
        config: DecoderConfig,
        weights: Weights,
        threads: thoth_kernels.Threads,
        precision: Precision,
    ) -> None:
        """`weights` are float32 on the cpu. Raises ValueError when they are not, and Unsupported
        where the kernels were not built."""
        self.config = config
        self.precision = precision
        self._rotary = Rotary(config, torch.device("cpu"))
        self._decoder = _packed(config, weights, threads, precision)

    @property
    def weight_bytes(self) -> int:
        """What the matrices take, the embedding among them."""
        return self._decoder.num_bytes

    @torch.inference_mode()
    def forward(
        self, token_ids: Tensor, positions: Tensor, attend: Attend, output_rows: Tensor
    ) -> Tensor:
        """As `Decoder.forward`, but that q, k and v belong to `attend` only until it returns.

        Raises ValueError for token ids that are not in the vocabulary.
        """
        return run_pass(self.begin(token_ids, positions), attend, output_rows)

    def begin(self, token_ids: Tensor, positions: Tensor) -> NativePass:
        """As `Decoder.begin`. Raises ValueError for token ids that are not in the vocabulary."""
        rows = self._rows(len(token_ids))
        cos, sin = self._rotary.cos[positions], self._rotary.sin[positions]
        step = self._decoder.begin(token_ids, cos, sin, rows.x, rows.q, rows.k, rows.v)
        return NativePass(self.config, step, rows)

    def _rows(self, count: int) -> _Rows:
        config = self.config
        kv = (count, config.num_kv_heads, config.head_dim)
        return _Rows(
            x=torch.empty(count, config.hidden_size),
            q=torch.empty(count, config.num_heads, config.head_dim),
            k=torch.empty(kv),
            v=torch.empty(kv),
        )


@dataclass(frozen=True, slots=True)
class NativePass:
    """`Pass` by the kernels. q, k and v are written over by the next `project`."""

    config: DecoderConfig
    step: thoth_kernels.Step
    rows: _Rows

    @property
    def num_layers(self) -> int:
        return self.config.num_layers

    def project(self, layer: int, /) -> tuple[Tensor, Tensor, Tensor]:
        self.step.project(layer)
        return self.rows.q, self.rows.k, self.rows.v

    def finish(self, layer: int, o: Tensor, /) -> None:
        self.step.finish(layer, o.contiguous())

    def logits(self, output_rows: Tensor, /) -> Tensor:
        logits = torch.empty(len(output_rows), self.config.vocab_size)
        self.step.logits(output_rows, logits)
        return logits


def _packed(
    config: DecoderConfig, weights: Weights, threads: thoth_kernels.Threads, precision: Precision
) -> thoth_kernels.Decoder:
    tied = weights.head is weights.embedding
    decoder: thoth_kernels.Decoder = kernels().Decoder(
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        epsilon=config.rms_norm_eps,
        precision=precision,
        embedding=weights.embedding,
        head=None if tied else weights.head,
        norm=weights.norm,
        threads=threads,
    )
    for layer in weights.layers:
        decoder.add_layer(
            attention_norm=layer.attention_norm,
            qkv=layer.qkv,
            qkv_bias=layer.qkv_bias,
            q_norm=layer.q_norm,
            k_norm=layer.k_norm,
            output=layer.output,
            mlp_norm=layer.mlp_norm,
            gate_up=layer.gate_up,
            down=layer.down,
        )
    return decoder

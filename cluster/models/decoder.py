"""The forward pass of a decoder, on rows.

It is Llama's (arXiv 2302.13971), and that of the families which differ from it by a bias (Qwen2,
arXiv 2407.10671) or by a norm (Qwen3, arXiv 2505.09388).

There are no sequences here, only rows: a token id and its position. What a row may look at, where
keys and values are kept and how softmax is folded is the business of the `Attend` it is given, so
prefill and decode, batched or alone, are the same computation.

On the cpu device the bits of a float32 matrix product may depend on how many rows are multiplied at
once: the library picks another kernel for few rows. Padded to a multiple of `DETERMINISTIC_ROWS`, a
row's result is the same in every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear, pad, silu

from cluster.models.config import DecoderConfig
from cluster.models.rope import Rotary, rotate

# layer, q [rows, heads, head_dim], k and v [rows, kv_heads, head_dim], q and k rotated
#   -> o [rows, heads, head_dim]
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]

DETERMINISTIC_ROWS = 16


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights as [out, in]; `qkv`, its bias and `gate_up` are stacked along `out`. `q_norm` and
    `k_norm` are [head_dim]. What a family has not is None."""

    attention_norm: Tensor
    qkv: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_bias: Tensor | None = None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """`head` is `embedding` itself when the two are tied."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Tensor


class Pass(Protocol):
    """Rows on their way through a decoder: `project` and `finish` of every layer in order, then
    `logits`. Several may be on their way at once, one call at a time."""

    @property
    def num_layers(self) -> int: ...

    def project(self, layer: int, /) -> tuple[Tensor, Tensor, Tensor]:
        """q [rows, heads, head_dim], k and v [rows, kv_heads, head_dim] of the layer, q and k
        rotated: until its `finish`, and then no longer."""
        ...

    def finish(self, layer: int, o: Tensor, /) -> None:
        """Takes what attention made of them, o [rows, heads, head_dim]."""
        ...

    def logits(self, output_rows: Tensor, /) -> Tensor:
        """[n, vocab] float32 of the n rows."""
        ...


def run_pass(rows: Pass, attend: Attend, output_rows: Tensor) -> Tensor:
    """The whole pass, with nothing in between."""
    for layer in range(rows.num_layers):
        rows.finish(layer, attend(layer, *rows.project(layer)))
    return rows.logits(output_rows)


class Decoder:
    """A model on a device. `row_multiple` 1 multiplies rows as they come: faster for few rows, and
    their bits then depend on the batch."""

    def __init__(
        self, config: DecoderConfig, weights: Weights, row_multiple: int = DETERMINISTIC_ROWS
    ) -> None:
        self.config = config
        self.weights = weights
        self._row_multiple = row_multiple
        self._rotary = Rotary(config, weights.embedding.device)

    @torch.inference_mode()
    def forward(
        self, token_ids: Tensor, positions: Tensor, attend: Attend, output_rows: Tensor
    ) -> Tensor:
        """Logits [n, vocab] float32 of the n `output_rows`.

        `token_ids`, `positions` and `output_rows` are int64 [rows], [rows] and [n]. `attend` is
        called once per layer, in order, and may keep the k and v it is given.
        """
        return run_pass(self.begin(token_ids, positions), attend, output_rows)

    def begin(self, token_ids: Tensor, positions: Tensor) -> DecoderPass:
        """The rows before the first layer; both are int64 [rows]."""
        cos, sin = self._rotary.at(positions)
        return DecoderPass(self, cos, sin, self.weights.embedding[token_ids])

    def project(
        self, index: int, x: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of the layer, q and k rotated."""
        layer = self.weights.layers[index]
        h = self._norm(x, layer.attention_norm)
        q, k, v = self._heads(self._linear(h, layer.qkv, layer.qkv_bias), layer)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def finish(self, index: int, x: Tensor, o: Tensor) -> Tensor:
        """What the layer makes of its input [rows, hidden] and its attention's output."""
        layer = self.weights.layers[index]
        x = x + self._linear(o.flatten(1).to(x.dtype), layer.output)
        gate, up = self._linear(self._norm(x, layer.mlp_norm), layer.gate_up).chunk(2, dim=-1)
        return x + self._linear(silu(gate) * up, layer.down)

    def logits(self, x: Tensor) -> Tensor:
        """[rows, vocab] float32 of what the last layer made."""
        return self._linear(self._norm(x, self.weights.norm), self.weights.head).float()

    def _heads(self, qkv: Tensor, layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
        """Cuts [rows, (heads + 2 kv_heads) * head_dim] into q, k and v by heads, q and k normalised
        where the layer says so."""
        by_head = qkv.view(qkv.shape[0], -1, self.config.head_dim)
        k_start = self.config.num_heads
        v_start = k_start + self.config.num_kv_heads
        q, k, v = by_head[:, :k_start], by_head[:, k_start:v_start], by_head[:, v_start:]
        if layer.q_norm is not None:
            q = self._norm(q, layer.q_norm)
        if layer.k_norm is not None:
            k = self._norm(k, layer.k_norm)
        return q, k, v

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """x / rms(x) * weight over the last axis, the mean of squares in float32."""
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return weight * (wide * scale).to(x.dtype)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [rows, in] @ weight.T + bias, the rows padded as the module says."""
        rows = x.shape[0]
        missing = -rows % self._row_multiple
        if not missing:
            return linear(x, weight, bias)
        return linear(pad(x, (0, 0, 0, missing)), weight, bias)[:rows]


@dataclass(slots=True)
class DecoderPass:
    """`Pass` in torch."""

    decoder: Decoder
    cos: Tensor
    sin: Tensor
    x: Tensor

    @property
    def num_layers(self) -> int:
        return self.decoder.config.num_layers

    def project(self, layer: int, /) -> tuple[Tensor, Tensor, Tensor]:
        return self.decoder.project(layer, self.x, self.cos, self.sin)

    def finish(self, layer: int, o: Tensor, /) -> None:
        self.x = self.decoder.finish(layer, self.x, o)

    def logits(self, output_rows: Tensor, /) -> Tensor:
        return self.decoder.logits(self.x[output_rows])


def tensor_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every weight by its Hugging Face name, with its shape [out, in]."""
    hidden, inner, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    per_layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q_size, hidden),
        "self_attn.k_proj.weight": (kv_size, hidden),
        "self_attn.v_proj.weight": (kv_size, hidden),
        "self_attn.o_proj.weight": (hidden, q_size),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config.qkv_bias:
        per_layer |= {
            "self_attn.q_proj.bias": (q_size,),
            "self_attn.k_proj.bias": (kv_size,),
            "self_attn.v_proj.bias": (kv_size,),
        }
    if config.qk_norm:
        per_layer |= {
            "self_attn.q_norm.weight": (config.head_dim,),
            "self_attn.k_norm.weight": (config.head_dim,),
        }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    for i in range(config.num_layers):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in per_layer.items()}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def assemble(config: DecoderConfig, tensors: Mapping[str, Tensor]) -> Weights:
    """Stacks the named tensors of `tensor_shapes` into layers, asking for each tensor once."""
    embedding = tensors["model.embed_tokens.weight"]
    return Weights(
        embedding=embedding,
        layers=tuple(layer_weights(config, i, tensors) for i in range(config.num_layers)),
        norm=tensors["model.norm.weight"],
        head=embedding if config.tie_word_embeddings else tensors["lm_head.weight"],
    )


def layer_weights(config: DecoderConfig, index: int, tensors: Mapping[str, Tensor]) -> Layer:
    """Layer `index`, from its named tensors."""
    prefix = f"model.layers.{index}."

    def stacked(kind: str, *names: str) -> Tensor:
        return torch.cat([tensors[f"{prefix}{name}.{kind}"] for name in names])

    qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    return Layer(
        attention_norm=tensors[f"{prefix}input_layernorm.weight"],
        qkv=stacked("weight", *qkv),
        output=tensors[f"{prefix}self_attn.o_proj.weight"],
        mlp_norm=tensors[f"{prefix}post_attention_layernorm.weight"],
        gate_up=stacked("weight", "mlp.gate_proj", "mlp.up_proj"),
        down=tensors[f"{prefix}mlp.down_proj.weight"],
        qkv_bias=stacked("bias", *qkv) if config.qkv_bias else None,
        q_norm=tensors[f"{prefix}self_attn.q_norm.weight"] if config.qk_norm else None,
        k_norm=tensors[f"{prefix}self_attn.k_norm.weight"] if config.qk_norm else None,
    )


def random_tensors(config: DecoderConfig, seed: int) -> dict[str, Tensor]:
    """Seeded weights that keep activations near unit size: for tests and benchmarks."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.ones(shape)
            if len(shape) == 1
            else torch.randn(shape, generator=generator) / shape[1] ** 0.5
        )
        for name, shape in tensor_shapes(config).items()
    }


def random_decoder(
    config: DecoderConfig, seed: int = 0, row_multiple: int = DETERMINISTIC_ROWS
) -> Decoder:
    """A model of seeded random weights on the cpu, for tests and benchmarks."""
    return Decoder(config, assemble(config, random_tensors(config, seed)), row_multiple)

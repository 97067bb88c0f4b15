"""Whole models of random weights on the device, beside transformers with the same weights.

Nothing is downloaded: a model's shape decides its speed, and its seed its exactness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from benchmarks.gpu_kernels import row, seconds
from benchmarks.result import Row
from cluster.attention.cuda.backend import TritonBackend
from cluster.attention.cuda.fixed_plan import Extent, FixedPlan, room_for
from cluster.attention.cuda.shape import HeadShape
from cluster.blocks.pool import blocks_for
from cluster.blocks.segment import SegmentView
from cluster.engine.cuda_graphs import CudaRecorder, DecodeGraphs
from cluster.engine.forward import EagerForward, Forward, GraphedForward
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.step import lay_out
from cluster.ids import BlockId, RequestId
from cluster.models.config import decoder_config
from cluster.models.decoder import Decoder, assemble
from cluster.request import Sampling
from cluster.scheduling.plan import Chunk

STEP_TOKENS = 2048

Raw = Mapping[str, Any]


def _llama(hidden: int, inner: int, heads: tuple[int, int, int], layers: int, **more: Any) -> Raw:
    num_heads, num_kv_heads, head_dim = heads
    raw = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    }
    return MappingProxyType(raw | more)


# As their config.json have them.
LLAMA_3_8B = _llama(4096, 14336, (32, 8, 128), 32, vocab_size=128256)
QWEN_2_5_7B = _llama(
    3584,
    18944,
    (28, 4, 128),
    28,
    architectures=["Qwen2ForCausalLM"],
    model_type="qwen2",
    vocab_size=152064,
    max_position_embeddings=32768,
    rms_norm_eps=1e-6,
    rope_theta=1000000.0,
)
SMOLLM2_135M = _llama(
    576, 1536, (9, 3, 64), 30, vocab_size=49152, rope_theta=100000.0, tie_word_embeddings=True
)


class Theirs:
    """transformers' model of seeded random weights."""

    def __init__(self, raw: Raw, dtype: torch.dtype, device: torch.device, seed: int = 0) -> None:
        torch.manual_seed(seed)
        config = AutoConfig.for_model(**raw)
        with device:
            self.model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()

    def tensors(self) -> dict[str, Tensor]:
        found = dict(self.model.state_dict())
        if self.model.config.tie_word_embeddings:
            found.pop("lm_head.weight", None)
        return found

    @torch.inference_mode()
    def logits(self, ids: Tensor) -> Tensor:
        """[tokens, vocab] of ids [tokens]."""
        return torch.as_tensor(self.model(ids[None]).logits[0])

    @torch.inference_mode()
    def prefill(self, ids: Tensor) -> Any:
        """The cache after ids [batch, tokens], computed so many rows at a time as ours are."""
        cache = DynamicCache()
        step = max(1, STEP_TOKENS // ids.shape[0])
        for start in range(0, ids.shape[1], step):
            part = ids[:, start : start + step]
            self.model(part, past_key_values=cache, logits_to_keep=1)
        return cache

    @torch.inference_mode()
    def decode(self, ids: Tensor, cache: Any) -> Tensor:
        """One more token of each row."""
        return torch.as_tensor(self.model(ids, past_key_values=cache).logits)


@dataclass(frozen=True, slots=True)
class Ours:
    """Our engine's forward pass over a cache of its own."""

    forward: Forward
    model: Decoder
    cache: KvCache

    @classmethod
    def like(
        cls, raw: Raw, theirs: Theirs, kv_dtype: torch.dtype, num_blocks: int, most_rows: int = 0
    ) -> Ours:
        """The same weights. With `most_rows` decode steps of so many are recorded."""
        config = decoder_config(raw)
        tensors = theirs.tensors()
        model = Decoder(config, assemble(config, tensors), row_multiple=1)
        device = model.weights.embedding.device
        shape = HeadShape(config.num_heads, config.num_kv_heads, config.head_dim, kv_dtype)
        kv = KvShape(config.num_layers, config.num_kv_heads, config.head_dim, kv_dtype)
        cache = KvCache(kv, num_blocks + 1, device)
        backend = TritonBackend.on(shape, device)
        forward: Forward = EagerForward(model, cache, backend)
        if most_rows:
            extent = Extent(most_rows, config.max_position, num_blocks)
            plans = FixedPlan(backend, room_for(shape, extent))
            scratch = num_blocks * 16
            graphs = DecodeGraphs(model, cache, plans, CudaRecorder(), (most_rows,), scratch)
            forward = GraphedForward(graphs, forward)
        return cls(forward, model, cache)

    def all_logits(self, ids: Sequence[int], step_tokens: int) -> Tensor:
        """[tokens, vocab]: the text in chunks, every row's logits asked for."""
        found = []
        for start in range(0, len(ids), step_tokens):
            end = min(start + step_tokens, len(ids))
            step = lay_out([_chunk(0, ids[start:end], start, _view(0, end))])
            rows = torch.arange(end - start)
            found.append(self.forward.logits(replace(step, output_rows=rows)))
        return torch.cat(found)


def speed_rows(
    name: str, raw: Raw, batches: Sequence[int], context: int, device: torch.device
) -> Iterator[Row]:
    """Tokens per second in bfloat16: a prompt's, and those of decode steps of some batches."""
    theirs = Theirs(raw, torch.bfloat16, device)
    yield _prefill_row(f"{name}, {context} tokens", raw, theirs, context, device)
    for batch in batches:
        case = f"{name}, {batch} x {context}"
        yield _decode_row(case, raw, theirs, (batch, context), device)


def _prefill_row(case: str, raw: Raw, theirs: Theirs, context: int, device: torch.device) -> Row:
    ours = Ours.like(raw, theirs, torch.bfloat16, blocks_for(context))
    ids = torch.randint(0, raw["vocab_size"], (context,)).tolist()
    ends = [min(a + STEP_TOKENS, context) for a in range(0, context, STEP_TOKENS)]
    starts = range(0, context, STEP_TOKENS)
    steps = [
        lay_out([_chunk(0, ids[a:b], a, _view(0, b))]) for a, b in zip(starts, ends, strict=True)
    ]
    ours_s = seconds(lambda: [ours.forward.logits(step) for step in steps], device)
    sent = torch.tensor([ids], device=device)
    theirs_s = seconds(lambda: theirs.prefill(sent), device)
    return row("prefill", case, context / ours_s, "tokens/s", "transformers", context / theirs_s)


def _decode_row(
    case: str, raw: Raw, theirs: Theirs, size: tuple[int, int], device: torch.device
) -> Row:
    """Ours attends zeros, theirs a prompt: what is in a cache decides no speed."""
    batch, context = size
    stride = blocks_for(context + 1)
    most_rows = batch if device.type == "cuda" else 0
    ours = Ours.like(raw, theirs, torch.bfloat16, stride * batch, most_rows)
    step = lay_out([_chunk(i, [7], context, _view(i * stride, context + 1)) for i in range(batch)])
    ours_s = seconds(lambda: ours.forward.logits(step), device)
    cache = theirs.prefill(torch.randint(0, raw["vocab_size"], (batch, context), device=device))
    token = torch.full((batch, 1), 7, device=device)
    theirs_s = seconds(lambda: theirs.decode(token, cache), device)
    return row("decode", case, batch / ours_s, "tokens/s", "transformers", batch / theirs_s)


def exact_rows(
    name: str, raw: Raw, num_tokens: int, kv_dtypes: Sequence[torch.dtype], device: torch.device
) -> Iterator[Row]:
    """Largest error of a logit in float32 against float64, ours beside transformers', for keys and
    values of several dtypes."""
    single = Theirs(raw, torch.float32, device)
    double = Theirs(raw, torch.float64, device)
    double.model.load_state_dict({n: t.double() for n, t in single.model.state_dict().items()})
    ids = torch.randint(
        0, raw["vocab_size"], (num_tokens,), generator=torch.Generator().manual_seed(1)
    )
    truth = double.logits(ids.to(device))
    error = float((single.logits(ids.to(device)).double() - truth).abs().max())
    for kv_dtype in kv_dtypes:
        ours = Ours.like(raw, single, kv_dtype, blocks_for(num_tokens))
        logits = ours.all_logits(ids.tolist(), step_tokens=300)
        found = float((logits.double() - truth).abs().max())
        kind = str(kv_dtype).removeprefix("torch.")
        case = f"{name}, {num_tokens} tokens, keys and values {kind}"
        yield row("logit error", case, found, "largest", "transformers float32", error)


def _chunk(number: int, ids: Sequence[int], start: int, view: SegmentView) -> Chunk:
    return Chunk(RequestId(str(number)), start, tuple(ids), (view,), Sampling())


def _view(first_block: int, num_tokens: int) -> SegmentView:
    blocks = range(first_block, first_block + blocks_for(num_tokens))
    return SegmentView(tuple(map(BlockId, blocks)), num_tokens)

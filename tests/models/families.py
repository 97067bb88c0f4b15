"""A tiny model of every family, made and written by transformers itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny_model import tiny_config, tiny_tokenizer

ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def family_config(family: str) -> dict[str, Any]:
    """The content of a config.json, without window and scaling."""
    return tiny_config() | {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "sliding_window": None,
    }


def write_family(folder: Path, family: str, seed: int = 0, **changes: Any) -> Path:
    """Writes transformers' seeded random model of the family and the tiny tokenizer.

    Norms and biases are random too: what they begin with, ones and zeros, would hide mistakes.
    """
    config = AutoConfig.for_model(**(family_config(family) | changes))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(_random(name, weight))
    model.save_pretrained(folder, max_shard_size="200KB")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _random(name: str, weight: Tensor) -> Tensor:
    """Activations stay near unit size."""
    if name.endswith("bias"):
        return torch.randn_like(weight)
    if weight.dim() == 1:
        return 1 + 0.3 * torch.randn_like(weight)
    return torch.randn_like(weight).div_(weight.shape[1] ** 0.5)


def reference_logits(folder: Path, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """[tokens, vocab] of transformers, which reads the folder itself, in one precision."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).to(dtype)
    with torch.no_grad():
        logits: Tensor = model(ids[None]).logits[0]
    return logits

"""The tiny model as llama.cpp would store it, written with the gguf library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType
from torch import Tensor

from cluster.models.config import decoder_config
from cluster.models.decoder import random_tensors
from tests.tiny_model import CHAT_TEMPLATE, EOS_ID, SPECIAL_TOKENS, tiny_config, tiny_tokenizer

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Spoiled:
    """What to get wrong, on purpose."""

    architecture: str = "llama"
    pre_tokenizer: str = "gpt-2"
    tensors: Mapping[str, Tensor | None] = field(default_factory=dict)


def tiny_tensors() -> dict[str, Tensor]:
    return random_tensors(decoder_config(_config()), seed=0)


def write_tiny_gguf(path: Path, spoiled: Spoiled | None = None) -> Path:
    """`spoiled.tensors` replaces Hugging Face tensors by name; None leaves one out."""
    spoiled = spoiled or Spoiled()
    config = _config()
    writer = GGUFWriter(path, spoiled.architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    _add_tokenizer(writer, spoiled.pre_tokenizer)
    for name, tensor in (tiny_tensors() | dict(spoiled.tensors)).items():
        if tensor is not None:
            writer.add_tensor(_ggml_name(name), _neighbours(name, tensor).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _config() -> dict[str, Any]:
    return tiny_config(vocab_size=tiny_tokenizer().get_vocab_size())


def _add_tokenizer(writer: GGUFWriter, pre_tokenizer: str) -> None:
    tokenizer = tiny_tokenizer()
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    size = tokenizer.get_vocab_size()
    special = [TokenType.CONTROL] * len(SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list([tokenizer.id_to_token(i) for i in range(size)])
    writer.add_token_types(special + [TokenType.NORMAL] * (size - len(special)))
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(EOS_ID)
    writer.add_chat_template(CHAT_TEMPLATE)


def _ggml_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.weight"
    match stem.split(".", 3):
        case ["model", "layers", index, part] if part in _NAMES:
            return f"blk.{index}.{_NAMES[part]}.weight"
    return name


def _neighbours(name: str, tensor: Tensor) -> Tensor:
    """Interleaves the halves of every q and k head, row by row."""
    config = _config()
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for part, count in heads.items():
        if f"{part}.weight" in name and tensor.shape[0] % (2 * config[count]) == 0:
            size = tensor.shape[0] // config[count]
            order = [
                head * size + half * size // 2 + i
                for head in range(config[count])
                for i in range(size // 2)
                for half in range(2)
            ]
            return tensor[order].contiguous()
    return tensor.contiguous()

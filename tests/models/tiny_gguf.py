"""The tiny models as llama.cpp would store them, written with the gguf library."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from safetensors.torch import save_file
from torch import Tensor

from cluster.models.config import decoder_config
from cluster.models.decoder import random_tensors
from tests.models.families import family_config
from tests.tiny_model import CHAT_TEMPLATE, EOS_ID, SPECIAL_TOKENS, tiny_tokenizer

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
Field = str | int | float | bool


@dataclass(frozen=True)
class Odd:
    """What is unlike the plain tiny Llama: what to get wrong on purpose, and variants.

    `tensors` replaces Hugging Face tensors by name, None leaves one out; `fields` are added to the
    metadata; `config` changes the model itself; `tokenizer` writes another one.
    """

    family: str = "llama"
    architecture: str = ""
    pre_tokenizer: str = "gpt-2"
    tensors: Mapping[str, Tensor | None] = field(default_factory=dict)
    fields: Mapping[str, Field] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Callable[[GGUFWriter], None] | None = None


def tiny_config_of(odd: Odd) -> dict[str, Any]:
    """The content of config.json, with as many tokens as the tokenizer has."""
    vocab_size = tiny_tokenizer().get_vocab_size()
    return family_config(odd.family) | {"vocab_size": vocab_size} | dict(odd.config)


def tiny_tensors(odd: Odd | None = None) -> dict[str, Tensor]:
    """By Hugging Face name. Norms and biases are random too."""
    tensors = random_tensors(decoder_config(tiny_config_of(odd or Odd())), seed=0)
    generator = torch.Generator().manual_seed(1)
    return {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
        if tensor.dim() == 1
        else tensor
        for name, tensor in tensors.items()
    }


def write_equivalent_folder(folder: Path, odd: Odd) -> Path:
    """The Hugging Face folder with the weights of `write_tiny_gguf`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tiny_config_of(odd)))
    save_file(tiny_tensors(odd), folder / "model.safetensors")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def write_tiny_gguf(path: Path, odd: Odd | None = None) -> Path:
    odd = odd or Odd()
    config = tiny_config_of(odd)
    writer = GGUFWriter(path, odd.architecture or odd.family)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    (odd.tokenizer or _tokenizer(odd.pre_tokenizer))(writer)
    for key, value in odd.fields.items():
        _add_field(writer, key, value)
    for name, tensor in (tiny_tensors(odd) | dict(odd.tensors)).items():
        if tensor is not None:
            stored = _neighbours(name, tensor, config) if odd.family == "llama" else tensor
            _add_tensor(writer, _ggml_name(name), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tensor(writer: GGUFWriter, name: str, tensor: Tensor) -> None:
    if tensor.dtype == torch.bfloat16:
        # numpy has no such type: the writer takes the bytes.
        bytes_ = tensor.view(torch.uint8).numpy()
        writer.add_tensor(name, bytes_, raw_dtype=GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, tensor.numpy())


def _add_field(writer: GGUFWriter, key: str, value: Field) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case str():
            writer.add_string(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)


def _tokenizer(pre_tokenizer: str) -> Callable[[GGUFWriter], None]:
    def add(writer: GGUFWriter) -> None:
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

    return add


def _ggml_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.{kind}"
    match stem.split(".", 3):
        case ["model", "layers", index, part] if part in _NAMES:
            return f"blk.{index}.{_NAMES[part]}.{kind}"
    return name


def _neighbours(name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Interleaves the halves of every q and k head, row by row, those of biases too."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for part, count in heads.items():
        if f".{part}." in name and tensor.shape[0] % (2 * config[count]) == 0:
            size = tensor.shape[0] // config[count]
            order = [
                head * size + half * size // 2 + i
                for head in range(config[count])
                for i in range(size // 2)
                for half in range(2)
            ]
            return tensor[order].contiguous()
    return tensor.contiguous()

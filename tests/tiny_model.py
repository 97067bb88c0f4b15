"""A Llama small enough for unit tests, as a real Hugging Face folder: seeded random weights and a
byte-level tokenizer trained on the spot. What it says is nonsense; everything around it is real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cluster.models.config import decoder_config
from cluster.models.decoder import random_tensors

CONTEXT_TOKENS = 2048
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EOS_ID = 2

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_CORPUS = (
    "You answer questions using the documents given. Be brief.",
    "Document: The with statement\nThe with statement wraps the execution of a block.\n\n",
    "What does the yield expression do in a generator function? It suspends the function.",
    "Integers, lists, tuples, dictionaries and sets are objects; names refer to objects.",
)


def tiny_config(vocab_size: int = 512) -> dict[str, Any]:
    """The content of the tiny model's config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": vocab_size,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": EOS_ID,
    }


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE: any text at all can be encoded, in at most one token per byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tiny_config()["vocab_size"],
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def write_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Writes the whole model folder, which is created when missing, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config()
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": EOS_ID})
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "chat_template": CHAT_TEMPLATE,
        },
    )
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    tensors = random_tensors(decoder_config(config), seed)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")

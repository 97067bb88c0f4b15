"""Small real tokenizers whose decoding differs in kind."""

from __future__ import annotations

import json

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from cluster.text import tokenizer as text
from tests.tiny_model import tiny_tokenizer

_CORPUS = ("the quick brown fox", "jumps over the lazy dog", "a fox is a fox", "naïve dogs jump")


def byte_level() -> text.Tokenizer:
    """GPT-2's kind: tokens are byte strings, a character may be cut anywhere."""
    return text.Tokenizer(tiny_tokenizer().to_str())


def sentencepiece() -> text.Tokenizer:
    """Llama 2's kind: blanks are ▁, unknown characters fall back to byte tokens, the first blank of
    the whole text is dropped."""
    return text.Tokenizer(_with_byte_fallback(_trained_on_blanks()).to_str())


def metaspace() -> text.Tokenizer:
    """Decoded word by word, the first one otherwise than the rest."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(special_tokens=["<unk>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return text.Tokenizer(tokenizer.to_str())


def _trained_on_blanks() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.train_from_iterator(_CORPUS, trainers.BpeTrainer(vocab_size=90, show_progress=False))
    return tokenizer


def _with_byte_fallback(trained: Tokenizer) -> Tokenizer:
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: id_ for id_, name in enumerate(names)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = trained.normalizer
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(n, special=True) for n in ("<unk>", "<s>", "</s>")])
    return tokenizer

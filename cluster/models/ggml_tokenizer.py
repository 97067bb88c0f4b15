"""The tokenizer of a GGUF as a `tokenizer.json`.

`tokenizer.ggml.model` says which kind it is: gpt2 is byte-level BPE with merges, llama is
SentencePiece's BPE with scores. What cuts text into words before byte-level BPE has only a name in
the file, `tokenizer.ggml.pre`; the names that are known here are those whose expression was
compared with the model's own `tokenizer.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from cluster.errors import InvalidArgument
from cluster.models.fields import FIELD
from cluster.models.ggml_sentencepiece import sentencepiece_of
from cluster.models.gguf_config import Metadata

# Values of tokenizer.ggml.token_type.
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5

# Contractions, words with one leading mark, `digits`, runs of punctuation, line ends, blanks.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_WORDS = _WORDS.format(digits=r"\p{N}{1,3}")
_QWEN2_WORDS = _WORDS.format(digits=r"\p{N}")
# Words are cut where small letters are followed by capitals, too.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN_WORDS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Words:
    """What goes before byte-level BPE.

    `takes_whole`: a word that is a token is taken as it is, without merging its way there. `ends`
    are the tokens that the models' own generation_config.json ends answers with.
    """

    cut: pre_tokenizers.PreTokenizer
    normalizer: normalizers.Normalizer | None = None
    takes_whole: bool = False
    ends: tuple[str, ...] = field(default=())


def _expression(words: str) -> pre_tokenizers.PreTokenizer:
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), bytes_])


def _words() -> Mapping[str, Words]:
    """By the value of `tokenizer.ggml.pre`."""
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    llama3 = Words(
        _expression(_LLAMA3_WORDS),
        takes_whole=True,
        ends=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    )
    return {
        "smollm": Words(pre_tokenizers.Sequence([digits, gpt2])),
        "gpt-2": Words(gpt2),
        "llama-bpe": llama3,
        "llama-v3": llama3,
        "llama3": llama3,
        "qwen2": Words(
            _expression(_QWEN2_WORDS), normalizers.NFC(), ends=("<|endoftext|>", "<|im_end|>")
        ),
        "tekken": Words(_expression(_TEKKEN_WORDS), takes_whole=True),
    }


def tokenizer_of(metadata: Metadata) -> Tokenizer:
    """Raises Unsupported for another kind of tokenizer, InvalidArgument for a damaged one."""
    match metadata.require("tokenizer.ggml.model", str):
        case "gpt2":
            tokenizer = _byte_level(metadata)
        case "llama":
            tokenizer = sentencepiece_of(metadata)
        case _:
            raise metadata.refusal("tokenizer.ggml.model", "tokenizer.ggml.model is gpt2 or llama")
    _add_special_tokens(tokenizer, metadata)
    return tokenizer


def _byte_level(metadata: Metadata) -> Tokenizer:
    words = _words_of(metadata)
    tokenizer = Tokenizer(_bpe(metadata, words.takes_whole))
    if words.normalizer is not None:
        tokenizer.normalizer = words.normalizer
    tokenizer.pre_tokenizer = words.cut
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _words_of(metadata: Metadata) -> Words:
    known = _words()
    pre = metadata.fields.get("tokenizer.ggml.pre", "absent")
    if pre not in known:
        raise metadata.refusal("tokenizer.ggml.pre", f"tokenizer.ggml.pre is {', '.join(known)}")
    return known[pre]


def _bpe(metadata: Metadata, takes_whole: bool) -> models.BPE:
    tokens = metadata.items("tokenizer.ggml.tokens", str)
    merges = [tuple(m.split(" ")) for m in metadata.items("tokenizer.ggml.merges", str)]
    vocab = {token: id_ for id_, token in enumerate(tokens[: _num_used(metadata)])}
    if len(set(tokens)) != len(tokens) or any(len(merge) != 2 for merge in merges):
        raise InvalidArgument(
            f"{metadata.path}: tokens repeat, or a merge is not a pair",
            field=FIELD,
            limit="distinct tokens, merges of two tokens",
        )
    try:
        return models.BPE(vocab=vocab, merges=merges, ignore_merges=takes_whole)
    except Exception as error:  # the Rust library raises no narrower class
        raise InvalidArgument(
            f"{metadata.path}: tokens and merges do not fit together: {error}",
            field=FIELD,
            limit="merges whose parts and results are tokens",
        ) from error


def _num_used(metadata: Metadata) -> int:
    """Without the names at the end that only fill the embedding up to a round number."""
    types = metadata.items("tokenizer.ggml.token_type", int)
    used = len(metadata.items("tokenizer.ggml.tokens", str))
    while 0 < used <= len(types) and types[used - 1] == _UNUSED:
        used -= 1
    return used


def _add_special_tokens(tokenizer: Tokenizer, metadata: Metadata) -> None:
    tokens = metadata.items("tokenizer.ggml.tokens", str)
    types = metadata.items("tokenizer.ggml.token_type", int)
    for token, type_ in zip(tokens, types, strict=False):
        if type_ == _CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif type_ == _USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, special=False, normalized=False)])


def tokenizer_config_of(metadata: Metadata) -> dict[str, Any]:
    """The content of the equivalent `tokenizer_config.json`, chat template included."""
    tokens = metadata.items("tokenizer.ggml.tokens", str)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.require(f"{metadata.layout.family}.context_length", int),
    }
    for name, key in (
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("pad_token", "padding"),
    ):
        id_ = metadata.fields.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(id_, int) and 0 <= id_ < len(tokens):
            config[name] = tokens[id_]
    template = metadata.fields.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    return config


def generation_config_of(metadata: Metadata) -> dict[str, Any]:
    """The content of the equivalent `generation_config.json`: where answers begin and end."""
    keys = (f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
    ends = {metadata.optional(key, int, None) for key in keys} - {None}
    if metadata.fields.get("tokenizer.ggml.model") == "gpt2":
        tokens = metadata.items("tokenizer.ggml.tokens", str)
        names = _words_of(metadata).ends
        ends |= {id_ for id_, token in enumerate(tokens) if token in names}
    return {
        "bos_token_id": metadata.optional("tokenizer.ggml.bos_token_id", int, None),
        "eos_token_id": sorted(ends) or None,
    }

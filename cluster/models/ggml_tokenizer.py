"""The tokenizer of a GGUF as a `tokenizer.json`: byte-level BPE from its tokens and merges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from cluster.errors import InvalidArgument, Unsupported
from cluster.models.fields import FIELD
from cluster.models.gguf import Metadata

# Values of tokenizer.ggml.token_type.
_CONTROL, _USER_DEFINED = 3, 4

# How Llama 3 cuts text into words before BPE: contractions, words with one leading mark, up to
# three digits, runs of punctuation, line ends, blanks.
_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _pre_tokenizers() -> Mapping[str, pre_tokenizers.PreTokenizer]:
    """By the value of `tokenizer.ggml.pre`."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    single_digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    llama3 = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return {"smollm": single_digits, "gpt-2": words, "llama-bpe": llama3}


def tokenizer_of(metadata: Metadata) -> Tokenizer:
    """Raises Unsupported for another kind of tokenizer, InvalidArgument for a damaged one."""
    kind = metadata.require("tokenizer.ggml.model", str)
    pre = metadata.fields.get("tokenizer.ggml.pre", "absent")
    known = _pre_tokenizers()
    if kind != "gpt2" or pre not in known:
        raise Unsupported(
            f"{metadata.path} has tokenizer {kind!r} with pre-tokenizer {pre!r}; serve the model's "
            "Hugging Face folder instead",
            field=FIELD,
            limit=f"tokenizer gpt2 with pre-tokenizer {', '.join(known)}",
        )
    tokenizer = Tokenizer(_bpe(metadata))
    tokenizer.pre_tokenizer = known[pre]
    tokenizer.decoder = decoders.ByteLevel()
    _add_special_tokens(tokenizer, metadata)
    return tokenizer


def _bpe(metadata: Metadata) -> models.BPE:
    tokens = metadata.require("tokenizer.ggml.tokens", list)
    merges = [tuple(m.split(" ")) for m in metadata.require("tokenizer.ggml.merges", list)]
    vocab = {token: id_ for id_, token in enumerate(tokens)}
    if len(vocab) != len(tokens) or any(len(merge) != 2 for merge in merges):
        raise InvalidArgument(
            f"{metadata.path}: tokens repeat, or a merge is not a pair",
            field=FIELD,
            limit="distinct tokens, merges of two tokens",
        )
    # Llama 3 takes a word that is a token as it is, without merging its way there.
    ignore_merges = metadata.fields.get("tokenizer.ggml.pre") == "llama-bpe"
    try:
        return models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges)
    except Exception as error:  # the Rust library raises no narrower class
        raise InvalidArgument(
            f"{metadata.path}: tokens and merges do not fit together: {error}",
            field=FIELD,
            limit="merges whose parts and results are tokens",
        ) from error


def _add_special_tokens(tokenizer: Tokenizer, metadata: Metadata) -> None:
    tokens = metadata.require("tokenizer.ggml.tokens", list)
    types = metadata.require("tokenizer.ggml.token_type", list)
    for token, type_ in zip(tokens, types, strict=False):
        if type_ == _CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif type_ == _USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, special=False, normalized=False)])


def tokenizer_config_of(metadata: Metadata) -> dict[str, Any]:
    """The content of the equivalent `tokenizer_config.json`, chat template included."""
    tokens = metadata.require("tokenizer.ggml.tokens", list)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.require("llama.context_length", int),
    }
    for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding")):
        id_ = metadata.fields.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(id_, int) and 0 <= id_ < len(tokens):
            config[name] = tokens[id_]
    template = metadata.fields.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    return config

"""Tokenizers of GGUF files against those they were made from."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from random import Random
from typing import Any

import pytest
from gguf import GGUFWriter, TokenType
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from cluster.errors import Refused, Unsupported
from cluster.models.catalogue import resolve_model
from cluster.models.folder import read_json
from cluster.models.ggml_sentencepiece import sentencepiece_of
from cluster.models.ggml_tokenizer import tokenizer_of
from cluster.models.gguf_config import Metadata
from cluster.text.tokenizer import Tokenizer as OurTokenizer
from tests.models.tiny_gguf import Odd, write_tiny_gguf
from tests.tiny_model import SPECIAL_TOKENS, tiny_tokenizer

TEXT = "It's 20,000 of  THEM\r\n\tnaïve 😀 e\u0301 DON'T camelCase/paths\n\n  2024"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
NORMAL, UNKNOWN, CONTROL, BYTE = (
    int(kind) for kind in (TokenType.NORMAL, TokenType.UNKNOWN, TokenType.CONTROL, TokenType.BYTE)
)


def byte_level(pre: str, **more: Any) -> Metadata:
    """The tiny tokenizer's tokens and merges, as a GGUF's metadata."""
    model = json.loads(tiny_tokenizer().to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if t in SPECIAL_TOKENS else NORMAL for t in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
    }
    return Metadata(Path("tiny.gguf"), fields | more)


def qwen() -> Tokenizer:
    """transformers' own kind of tokenizer for Qwen, with the tiny tokenizer's words."""
    model = json.loads(tiny_tokenizer().to_str())["model"]
    made = Qwen2Tokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]])
    backend: Tokenizer = made.backend_tokenizer
    backend.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    return backend


QWEN, OUR_QWEN = qwen(), tokenizer_of(byte_level("qwen2"))


@given(st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from("aA1 '\n\r\te\u0301é/")))
@settings(max_examples=300)
def test_qwen_text_becomes_the_ids_of_its_own_tokenizer(text: str) -> None:
    assert OUR_QWEN.encode(text).ids == QWEN.encode(text).ids


@pytest.mark.parametrize("pre", ["llama-bpe", "llama-v3", "llama3", "qwen2", "tekken"])
@given(text=st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from("aAbB1 '\n\r\t.,/-é")))
@settings(max_examples=100)
def test_text_is_cut_into_the_words_that_transformers_cuts(pre: str, text: str) -> None:
    theirs = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[pre]), "isolated")
    words = [word.encode() for word, _ in theirs.pre_tokenize_str(text)]
    cut = tokenizer_of(byte_level(pre)).pre_tokenizer
    assert cut is not None
    # A byte is one character there.
    assert [len(word) for word, _ in cut.pre_tokenize_str(text)] == [len(word) for word in words]


@pytest.mark.parametrize(
    "pre", ["gpt-2", "smollm", "llama-bpe", "llama-v3", "llama3", "qwen2", "tekken"]
)
def test_every_pre_tokenizer_reads_back_what_it_wrote(tmp_path: Path, pre: str) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf", Odd(pre_tokenizer=pre))
    tokenizer = OurTokenizer.from_folder(resolve_model(str(file), tmp_path).path)
    # Qwen composes its characters.
    expected = TEXT.replace("e\u0301", "é") if pre == "qwen2" else TEXT
    assert tokenizer.decode(tokenizer.encode(TEXT)) == expected


def test_a_word_that_is_a_token_is_taken_whole_where_its_model_does_so() -> None:
    """`ab` is a token that no merge leads to."""
    more = byte_level("llama-bpe").fields["tokenizer.ggml.tokens"]
    types = byte_level("llama-bpe").fields["tokenizer.ggml.token_type"]
    changed = {
        "tokenizer.ggml.tokens": [*more, "zqzq"],
        "tokenizer.ggml.token_type": [*types, NORMAL],
    }
    for pre, whole in (("llama-bpe", True), ("tekken", True), ("qwen2", False), ("gpt-2", False)):
        ids = tokenizer_of(byte_level(pre, **changed)).encode("zqzq").ids
        assert (ids == [len(more)]) == whole


def test_names_that_only_fill_the_embedding_are_no_tokens() -> None:
    metadata = byte_level("qwen2")
    tokens = metadata.fields["tokenizer.ggml.tokens"]
    metadata.fields["tokenizer.ggml.tokens"] = [*tokens, "[PAD1]", "[PAD2]"]
    metadata.fields["tokenizer.ggml.token_type"] += [int(TokenType.UNUSED)] * 2
    assert tokenizer_of(metadata).get_vocab_size() == len(tokens)


@pytest.mark.parametrize(
    ("pre", "fields", "ends"),
    [
        ("gpt-2", {}, {2}),
        ("qwen2", {}, {0, 2}),
        ("gpt-2", {"tokenizer.ggml.eot_token_id": 0}, {0, 2}),
        ("gpt-2", {"tokenizer.ggml.eot_token_id": 0, "tokenizer.ggml.eom_token_id": 7}, {0, 2, 7}),
    ],
)
def test_answers_end_where_the_file_or_its_family_says(
    tmp_path: Path, pre: str, fields: dict[str, int], ends: set[int]
) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf", Odd(pre_tokenizer=pre, fields=fields))
    folder = resolve_model(str(file), tmp_path).path
    assert set(read_json(folder / "generation_config.json")["eos_token_id"]) == ends
    assert OurTokenizer.from_folder(folder).eos_ids == ends


# SentencePiece


def joined(text: str, scores: Mapping[str, float]) -> list[str]:
    """SentencePiece's own way, written plainly: the best neighbours, the leftmost of equals."""
    pieces = list(text)
    while True:
        found = [
            (-scores[left + right], at)
            for at, (left, right) in enumerate(pairwise(pieces))
            if left + right in scores
        ]
        if not found:
            return pieces
        at = min(found)[1]
        pieces[at : at + 2] = ["".join(pieces[at : at + 2])]


def vocabulary(pieces: Mapping[str, float], **more: Any) -> Metadata:
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *pieces]
    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + list(pieces.values()),
        "tokenizer.ggml.token_type": [UNKNOWN, CONTROL, CONTROL]
        + [BYTE] * 256
        + [NORMAL] * len(pieces),
    }
    return Metadata(Path("llama.gguf"), fields | more)


def expected_ids(text: str, metadata: Metadata, scores: Mapping[str, float]) -> list[int]:
    ids = {token: id_ for id_, token in enumerate(metadata.fields["tokenizer.ggml.tokens"])}
    found: list[int] = []
    for piece in joined("▁" + text.replace(" ", "▁"), scores) if text else []:
        found += [ids[piece]] if piece in scores else [ids[BYTES[byte]] for byte in piece.encode()]
    return found


def llama2() -> tuple[Mapping[str, float], Tokenizer]:
    """Llama 2's own vocabulary, which a package of ours carries, with scores as SentencePiece
    trained them: by rank, and one score for all runs of blanks."""
    spec = importlib.util.find_spec("wordllama")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "tokenizers" / "l2_supercat_tokenizer_config.json"
    vocab = json.loads(file.read_text())["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.__getitem__)[259:]
    runs = {token for token in tokens if len(token) > 1 and set(token) == {"▁"}}
    scores = {t: -1e9 if t in runs else -float(rank) for rank, t in enumerate(tokens)}
    return scores, Tokenizer.from_file(str(file))


def test_llama_2_gets_its_own_merges_and_ids() -> None:
    scores, original = llama2()
    ours = sentencepiece_of(vocabulary(scores))
    merges = [json.loads(t.to_str())["model"]["merges"] for t in (ours, original)]
    assert merges[0] == merges[1]
    random = Random(0)
    texts = [*topics.values(), *(" " * n + word for n in range(40) for word in ("", "the", "="))]
    pool = "aeEthn \n\t.,=-_01漢ß😀▁"
    texts += ["".join(random.choices(pool, k=random.randrange(50))) for _ in range(1000)]
    for text in texts:
        assert ours.encode(text).ids == original.encode(text, add_special_tokens=False).ids, text


@given(
    words=st.lists(st.text("ab▁", min_size=2, max_size=5), unique=True, max_size=12),
    text=st.text("ab c", max_size=40),
    seed=st.integers(0, 99),
)
@settings(max_examples=400)
def test_merges_join_what_scores_join(words: list[str], text: str, seed: int) -> None:
    """Most random vocabularies have pieces that nothing leads to; both ways must leave those."""
    ranks = list(range(len(words) + 3))
    Random(seed).shuffle(ranks)
    scores = {piece: -float(rank) for piece, rank in zip([*"ab▁", *words], ranks, strict=True)}
    metadata = vocabulary(scores)
    assert sentencepiece_of(metadata).encode(text).ids == expected_ids(text, metadata, scores)


@pytest.mark.parametrize("prefix", [True, False])
def test_the_blank_before_the_text_is_taken_away_again(tmp_path: Path, prefix: bool) -> None:
    scores = {"▁": -1.0, "a": -2.0, "b": -3.0, "▁a": -4.0}
    metadata = vocabulary(scores, **{"tokenizer.ggml.add_space_prefix": prefix})
    tokenizer = OurTokenizer(tokenizer_of(metadata).to_str())
    names = metadata.fields["tokenizer.ggml.tokens"]
    assert [names[i] for i in tokenizer.encode("a b")] == ["▁a" if prefix else "a", "▁", "b"]
    for text in ("a b", " a", "é ba\n", "</s>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_template("</s>") == (2,)


def test_a_sentencepiece_gguf_is_served(tmp_path: Path) -> None:
    scores = {piece: -float(rank) for rank, piece in enumerate(["▁", *"abc", "▁a", "▁ab"])}

    def write(writer: GGUFWriter) -> None:
        fields = vocabulary(scores).fields
        writer.add_tokenizer_model("llama")
        writer.add_token_list(fields["tokenizer.ggml.tokens"])
        writer.add_token_scores(fields["tokenizer.ggml.scores"])
        writer.add_token_types(fields["tokenizer.ggml.token_type"])
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)

    odd = Odd(tokenizer=write, config={"vocab_size": 259 + len(scores)})
    folder = resolve_model(str(write_tiny_gguf(tmp_path / "sp.gguf", odd)), tmp_path).path
    tokenizer = OurTokenizer.from_folder(folder)
    assert tokenizer.encode("ab c") == (264, 259, 262)
    assert tokenizer.eos_ids == {2}


def refusal(metadata: Metadata) -> Refused:
    with pytest.raises(Unsupported) as caught:
        tokenizer_of(metadata)
    assert (caught.value.field, bool(caught.value.limit)) == ("model.source", True)
    return caught.value


def same_score(*pieces: str) -> Metadata:
    return vocabulary(dict.fromkeys("ab▁", -1.0) | dict.fromkeys(pieces, -2.0))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (same_score("ab", "ba"), "pieces whose scores differ"),
        (same_score("▁▁", "▁▁▁"), "pieces whose scores differ"),
        (vocabulary({"a": -1.0, "ax": -2.0}), "every character of 'ax'"),
        (
            vocabulary({"a": -1.0}, **{"tokenizer.ggml.remove_extra_whitespaces": True}),
            "without remove_extra_whitespaces",
        ),
        (vocabulary({"a": -1.0}, **{"tokenizer.ggml.scores": [0.0]}), "each with score and type"),
        (
            vocabulary({"a": -1.0}, **{"tokenizer.ggml.token_type": [NORMAL] * 260}),
            "pieces for all 256 bytes",
        ),
        (byte_level("qwen2", **{"tokenizer.ggml.model": "t5"}), "is gpt2 or llama"),
        (byte_level("deepseek-llm"), "tokenizer.ggml.pre is smollm"),
    ],
)
def test_a_tokenizer_that_cannot_be_made_exactly_is_refused_by_name(
    metadata: Metadata, said: str
) -> None:
    assert said in refusal(metadata).limit


def test_runs_that_share_a_score_are_tried_before_they_are_trusted() -> None:
    lengths = (2, 4, 8, 5, 16, 6, 12, 13, 10, 14, 3, 9, 7, 11, 15)
    scores = {"▁": -1.0} | {"▁" * length: -1e9 for length in lengths}
    metadata = vocabulary(scores)
    tokenizer = tokenizer_of(metadata)
    for length in range(100):
        text = " " * length
        assert tokenizer.encode(text).ids == expected_ids(text, metadata, scores)

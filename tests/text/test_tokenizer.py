"""Tokenizers of model folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidArgument, Unsupported
from cluster.text.tokenizer import Tokenizer
from tests.text.tokenizers_of_many_kinds import byte_level
from tests.tiny_model import write_tiny_model

TINY = byte_level()


@given(st.text())
def test_any_text_reads_back(text: str) -> None:
    assert TINY.decode(TINY.encode(text)) == text


def test_the_name_of_a_special_token_is_text_unless_the_template_wrote_it() -> None:
    assert TINY.encode_template("<|im_end|>") == (2,)
    assert TINY.special_ids.isdisjoint(TINY.encode("<|im_end|>"))
    assert TINY.decode(TINY.encode("<|im_end|>")) == "<|im_end|>"
    assert TINY.decode((2,)) == ""


def test_ids_beyond_the_vocabulary_have_no_text() -> None:
    assert TINY.decode((*TINY.encode("a"), TINY.vocab_size, 511)) == "a"


@pytest.mark.parametrize(
    ("generation", "config", "eos"),
    [
        ({"eos_token_id": 2}, {"eos_token_id": 0}, {2}),
        ({"eos_token_id": [0, 1, 2]}, {}, {0, 1, 2}),
        ({}, {"eos_token_id": 0}, {0}),
        (None, {"eos_token_id": 0}, {0}),
        (None, {}, set()),
    ],
)
def test_the_generation_config_says_first_where_answers_end(
    tmp_path: Path,
    generation: dict[str, object] | None,
    config: dict[str, object],
    eos: set[int],
) -> None:
    folder = write_tiny_model(tmp_path)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert Tokenizer.from_folder(folder).eos_ids == eos


@pytest.mark.parametrize("name", ["<|im_end|>", {"content": "<|im_end|>", "special": True}])
def test_answers_also_end_where_the_tokenizer_ends_a_turn(tmp_path: Path, name: object) -> None:
    folder = write_tiny_model(tmp_path)
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}')
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": name}))
    assert Tokenizer.from_folder(folder).eos_ids == {0, 2}


def test_truncation_and_padding_of_the_file_are_not_applied(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 2,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.decode(tokenizer.encode("a longer text")) == "a longer text"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": {"type": "Magic"}}'])
def test_a_malformed_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InvalidArgument, match="malformed") as caught:
        Tokenizer.from_folder(tmp_path)
    assert caught.value.field == "model.source"


def test_a_tokenizer_that_makes_special_tokens_of_text_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"].append({"id": vocab["a"], "content": "a", "special": True, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(Unsupported, match="ordinary text"):
        Tokenizer.from_folder(folder)


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    one = Tokenizer.from_folder(write_tiny_model(tmp_path / "one")).fingerprint
    assert Tokenizer.from_folder(write_tiny_model(tmp_path / "two", seed=1)).fingerprint == one
    folder = tmp_path / "two"
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + "\n")
    assert Tokenizer.from_folder(folder).fingerprint != one

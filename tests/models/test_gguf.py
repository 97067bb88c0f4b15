"""GGUF files, whole and damaged."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cluster.errors import InvalidArgument, Refused, Unsupported
from cluster.models.catalogue import resolve_model
from cluster.models.convert import write_folder
from cluster.models.folder import load_decoder, read_json
from cluster.models.gguf import GgufFile
from cluster.text.tokenizer import Tokenizer
from tests.models.tiny_gguf import Spoiled, tiny_tensors, write_tiny_gguf
from tests.tiny_model import CHAT_TEMPLATE

DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").read_bytes()


def convert_bytes(content: bytes, folder: Path) -> None:
    file = folder / "damaged.gguf"
    file.write_bytes(content)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    write_folder(GgufFile(file), out)


def refusal_of(content: bytes, folder: Path) -> Refused | None:
    try:
        convert_bytes(content, folder)
    except Refused as refusal:
        return refusal
    return None


def test_a_converted_gguf_has_the_weights_it_was_written_from(tmp_path: Path) -> None:
    model = resolve_model(str(write_tiny_gguf(tmp_path / "tiny.gguf")), tmp_path / "cache")
    found = load_file(model.path / "model.safetensors")
    expected = tiny_tensors()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_converted_gguf_has_its_tokenizer_template_and_numbers(
    tmp_path: Path, tiny_folder: Path
) -> None:
    model = resolve_model(str(write_tiny_gguf(tmp_path / "tiny.gguf")), tmp_path / "cache")
    ours, original = Tokenizer.from_folder(model.path), Tokenizer.from_folder(tiny_folder)
    text = "The with statement 😀 <|im_end|> naïve\n\n  2024"
    assert ours.encode(text) == original.encode(text)
    assert ours.encode_template(text) == original.encode_template(text)
    assert ours.eos_ids == original.eos_ids
    assert read_json(model.path / "tokenizer_config.json")["chat_template"] == CHAT_TEMPLATE
    config = load_decoder(model.path).config
    assert (config.rms_norm_eps, config.rope_theta, config.max_position) == (1e-5, 10000.0, 2048)


@pytest.mark.parametrize("pre_tokenizer", ["smollm", "llama-bpe"])
def test_other_pre_tokenizers_read_back_what_they_wrote(tmp_path: Path, pre_tokenizer: str) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf", Spoiled(pre_tokenizer=pre_tokenizer))
    tokenizer = Tokenizer.from_folder(resolve_model(str(file), tmp_path).path)
    text = "It's 20,000 of  THEM\r\n\tnaïve 😀 e\u0301"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_gguf_cut_short_anywhere_is_refused(whole: bytes, tmp_path: Path) -> None:
    random = Random(0)
    lengths = {0, 3, 4, 8, 24, len(whole) - 1, *(random.randrange(len(whole)) for _ in range(60))}
    for length in sorted(lengths):
        with pytest.raises(InvalidArgument) as caught:
            convert_bytes(whole[:length], tmp_path)
        assert caught.value.field == "model.source"
        assert f"({length} bytes)" in caught.value.message


def test_a_gguf_with_flipped_bytes_is_converted_or_refused(whole: bytes, tmp_path: Path) -> None:
    random = Random(1)
    num_refused = 0
    for _ in range(80):
        damaged = bytearray(whole)
        # Most of the file is weights; the part with a structure comes first.
        for _ in range(random.randrange(1, 4)):
            damaged[random.randrange(16_000)] = random.randrange(256)
        refusal = refusal_of(bytes(damaged), tmp_path)
        assert refusal is None or refusal.field == "model.source"
        num_refused += refusal is not None
    assert num_refused > 10


def test_an_array_said_to_be_endless_is_refused_at_once(whole: bytes, tmp_path: Path) -> None:
    key = b"tokenizer.ggml.token_type"
    # After the key: the value's type, the items' type, then the length.
    at = whole.index(key) + len(key) + 8
    endless = whole[:at] + (2**62).to_bytes(8, "little") + whole[at + 8 :]
    with pytest.raises(InvalidArgument, match="not a whole GGUF"):
        convert_bytes(endless, tmp_path)


@pytest.mark.parametrize(
    ("spoiled", "kind", "said"),
    [
        (Spoiled(architecture="qwen2"), Unsupported, "'qwen2'; only llama"),
        (Spoiled(pre_tokenizer="tekken"), Unsupported, "pre-tokenizer 'tekken'"),
        (Spoiled(tensors={DOWN: None}), InvalidArgument, f"{DOWN} is missing"),
        (Spoiled(tensors={DOWN: torch.ones(64, 96)}), InvalidArgument, "(64, 96), and (64, 128)"),
        (
            Spoiled(tensors={DOWN: torch.full((64, 128), torch.nan)}),
            InvalidArgument,
            "not finite",
        ),
        (
            Spoiled(tensors={"rope_freqs.weight": torch.ones(8)}),
            Unsupported,
            "'rope_freqs.weight', which a plain Llama has not",
        ),
    ],
)
def test_what_a_gguf_lacks_is_named(
    tmp_path: Path, spoiled: Spoiled, kind: type[Refused], said: str
) -> None:
    file = write_tiny_gguf(tmp_path / "odd.gguf", spoiled)
    with pytest.raises(kind) as caught:
        resolve_model(str(file), tmp_path / "cache")
    assert said in caught.value.message
    assert caught.value.field == "model.source"
    assert caught.value.limit


def test_a_refused_gguf_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    nan: dict[str, Tensor | None] = {DOWN: torch.full((64, 128), torch.nan)}
    file = write_tiny_gguf(tmp_path / "odd.gguf", Spoiled(tensors=nan))
    with pytest.raises(InvalidArgument):
        resolve_model(str(file), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []

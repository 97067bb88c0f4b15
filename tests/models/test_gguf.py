"""GGUF files, whole and damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cluster.errors import InvalidArgument, Refused, Unsupported
from cluster.models.catalogue import resolve_model
from cluster.models.config import decoder_config
from cluster.models.convert import write_folder
from cluster.models.decoder import Decoder
from cluster.models.folder import load_decoder, read_json, weight_files
from cluster.models.gguf import GgufFile
from cluster.models.rope import frequencies
from cluster.text.tokenizer import Tokenizer
from tests.models.dense import attend_causally
from tests.models.families import reference_logits
from tests.models.tiny_gguf import (
    Odd,
    tiny_config_of,
    tiny_tensors,
    write_equivalent_folder,
    write_tiny_gguf,
)
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
    ("odd", "kind", "said"),
    [
        (Odd(architecture="gemma"), Unsupported, "'gemma', which is not served from GGUF"),
        (Odd(pre_tokenizer="viking"), Unsupported, "tokenizer.ggml.pre = 'viking'"),
        (Odd(tensors={DOWN: None}), InvalidArgument, f"{DOWN} is missing"),
        (Odd(tensors={DOWN: torch.ones(64, 96)}), InvalidArgument, "(64, 96), and (64, 128)"),
        (
            Odd(tensors={DOWN: torch.full((64, 128), torch.nan)}),
            InvalidArgument,
            "not finite",
        ),
        (
            Odd(family="qwen2", tensors={"rope_freqs.weight": torch.ones(8)}),
            Unsupported,
            "'rope_freqs.weight', which is not computed here",
        ),
        (
            Odd(tensors={"blk.0.attn_output.bias": torch.ones(64)}),
            InvalidArgument,
            "o_proj.bias is (64,), and unknown",
        ),
        (
            Odd(tensors={"blk.0.ffn_gate_exps.weight": torch.ones(64)}),
            Unsupported,
            "'blk.0.ffn_gate_exps.weight'",
        ),
        (Odd(fields={"llama.expert_count": 8}), Unsupported, "llama.expert_count = 8"),
        (Odd(fields={"llama.logit_scale": 0.5}), Unsupported, "llama.logit_scale = 0.5"),
        (Odd(fields={"llama.rope.dimension_count": 8}), Unsupported, "dimension_count = 8"),
        (Odd(fields={"llama.rope.scaling.type": "longrope"}), Unsupported, "'longrope'"),
        (
            Odd(fields={"llama.rope.scaling.yarn_log_multiplier": 0.1}),
            Unsupported,
            "yarn_log_multiplier",
        ),
        (
            Odd(
                fields={"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0},
                tensors={"rope_freqs.weight": torch.ones(8)},
            ),
            Unsupported,
            "scaling.type = 'yarn'",
        ),
        (Odd(fields={"llama.attention.causal": False}), Unsupported, "attention.causal = False"),
        (Odd(fields={"split.count": 3}), Unsupported, "split.count = 3"),
    ],
)
def test_what_a_gguf_lacks_is_named(
    tmp_path: Path, odd: Odd, kind: type[Refused], said: str
) -> None:
    file = write_tiny_gguf(tmp_path / "odd.gguf", odd)
    with pytest.raises(kind) as caught:
        resolve_model(str(file), tmp_path / "cache")
    assert said in caught.value.message
    assert caught.value.field == "model.source"
    assert caught.value.limit


def test_a_refused_gguf_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    nan: dict[str, Tensor | None] = {DOWN: torch.full((64, 128), torch.nan)}
    file = write_tiny_gguf(tmp_path / "odd.gguf", Odd(tensors=nan))
    with pytest.raises(InvalidArgument):
        resolve_model(str(file), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name != "hashes"] == []


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(Odd(), id="llama"),
        pytest.param(Odd(config={"attention_bias": True}), id="llama with biases"),
        pytest.param(Odd(config={"tie_word_embeddings": False, "head_dim": 32}), id="untied"),
        pytest.param(Odd(family="qwen2"), id="qwen2"),
        pytest.param(Odd(family="qwen3"), id="qwen3"),
        pytest.param(Odd(family="qwen3", config={"attention_bias": True}), id="qwen3 with biases"),
        pytest.param(
            Odd(
                config={"rope_scaling": {"type": "linear", "factor": 4.0}},
                fields={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
            ),
            id="linear",
        ),
        pytest.param(
            Odd(
                config={"rope_scaling": {"type": "linear", "factor": 4.0}},
                fields={"llama.rope.scale_linear": 4.0},
            ),
            id="linear, as old files say it",
        ),
        pytest.param(
            Odd(
                family="qwen2",
                config={
                    "rope_scaling": {
                        "type": "yarn",
                        "factor": 4.0,
                        "original_max_position_embeddings": 512,
                    },
                },
                fields={
                    "qwen2.rope.scaling.type": "yarn",
                    "qwen2.rope.scaling.factor": 4.0,
                    "qwen2.rope.scaling.original_context_length": 512,
                    "qwen2.rope.scaling.yarn_ext_factor": 1.0,
                },
            ),
            id="yarn",
        ),
        pytest.param(
            Odd(
                config={"max_position_embeddings": 512},
                fields={"llama.context_length": 2048, "llama.attention.sliding_window": 512},
            ),
            id="a window",
        ),
        pytest.param(Odd(fields={"llama.expert_count": 0}), id="no experts"),
    ],
)
def test_a_gguf_is_the_same_model_as_its_hugging_face_folder(tmp_path: Path, odd: Odd) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf", odd)
    converted = load_decoder(resolve_model(str(file), tmp_path / "cache").path)
    original = load_decoder(write_equivalent_folder(tmp_path / "folder", odd))
    assert converted.config == original.config
    assert torch.equal(logits_of(converted), logits_of(original))


def logits_of(model: Decoder) -> Tensor:
    rows = torch.arange(96)
    ids = torch.arange(96) * 7 % model.config.vocab_size
    return model.forward(ids, rows, attend_causally, rows)


def test_llama_3_scaling_comes_as_a_tensor_of_divisors(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    odd = Odd(config={"rope_scaling": scaling})
    config = decoder_config(tiny_config_of(odd))
    plain = decoder_config(tiny_config_of(Odd()))
    divisors = (frequencies(plain).double() / frequencies(config)).float()
    file = write_tiny_gguf(
        tmp_path / "tiny.gguf", replace(odd, tensors={"rope_freqs.weight": divisors})
    )
    folder = resolve_model(str(file), tmp_path / "cache").path
    found = load_decoder(folder)
    assert torch.allclose(frequencies(found.config), frequencies(config), rtol=1e-6, atol=0)
    original = load_decoder(write_equivalent_folder(tmp_path / "folder", odd))
    assert torch.allclose(logits_of(found), logits_of(original), atol=1e-4)
    ids = torch.arange(96) * 7 % found.config.vocab_size
    theirs = reference_logits(folder, ids, torch.float64)
    assert (logits_of(found) - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_two_bytes_stay_what_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    narrow = {name: tensor.to(dtype) for name, tensor in tiny_tensors().items() if tensor.dim() > 1}
    file = write_tiny_gguf(tmp_path / "tiny.gguf", Odd(tensors=narrow))
    model = resolve_model(str(file), tmp_path / "cache")
    found = load_file(model.path / "model.safetensors")
    for name, tensor in narrow.items():
        assert torch.equal(found[name], tensor), name


def test_a_large_gguf_is_written_as_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = resolve_model(str(write_tiny_gguf(tmp_path / "tiny.gguf")), tmp_path / "one").path
    monkeypatch.setattr("cluster.models.convert.SHARD_BYTES", 100_000)
    cut = resolve_model(str(tmp_path / "tiny.gguf"), tmp_path / "several").path
    assert len(weight_files(whole)) == 1
    assert len(weight_files(cut)) > 2
    assert torch.equal(logits_of(load_decoder(whole)), logits_of(load_decoder(cut)))

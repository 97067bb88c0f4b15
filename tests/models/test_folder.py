"""Hugging Face folders: what is accepted, and what is refused with which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import InvalidArgument, Refused, Unsupported
from cluster.models.catalogue import resolve_model
from cluster.models.decoder import Layer
from cluster.models.folder import INDEX, SINGLE, load_decoder
from tests.tiny_model import write_tiny_model

GATE = "model.layers.0.mlp.gate_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


def resolve_and_load(folder: Path) -> None:
    load_decoder(resolve_model(str(folder), folder.parent / "cache").path)


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def shard(folder: Path) -> None:
    """Cuts the weights into two files with an index."""
    tensors = load_file(folder / SINGLE)
    names = sorted(tensors)
    halves = {"a.safetensors": names[:7], "b.safetensors": names[7:]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    (folder / SINGLE).unlink()


def test_sharded_weights_are_the_same_weights(folder: Path, tiny_folder: Path) -> None:
    shard(folder)
    sharded, single = load_decoder(folder).weights, load_decoder(tiny_folder).weights
    assert torch.equal(sharded.embedding, single.embedding)
    for ours, theirs in zip(sharded.layers, single.layers, strict=True):
        assert torch.equal(ours.qkv, theirs.qkv)
        assert torch.equal(ours.down, theirs.down)


def test_the_fingerprint_follows_the_content_alone(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = resolve_model(str(folder), cache).fingerprint
    moved = folder.rename(tmp_path / "elsewhere")
    assert resolve_model(str(moved), cache).fingerprint == first
    weights = moved / SINGLE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert resolve_model(str(moved), cache).fingerprint != first


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_folder_with_a_pickle_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x80\x04.")
    with pytest.raises(Unsupported) as caught:
        resolve_and_load(folder)
    assert name in caught.value.message
    assert caught.value.limit == "weights in safetensors or GGUF only"


def test_code_in_a_model_folder_is_never_run(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')\n")
    configure(folder, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    with pytest.raises(Unsupported, match="auto_map"):
        resolve_and_load(folder)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, Unsupported, "MixtralForCausalLM"),
        ({"hidden_act": "gelu"}, Unsupported, "hidden_act = 'gelu'"),
        ({"attention_bias": True}, InvalidArgument, "lack model.layers.0.self_attn.q_proj.bias"),
        ({"num_hidden_layers": 1}, Unsupported, "have model.layers.1.input_layernorm.weight"),
        ({"quantization_config": {"bits": 4}}, Unsupported, "quantization_config"),
        ({"rope_scaling": {"rope_type": "su", "factor": 2.0}}, Unsupported, "'su'"),
        ({"num_hidden_layers": 0}, InvalidArgument, "num_hidden_layers = 0"),
        ({"hidden_size": "64"}, InvalidArgument, "hidden_size = '64'"),
        ({"max_position_embeddings": 10**12}, InvalidArgument, "max_position_embeddings = 1000"),
        ({"rms_norm_eps": -1}, InvalidArgument, "rms_norm_eps = -1"),
        ({"num_key_value_heads": 3}, InvalidArgument, "4 heads cannot share 3"),
        ({"head_dim": 15}, InvalidArgument, "head_dim is 15"),
        ({"vocab_size": 600}, InvalidArgument, "is [512, 64], config.json makes it [600, 64]"),
        ({"tie_word_embeddings": False}, InvalidArgument, "lack lm_head.weight"),
    ],
)
def test_a_config_that_cannot_be_served_names_what_is_wrong(
    folder: Path, changes: dict[str, Any], kind: type[Refused], said: str
) -> None:
    configure(folder, **changes)
    with pytest.raises(kind) as caught:
        resolve_and_load(folder)
    assert said in caught.value.message
    assert caught.value.field == "model.source"
    assert caught.value.limit


def _drop_gate(folder: Path) -> None:
    tensors = load_file(folder / SINGLE)
    del tensors[GATE]
    save_file(tensors, folder / SINGLE)


def _change(folder: Path, name: str, tensor: torch.Tensor) -> None:
    save_file(load_file(folder / SINGLE) | {name: tensor}, folder / SINGLE)


def _cut_weights(folder: Path) -> None:
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[: len(content) // 2])


def _lose_a_shard(folder: Path) -> None:
    shard(folder)
    (folder / "b.safetensors").unlink()


def _point_outside(folder: Path) -> None:
    shard(folder)
    (folder / SINGLE).parent.joinpath(INDEX).write_text(
        json.dumps({"weight_map": {GATE: "../outside.safetensors"}})
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_drop_gate, f"lack {GATE}"),
        (_cut_weights, "model.safetensors cannot be read"),
        (_lose_a_shard, "b.safetensors is not a file of the model folder"),
        (_point_outside, "outside.safetensors is not a file of the model folder"),
        (lambda f: (f / INDEX).write_text("{}"), "has no weight_map"),
        (lambda f: (f / SINGLE).unlink(), "model.safetensors is not a file"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json does not exist"),
        (lambda f: (f / "config.json").unlink(), "config.json does not exist"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "holds a list"),
    ],
)
def test_a_damaged_folder_names_the_file(
    folder: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(folder)
    with pytest.raises(InvalidArgument) as caught:
        resolve_and_load(folder)
    assert said in caught.value.message
    assert caught.value.field == "model.source"


@pytest.mark.parametrize(
    ("name", "tensor", "kind", "said"),
    [
        (GATE, torch.ones(128, 64, dtype=torch.int8), Unsupported, "stored as I8"),
        (
            "model.layers.0.mlp.gate_proj.weight_scale",
            torch.ones(128),
            Unsupported,
            "gate_proj.weight_scale, which is not computed here",
        ),
        ("model.layers.0.self_attn.q_proj.bias", torch.ones(64), Unsupported, "q_proj.bias"),
        ("lm_head.weight", torch.ones(512, 64), InvalidArgument, "tie_word_embeddings"),
    ],
)
def test_a_tensor_that_would_change_the_answer_is_refused_by_name(
    folder: Path, name: str, tensor: torch.Tensor, kind: type[Refused], said: str
) -> None:
    _change(folder, name, tensor)
    with pytest.raises(kind) as caught:
        resolve_and_load(folder)
    assert said in caught.value.message
    assert (caught.value.field, bool(caught.value.limit)) == ("model.source", True)


def test_a_tensor_that_says_what_is_known_is_passed_over(folder: Path) -> None:
    _change(folder, "model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(8))
    _change(folder, "lm_head.weight", load_file(folder / SINGLE)["model.embed_tokens.weight"])
    resolve_and_load(folder)


def test_shapes_are_looked_at_before_any_weight_is_read(folder: Path) -> None:
    """So that the gateway, which loads nothing, says it too."""
    _drop_gate(folder)
    with pytest.raises(InvalidArgument, match=f"lack {GATE}"):
        resolve_model(str(folder), folder.parent / "cache")


def test_loaded_weights_outlive_their_files(folder: Path, tiny_folder: Path) -> None:
    weights = load_decoder(folder).weights
    (folder / SINGLE).write_bytes(bytes((folder / SINGLE).stat().st_size))
    expected = load_decoder(tiny_folder).weights
    assert torch.equal(weights.embedding, expected.embedding)
    assert torch.equal(weights.layers[1].down, expected.layers[1].down)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_loaded_in_the_type_asked_for(tiny_folder: Path, dtype: torch.dtype) -> None:
    weights = load_decoder(tiny_folder, dtype=dtype).weights
    tensors = (weights.embedding, weights.head, weights.norm, *_tensors(weights.layers[0]))
    assert {tensor.dtype for tensor in tensors} == {dtype}
    wide = load_decoder(tiny_folder).weights
    assert torch.equal(weights.layers[0].qkv, wide.layers[0].qkv.to(dtype))


def _tensors(layer: Layer) -> list[torch.Tensor]:
    found = (getattr(layer, name) for name in Layer.__slots__)
    return [tensor for tensor in found if tensor is not None]

"""The decoder on our own kernels: against transformers and the reference, and its bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cluster.kernels import kernels, kernels_available
from cluster.models.config import decoder_config
from cluster.models.decoder import Decoder, random_decoder
from cluster.models.folder import load_decoder
from cluster.models.native import NativeDecoder, Precision
from tests.models.dense import attend_causally, attend_to_self
from tests.models.families import reference_logits, write_family
from tests.tiny_model import tiny_config

pytestmark = pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")

ROWS = 120
EVERYONE = torch.arange(ROWS)
IDS = torch.randint(0, 512, (ROWS,), generator=torch.Generator().manual_seed(1))


def native(model: Decoder, precision: Precision, threads: int = 1) -> NativeDecoder:
    return NativeDecoder(model.config, model.weights, kernels().Threads(threads), precision)


def logits_of(model: Decoder | NativeDecoder) -> Tensor:
    return model.forward(IDS, EVERYONE, attend_causally, EVERYONE)


@pytest.fixture
def baseline() -> Iterator[None]:
    """The instructions that every machine of its kind has."""
    kernels().prefer_baseline(True)
    yield
    kernels().prefer_baseline(False)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        pytest.param("llama", {}, id="llama"),
        pytest.param("mistral", {"tie_word_embeddings": False}, id="untied"),
        pytest.param("qwen2", {"tie_word_embeddings": False}, id="qwen2"),
        pytest.param("qwen3", {"head_dim": 32}, id="qwen3"),
        pytest.param(
            "llama",
            {"hidden_size": 60, "intermediate_size": 101, "head_dim": 14, "vocab_size": 515},
            id="sizes that fill no vector",
        ),
    ],
)
def test_float32_is_as_near_to_float64_as_transformers_is(
    tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    folder = write_family(tmp_path / "model", family, **changes)
    exact = reference_logits(folder, IDS, torch.float64)
    theirs = (reference_logits(folder, IDS, torch.float32) - exact).abs().max()
    ours = logits_of(native(load_decoder(folder), Precision.FLOAT32))
    assert (ours - exact).abs().max() <= 4 * theirs


@pytest.mark.usefixtures("baseline")
def test_the_baseline_kernels_compute_the_same_model(tmp_path: Path) -> None:
    reference = load_decoder(write_family(tmp_path / "model", "qwen3"))
    assert kernels().isa() == "baseline"
    ours = logits_of(native(reference, Precision.FLOAT32))
    assert (ours - logits_of(reference)).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_int8_is_the_same_model_more_coarsely(tmp_path: Path, family: str) -> None:
    reference = load_decoder(write_family(tmp_path / "model", family))
    exact = logits_of(reference)
    error = (logits_of(native(reference, Precision.INT8)) - exact).std() / exact.std()
    assert 0 < error < 0.05


@given(
    rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=110),
    threads=st.sampled_from([1, 2, 3]),
    precision=st.sampled_from(list(Precision)),
)
@settings(max_examples=60)
def test_the_bits_of_a_row_do_not_depend_on_its_batch_or_the_threads(
    rows: list[int], threads: int, precision: Precision
) -> None:
    model = random_decoder(decoder_config(tiny_config()), seed=0)
    together = native(model, precision).forward(IDS, EVERYONE, attend_to_self, EVERYONE)
    chosen = torch.tensor(rows)
    apart = native(model, precision, threads).forward(
        IDS[chosen], chosen, attend_to_self, torch.arange(len(rows))
    )
    assert torch.equal(apart, together[chosen])


@pytest.mark.parametrize("precision", list(Precision))
def test_a_row_that_is_not_a_number_disturbs_no_other(precision: Precision) -> None:
    model = native(random_decoder(decoder_config(tiny_config())), precision)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o = q.clone()
        o[7] = float("nan")
        return o

    calm = model.forward(IDS, EVERYONE, lambda layer, q, k, v: q, EVERYONE)
    disturbed = model.forward(IDS, EVERYONE, attend, EVERYONE)
    assert disturbed[7].isnan().all()
    others = EVERYONE != 7
    assert torch.equal(disturbed[others], calm[others])


def test_only_the_output_rows_get_logits() -> None:
    model = native(random_decoder(decoder_config(tiny_config())), Precision.FLOAT32)
    everything = logits_of(model)
    some = model.forward(IDS, EVERYONE, attend_causally, torch.tensor([95, 3]))
    assert torch.equal(some, everything[[95, 3]])
    none = torch.tensor([], dtype=torch.int64)
    assert model.forward(IDS, EVERYONE, attend_causally, none).shape == (0, 512)


def test_int8_weights_take_a_quarter_of_float32() -> None:
    model = random_decoder(decoder_config(tiny_config(vocab_size=4096)))
    wide = native(model, Precision.FLOAT32).weight_bytes
    assert native(model, Precision.INT8).weight_bytes < 0.3 * wide


def test_it_keeps_none_of_the_weights_it_was_made_of() -> None:
    reference = random_decoder(decoder_config(tiny_config()))
    model = native(reference, Precision.FLOAT32)
    before = logits_of(model)
    for layer in reference.weights.layers:
        for tensor in (layer.qkv, layer.gate_up, layer.mlp_norm):
            tensor.fill_(float("nan"))
    reference.weights.embedding.fill_(float("nan"))
    reference.weights.norm.fill_(float("nan"))
    assert torch.equal(logits_of(model), before)


@pytest.mark.parametrize(
    ("token_ids", "output_rows", "message"),
    [
        ([0, 512], [0], r"token_ids are in \[0, 512\)"),
        ([0, -1], [0], r"token_ids are in \[0, 512\)"),
        ([0, 1], [2], r"rows are in \[0, 2\)"),
        ([0, 1], [-1], r"rows are in \[0, 2\)"),
    ],
)
def test_what_is_out_of_range_is_refused(
    token_ids: list[int], output_rows: list[int], message: str
) -> None:
    model = native(random_decoder(decoder_config(tiny_config())), Precision.FLOAT32)
    with pytest.raises(ValueError, match=message):
        model.forward(
            torch.tensor(token_ids),
            torch.arange(len(token_ids)),
            attend_to_self,
            torch.tensor(output_rows),
        )


def test_weights_that_are_not_float32_are_refused_by_name() -> None:
    model = random_decoder(decoder_config(tiny_config()))
    model.weights.layers[0].down.data = model.weights.layers[0].down.half()
    with pytest.raises(ValueError, match=r"down is contiguous float32 \[64, 128\] on the cpu"):
        native(model, Precision.INT8)

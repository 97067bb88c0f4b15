"""SmolLM2 on our own kernels: promise (c) in float32, and what int8 costs on one text."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from cluster.kernels import kernels, kernels_available
from cluster.models.folder import ModelFolder, load_decoder
from cluster.models.native import NativeDecoder, Precision
from cluster.text.tokenizer import Tokenizer
from tests.models.dense import attend_causally

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not kernels_available(), reason="the kernels were not built"),
]

NUM_TOKENS = 200


@pytest.fixture(scope="module")
def ids(smollm: ModelFolder) -> Tensor:
    return torch.tensor(Tokenizer.from_folder(smollm.path).encode(topics["with"])[:NUM_TOKENS])


def logits_of(folder: Path, precision: Precision, ids: Tensor) -> Tensor:
    reference = load_decoder(folder)
    model = NativeDecoder(reference.config, reference.weights, kernels().Threads(1), precision)
    rows = torch.arange(len(ids))
    return model.forward(ids, rows, attend_causally, rows)


def test_float32_keeps_promise_c_on_a_text(smollm: ModelFolder, ids: Tensor) -> None:
    ours = logits_of(smollm.path, Precision.FLOAT32, ids)
    reference = AutoModelForCausalLM.from_pretrained(
        smollm.path, attn_implementation="eager", dtype=torch.float32
    )
    with torch.no_grad():
        theirs = reference(ids[None]).logits[0]
        exact = reference.double()(ids[None]).logits[0]
    bound = 4 * (theirs - exact).abs().max()
    assert (ours - exact).abs().max() <= bound
    best = exact.topk(2).values
    ties = best[:, 0] - best[:, 1] < 2 * bound
    assert ((ours.argmax(-1) == exact.argmax(-1)) | ties).all()


def test_int8_costs_little_on_a_text(smollm: ModelFolder, ids: Tensor) -> None:
    wide, narrow = (
        float(cross_entropy(logits_of(smollm.path, precision, ids)[:-1], ids[1:]))
        for precision in (Precision.FLOAT32, Precision.INT8)
    )
    assert wide != narrow
    assert abs(narrow - wide) < 0.03

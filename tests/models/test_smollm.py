"""SmolLM2 from its GGUF, against transformers: weights, and promise (c) on one text."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from cluster.models.catalogue import CATALOGUE
from cluster.models.folder import ModelFolder, load_decoder
from cluster.text.tokenizer import Tokenizer
from tests.models.dense import attend_causally

pytestmark = pytest.mark.model

NUM_TOKENS = 300


def test_facts_come_from_the_gguf(smollm: ModelFolder) -> None:
    config = load_decoder(smollm.path).config
    assert (config.num_layers, config.num_heads, config.num_kv_heads) == (30, 9, 3)
    assert (config.rope_theta, config.rms_norm_eps, config.max_position) == (1e5, 1e-5, 8192)
    assert config.tie_word_embeddings
    assert smollm.fingerprint == CATALOGUE[smollm.name].sha256


def test_weights_equal_those_transformers_reads_from_the_gguf(
    smollm: ModelFolder, smollm_gguf: Path
) -> None:
    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(smollm.path))
    theirs = load_gguf_checkpoint(str(smollm_gguf), return_tensors=True, model_to_load=shell)
    ours = load_file(smollm.path / "model.safetensors")
    assert ours.keys() == theirs["tensors"].keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs["tensors"][name]), name


def test_logits_keep_promise_c_on_a_text(smollm: ModelFolder) -> None:
    """|logit - float64| <= 4 times the error of transformers' float32, and the greedy token differs
    only where the reference's two best are nearer than twice that."""
    ids = torch.tensor(Tokenizer.from_folder(smollm.path).encode(topics["with"])[:NUM_TOKENS])
    rows = torch.arange(len(ids))
    ours = load_decoder(smollm.path).forward(ids, rows, attend_causally, rows)
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

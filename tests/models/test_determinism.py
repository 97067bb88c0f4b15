"""Padding to a measured multiple keeps a row's bits, whatever it is batched with."""

from __future__ import annotations

import pytest
import torch

from cluster.models.config import decoder_config
from cluster.models.decoder import Decoder, random_decoder
from cluster.models.determinism import CANDIDATES, row_multiple_for
from tests.tiny_model import tiny_config


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_has_the_same_bits_in_every_batch_at_the_measured_multiple(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        weights = random_decoder(decoder_config(tiny_config()), seed=3).weights
        multiple = row_multiple_for(weights)
        assert multiple in CANDIDATES
        model = Decoder(decoder_config(tiny_config()), weights, multiple)
        ids, positions = torch.arange(40) + 7, torch.zeros(40, dtype=torch.int64)

        def own_values(
            layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
        ) -> torch.Tensor:
            return v.repeat_interleave(2, dim=1)

        together = model.forward(ids, positions, own_values, torch.arange(40))
        for rows in (1, 2, 3, 6, 13, 39):
            alone = model.forward(ids[:rows], positions[:rows], own_values, torch.arange(rows))
            assert torch.equal(alone, together[:rows])
    finally:
        torch.set_num_threads(before)

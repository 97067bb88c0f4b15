"""Promises (a) and (b) with a cache: whatever is kept, evicted, swapped, damaged, written to disk
and found again after a restart, an answer has the bits of one that was computed whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import pytest

from cluster.engine.forward import Model
from cluster.kernels import kernels, kernels_available
from cluster.knowledge.node import Tier
from cluster.models.config import DecoderConfig, decoder_config
from cluster.models.folder import ModelFolder, load_decoder
from cluster.models.native import NativeDecoder, Precision
from tests.engines import Hands, hands_of_every_backend
from tests.reuse.machines import assert_promises
from tests.tiny_model import tiny_config

CONFIG = decoder_config(tiny_config())
NUM_CASES = 200
FAST = hands_of_every_backend()[min(1, len(hands_of_every_backend()) - 1)]


@pytest.mark.parametrize("part", range(5))
def test_two_hundred_machines_answer_as_if_all_were_computed(part: int, tmp_path: Path) -> None:
    cached: Counter[str] = Counter()
    moved: Counter[tuple[Tier, Tier]] = Counter()
    faults: Counter[Tier] = Counter()
    for seed in range(part, NUM_CASES, 5):
        case = assert_promises(seed, CONFIG, FAST, tmp_path / str(seed))
        for story in case.stories.values():
            cached += Counter(asdict(story.first.cached) if story.first is not None else {})
        for counts in case.counts:
            moved += counts.moved_blocks
            faults += counts.faults
    # Machines on which one of these never happened would show nothing.
    assert cached.keys() == {"device", "host", "disk"}
    assert len(moved) == 4
    assert faults[Tier.HOST]


@pytest.mark.parametrize("hands", hands_of_every_backend(), ids=str)
@pytest.mark.parametrize("seed", range(1000, 1004))
def test_every_backend_answers_as_if_all_were_computed(
    seed: int, hands: Hands, tmp_path: Path
) -> None:
    assert_promises(seed, CONFIG, hands, tmp_path)


@dataclass(frozen=True, slots=True)
class SmolHands(Hands):
    """SmolLM2's own weights."""

    folder: Path = Path()

    def model(self, config: DecoderConfig, seed: int = 5) -> Model:
        return _smollm(self.folder, Precision(self.precision))


@cache
def _smollm(folder: Path, precision: Precision) -> Model:
    decoder = load_decoder(folder)
    return NativeDecoder(decoder.config, decoder.weights, kernels().Threads(1), precision)


@pytest.mark.long
@pytest.mark.model
@pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")
@pytest.mark.parametrize("part", range(20))
def test_two_hundred_machines_with_smollm_do(
    part: int, smollm: ModelFolder, tmp_path: Path
) -> None:
    """Half of them with int8 weights."""
    config = load_decoder(smollm.path).config
    for seed in range(part, NUM_CASES, 20):
        precision = (Precision.FLOAT32, Precision.INT8)[seed // 20 % 2]
        hands = SmolHands(precision.value, folder=smollm.path)
        assert_promises(2000 + seed, config, hands, tmp_path / str(seed))

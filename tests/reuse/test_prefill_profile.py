"""The grid of T(alpha, beta): measured on a forward pass, remembered, corrected by steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cluster.clock import ManualClock, MonotonicClock
from cluster.engine.bench import Bench
from cluster.engine.forward import Computed, EagerForward
from cluster.engine.kv_cache import KvCache, KvShape
from cluster.engine.prefill_profile import prefill_cost
from cluster.engine.step import Step
from cluster.models.config import decoder_config
from tests.engines import hands_of_every_backend
from tests.tiny_model import tiny_config

CONFIG = decoder_config(tiny_config())


@dataclass
class Paced:
    """A forward pass of which a row takes a second, and one more for every 100 keys before it."""

    clock: ManualClock
    num_steps: int = field(default=0)

    def logits(self, step: Step, /) -> Tensor:
        self.num_steps += 1
        rows = len(step.token_ids)
        self.clock.advance(rows * (1.0 + int(step.positions[0]) / 100))
        return torch.zeros(1, 1)

    def compute(self, steps: Sequence[Step], /) -> Computed:
        return Computed(torch.cat([self.logits(step) for step in steps]))


def test_the_grid_is_what_the_forward_pass_takes(tmp_path: Path) -> None:
    clock = ManualClock()
    cost = prefill_cost(Bench(Paced(clock), 64, 1000, 512, clock), None, "any")
    assert cost.alphas == (0, 512, 872)
    assert cost.betas == (1, 16, 128)
    assert cost.prefill_s(0, 16) == 16.0
    assert cost.prefill_s(512, 1) == pytest.approx(6.12)
    # Two chunks of 128, the second after 128 tokens more.
    assert cost.prefill_s(0, 256) == pytest.approx(128 * (1.0 + 2.28))


def test_a_small_pool_and_a_short_context_bound_the_grid() -> None:
    clock = ManualClock()
    cost = prefill_cost(Bench(Paced(clock), 2, 100, 512, clock), None, "any")
    assert cost.betas == (1, 16, 32)
    assert cost.alphas == (0, 68)


def test_a_profile_is_measured_once_for_its_name(tmp_path: Path) -> None:
    clock = ManualClock()
    paced = Paced(clock)
    bench = Bench(paced, 64, 1000, 512, clock)
    first = prefill_cost(bench, tmp_path, "this")
    num_steps = paced.num_steps
    assert prefill_cost(bench, tmp_path, "this") == first
    assert paced.num_steps == num_steps
    prefill_cost(bench, tmp_path, "another")
    assert paced.num_steps == 2 * num_steps


def test_notes_that_are_none_are_measured_again(tmp_path: Path) -> None:
    clock = ManualClock()
    paced = Paced(clock)
    bench = Bench(paced, 64, 1000, 512, clock)
    prefill_cost(bench, tmp_path, "this")
    num_steps = paced.num_steps
    (note,) = tmp_path.iterdir()
    for content in ("", "{}", '{"alphas": [3, 1], "betas": [1], "seconds": [[1], [2]]}', "[1]"):
        note.write_text(content)
        prefill_cost(bench, tmp_path, "this")
        assert paced.num_steps > num_steps
        num_steps = paced.num_steps


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    clock = ManualClock()
    (tmp_path / "file").write_text("")
    bench = Bench(Paced(clock), 64, 1000, 512, clock)
    assert prefill_cost(bench, tmp_path / "file" / "notes", "this").prefill_s(0, 1) == 1.0


def test_a_real_forward_pass_is_measured() -> None:
    hands = hands_of_every_backend()[-1]
    shape = KvShape(CONFIG.num_layers, CONFIG.num_kv_heads, CONFIG.head_dim, hands.kv_dtype)
    forward = EagerForward(hands.model(CONFIG), KvCache(shape, 16), hands.attention())
    bench = Bench(forward, 16, CONFIG.max_position, 512, MonotonicClock())
    cost = prefill_cost(bench, None, "any")
    assert all(seconds > 0 for row in cost.seconds for seconds in row)

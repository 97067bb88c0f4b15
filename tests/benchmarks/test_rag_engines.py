"""Replays in processes of their own, and what engines say about what they found."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from benchmarks.peers.child import EngineFailed, cores_for
from benchmarks.peers.protocol import EngineRefused
from benchmarks.rag_child import Cell, run_cell
from benchmarks.rag_clock import Ask, Patience, Reuse, SkippingClock, replay
from benchmarks.rag_llama_cpp import reuse_of
from benchmarks.rag_ours import block_bytes, load
from benchmarks.rag_tenants import DOCUMENT_TOKENS, timed
from benchmarks.rag_trace import reusable
from benchmarks.rag_transformers import Shelf, shared_tokens

COMMAND = (sys.executable, "-m", "tests.benchmarks.rag_stand_in")
DOCUMENTS = {"a": tuple(range(20, 60)), "b": tuple(range(60, 85)), "c": tuple(range(90, 120))}
# Room for all documents of the replay, and for some.
PLENTY, LITTLE = 64, 6


def cell(weights: str = "float32") -> Cell:
    return Cell("model", weights, 1, tuple(cores_for(1)), 1, 1, "notes")


def asks(*names: str) -> list[Ask]:
    return [
        Ask(i, 10.0 * i, (*(DOCUMENTS[n] for n in each), (5 + i,)), tuple(each), 2)
        for i, each in enumerate(names)
    ]


def test_a_replay_comes_back_from_its_process_though_the_library_prints() -> None:
    told = asks("a", "ab")
    found = run_cell(COMMAND, cell(), told, Patience(), 60.0)
    assert found.version == "1"
    assert [each.prompt_tokens for each in found.served] == [41, 66]
    # On one core, as it was told.
    assert [each.reuse for each in found.served] == [Reuse(41, 0, 0, 1), Reuse(66, 0, 0, 1)]


def test_a_refusal_and_a_death_come_in_words() -> None:
    with pytest.raises(EngineRefused, match="no weights of int3"):
        run_cell(COMMAND, cell("int3"), asks("a"), Patience(), 60.0)
    with pytest.raises(EngineFailed, match=r"ended with 1: .*out of luck"):
        run_cell(COMMAND, cell("broken"), asks("a"), Patience(), 60.0)


def test_a_process_that_takes_too_long_is_ended() -> None:
    with pytest.raises(EngineFailed, match=r"no answer in 0 s"):
        run_cell(COMMAND, cell(), asks("a"), Patience(), 0.01)


def ours(folder: Path, tmp_path: Path, tiers: str, num_blocks: int) -> Cell:
    return replace(
        cell("float32"),
        model=str(folder),
        device_bytes=num_blocks * block_bytes(folder),
        host_bytes=2**20,
        notes=str(tmp_path / "notes"),
        options={"tiers": tiers, "policy": "pgdsf", "placement": "tree"},
    )


def served(cell: Cell, asked: list[Ask]) -> list[Reuse]:
    clock = SkippingClock()
    _, server = load(cell, clock)
    found = [each.reuse for each in replay(server, asked, clock)]
    return [reuse for reuse in found if reuse is not None]


def test_with_room_for_everything_our_engine_finds_what_can_be_found(
    tiny_folder: Path, tmp_path: Path
) -> None:
    asked = asks("ab", "ab", "ac", "b", "acb")
    found = served(ours(tiny_folder, tmp_path, "device,host", PLENTY), asked)
    assert [reuse.device for reuse in found] == [0, 65, 40, 0, 70]
    assert [reuse.computed for reuse in found] == [66, 1, 31, 26, 26]
    prompts = sum(ask.num_tokens for ask in asked)
    assert sum(reuse.device for reuse in found) / prompts == reusable(asked)


def test_with_little_room_less_is_found_and_every_token_is_accounted_for(
    tiny_folder: Path, tmp_path: Path
) -> None:
    asked = asks("ab", "c", "ab", "c")
    found = served(ours(tiny_folder, tmp_path, "device", LITTLE), asked)
    # `ab` and its question fill six blocks: `b` has to leave for `c`, `c` for `b`; `a` stays.
    assert [reuse.device for reuse in found] == [0, 0, 40, 0]
    computed = [ask.num_tokens - reuse.device for ask, reuse in zip(asked, found, strict=True)]
    assert [reuse.computed for reuse in found] == computed


def test_without_tiers_everything_is_computed(tiny_folder: Path, tmp_path: Path) -> None:
    found = served(ours(tiny_folder, tmp_path, "", PLENTY), asks("ab", "ab"))
    assert found == [Reuse(0, 0, 0, 66)] * 2


def test_a_server_says_in_its_last_line_what_it_found() -> None:
    line = {"stop": True, "timings": {"cache_n": 192, "prompt_n": 300, "prompt_ms": 12.5}}
    assert reuse_of(line) == Reuse(192, 0, 0, 300)


def test_what_prompts_share_is_their_beginning() -> None:
    assert shared_tokens((1, 2, 3), (1, 2, 4, 3)) == 2
    assert shared_tokens((1, 2), (1, 2, 4)) == 2
    assert shared_tokens((), (1,)) == 0


def cache_of(num_tokens: int, value: float) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(2):
        keys = torch.full((1, 1, num_tokens, 4), value)
        cache.update(keys, -keys, layer)
    return cache


def test_a_shelf_gives_a_copy_of_the_longest_beginning() -> None:
    shelf = Shelf(2**20)
    shelf.put((1, 2, 3), cache_of(5, 1.0))
    shelf.put((1, 2, 4), cache_of(3, 2.0))
    cache, num_shared = shelf.find((1, 2, 4, 5))
    assert num_shared == cache.get_seq_length() == 3
    assert float(cache.layers[1].keys.mean()) == 2.0
    cache.layers[0].keys.fill_(9.0)
    again, _ = shelf.find((1, 2, 4, 5))
    assert float(again.layers[0].keys.mean()) == 2.0
    # A token is left to compute: nobody drew from the last one's logits.
    assert shelf.find((1, 2, 3))[1] == 2
    assert shelf.find((7,))[1] == 0


def test_a_shelf_that_is_full_gives_up_what_was_used_longest_ago() -> None:
    # Two layers of keys and values, three tokens of four floats.
    shelf = Shelf(2 * (2 * 2 * 3 * 4 * 4))
    for first in (1, 2):
        shelf.put((first, 2, 3), cache_of(3, 1.0))
    shelf.find((1, 2, 3, 4))
    shelf.put((3, 2, 3), cache_of(3, 1.0))
    assert [shelf.find((first, 2, 3, 4))[1] for first in (1, 2, 3)] == [3, 0, 3]


def test_a_tenant_finds_its_own_documents_and_nobody_elses() -> None:
    told = timed(num_trials=5, seed=0)
    assert told.stranger.num_cached == 0
    assert told.own.num_cached == 5 * DOCUMENT_TOKENS
    assert [len(c) for t in (told.stranger, told.own) for c in (t.used, t.unused)] == [5] * 4

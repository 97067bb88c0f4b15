"""What a trace's replay counts, worked out by hand, and held against a cache without limits."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from benchmarks.cache_cases import MIDDLE, RAGPULSE, Case, cases
from benchmarks.cache_replay import Costs, Replay, bound, cache_of, prefill_cost
from benchmarks.cache_sim import replayed
from benchmarks.cache_traces import (
    Order,
    Part,
    Prompt,
    RagPulse,
    Trace,
    data_folder,
    mooncake,
)
from benchmarks.result import CannotRun
from cluster.knowledge.cache import CacheOptions
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Admission, Placement, Tier
from cluster.knowledge.policies import PolicyName
from cluster.request import SegmentSource

COSTS = Costs(prefill_cost())


def part(path: str, num_tokens: int) -> Part:
    """The last letter names the document, all of it the node."""
    source = SegmentSource("c", "" if path == "S" else path[-1])
    return Part(NodeKey(path.encode().ljust(16, b"\0")), source, num_tokens)


def prompt(path: str, num_tokens: int = 16, rest_tokens: int = 16) -> Prompt:
    parts = tuple(part(path[: end + 1], num_tokens) for end in range(len(path)))
    return Prompt(parts, rest_tokens)


def random_prompts(seed: int, count: int) -> list[Prompt]:
    random = Random(seed)
    return [
        prompt("S" + "".join(random.choices("abcd", k=random.randint(0, 5))), 40, 24)
        for _ in range(count)
    ]


def test_what_is_found_is_the_longest_beginning_that_was_there_before() -> None:
    prompts = [prompt("Sab"), prompt("Sba"), prompt("Sabc"), prompt("Sab")]
    most = bound(prompts, COSTS)
    # Nothing; S; S, a, b; S, a, b. Prompts of 4, 4, 5 and 4 pieces of 16 tokens.
    assert most.totals.reused == 7 / 17
    # Without the system prompt: of 2, 2, 3 and 2 documents two and two.
    assert most.totals.documents_reused == 4 / 9
    # Of S, Sa, Sab, Sb, Sba and Sabc the last three.
    assert most.used_once == 3 / 6
    whole = sum(COSTS(0, 16 * count) for count in (4, 4, 5, 4))
    spent = COSTS(0, 64) + COSTS(16, 48) + COSTS(48, 32) + COSTS(48, 16)
    assert most.totals.work_ratio == pytest.approx(whole / spent)
    assert most.totals.work_saved == pytest.approx(1 - spent / whole)


@pytest.mark.parametrize("policy", PolicyName)
def test_a_cache_with_room_for_all_finds_what_the_bound_says(policy: PolicyName) -> None:
    prompts = random_prompts(1, 300)
    brain = cache_of(CacheOptions(policy=policy), 10**6)
    totals = Replay(brain, COSTS).run(prompts)
    assert totals == bound(prompts, COSTS).totals
    brain.check()


@pytest.mark.parametrize("placement", Placement)
@pytest.mark.parametrize("admission", Admission)
def test_a_small_cache_keeps_its_invariants_and_finds_no_more(
    placement: Placement, admission: Admission
) -> None:
    prompts = random_prompts(2, 300)
    options = CacheOptions(placement=placement, admission=admission, host_blocks=40)
    brain = cache_of(options, 16 * 30)
    totals = Replay(brain, COSTS).run(prompts)
    brain.check()
    most = bound(prompts, COSTS).totals
    assert 0 < totals.reused < most.reused
    assert totals.found[Tier.HOST] > 0
    assert totals.seconds > most.seconds


def test_what_left_the_device_is_found_on_the_host_and_copied_out_once() -> None:
    brain = cache_of(CacheOptions(host_blocks=8), 16 * 3)
    replay = Replay(brain, COSTS)
    for name in "Sa", "Sb", "Sa", "Sb", "Sa":
        replay.serve(prompt(name))
    # S stays, and is copied with the first of them; a and b take in turn the block that is left.
    assert replay.totals.found == {Tier.DEVICE: 4 * 16, Tier.HOST: 3 * 16}
    assert brain.counts.moved_blocks[Tier.DEVICE, Tier.HOST] == 3
    assert brain.counts.moved_blocks[Tier.HOST, Tier.DEVICE] == 3


def test_a_prompt_longer_than_the_device_is_computed_and_leaves_nothing() -> None:
    brain = cache_of(CacheOptions(), 16 * 3)
    totals = Replay(brain, COSTS).run([prompt("Sab"), prompt("Sab")])
    assert (totals.num_refused, totals.reused, totals.work_ratio) == (2, 0.0, 1.0)
    assert not brain.tree.nodes


def test_seconds_per_token_are_those_of_the_two_speeds() -> None:
    cost = prefill_cost()
    assert cost.prefill_s(0, 16) / 16 == pytest.approx(1 / 400, rel=0.01)
    assert cost.prefill_s(2048, 16) / 16 == pytest.approx(1 / 300, rel=0.01)


def write(folder: Path, name: str, *lines: object) -> None:
    (folder / name).write_text("\n\n".join(json.dumps(line) for line in lines) + "\n")


def ragpulse(folder: Path) -> RagPulse:
    def request(timestamp: str, system: list[int], passages: list[int]) -> object:
        kinds = {"history": [30], "web_search": [50], "user_input": [40]}
        hash_ids = {"sys_prompt": system, "passages_ids": passages, **kinds}
        return {"timestamp": timestamp, "hash_ids": hash_ids}

    write(folder, "0_trace.jsonl", request("100", [1, 3], [21, 20]), request("9", [1, 2], [20, 21]))
    for file, name, lengths in (
        ("1_sys_prompt", "sys_prompt_id", {1: 512, 2: 5, 3: 7}),
        ("2_passages", "passage_id", {20: 100, 21: 200}),
        ("3_history", "history_id", {30: 11}),
        ("4_user_input", "user_input_id", {40: 13}),
        ("5_web_search", "web_search_id", {50: 17}),
    ):
        lines = [{name: each, "token_length": length} for each, length in lengths.items()]
        write(folder, f"{file}.jsonl", *lines)
    return RagPulse.read(folder)


def lengths(trace: Trace) -> list[list[int]]:
    return [[*(part.num_tokens for part in p.parts), p.rest_tokens] for p in trace.prompts]


def test_ragpulse_is_sorted_by_time_and_what_changes_stands_last(tmp_path: Path) -> None:
    data = ragpulse(tmp_path)
    retrieval = data.trace(Order.RETRIEVAL)
    assert lengths(retrieval) == [[512, 100, 200, 46], [512, 200, 100, 48]]
    assert bound(retrieval.prompts, COSTS).totals.found.total() == 512
    assert bound(retrieval.prompts, COSTS).totals.document_tokens == 600
    canonical = data.trace(Order.CANONICAL)
    assert lengths(canonical) == [[512, 100, 200, 46], [512, 100, 200, 48]]
    assert bound(canonical.prompts, COSTS).totals.documents_reused == 0.5
    sent = data.trace(Order.SENT)
    assert lengths(sent) == [[512, 5, 100, 200, 41], [512, 7, 200, 100, 41]]


def test_the_last_block_of_a_conversation_may_be_partial(tmp_path: Path) -> None:
    lines = ({"input_length": n, "hash_ids": ids} for n, ids in ((600, [0, 1]), (1024, [0, 2])))
    write(tmp_path, "conversation_trace.jsonl", *lines)
    trace = mooncake(tmp_path)
    assert lengths(trace) == [[512, 88, 0], [512, 512, 0]]
    assert bound(trace.prompts, COSTS).totals.reused == 512 / 1624


def test_without_the_data_it_says_which_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("THOTH_DATA", raising=False)
    with pytest.raises(CannotRun, match="THOTH_DATA does not name a folder with ragpulse"):
        data_folder("ragpulse")
    monkeypatch.setenv("THOTH_DATA", str(tmp_path))
    with pytest.raises(CannotRun, match="mooncake"):
        data_folder("mooncake")
    (tmp_path / "ragpulse").mkdir()
    assert data_folder("ragpulse") == tmp_path / "ragpulse"


def test_no_case_is_run_twice_and_each_says_how_it_differs() -> None:
    wanted = cases()
    assert len({(c.trace, c.order, c.tiers, c.policy, c.setting) for c in wanted}) == len(wanted)
    case = Case.of(RAGPULSE)
    assert case.setting == "default"
    assert case.forgetful.setting == "no half life, 0 ghosts"
    assert case.options.host_blocks * 16 == MIDDLE[RAGPULSE].host_tokens


def test_a_case_is_replayed_with_its_tiers() -> None:
    trace = Trace(RAGPULSE, Order.RETRIEVAL, tuple(random_prompts(3, 50)))
    result = replayed(Case.of(RAGPULSE), trace)
    assert result.totals == bound(trace.prompts, COSTS).totals
    assert (result.moved_out, result.moved_in, result.host_evictions) == (0, 0, 0)

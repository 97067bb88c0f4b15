"""The trace is made shorter and faster, and stays the trace in everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.rag_trace import LENGTHS, Trace, at_rate, load_trace, read_trace, reusable
from benchmarks.result import CannotRun

VOCABULARY = 1000
# Tokens of every part, by kind.
PARTS = {
    "sys_prompt": {1: 80, 2: 4},
    "passages_ids": {10: 160, 11: 88, 12: 240},
    "history": {20: 16},
    "user_input": {30: 9, 31: 9},
    "web_search": {40: 512},
}
# Not in order of time, with a blank line, as in the original.
REQUESTS = [
    ("130", 40, [1, 2], [10, 11], [20], [30], []),
    ("100", 800, [1, 2], [10, 12], [20], [31], []),
    ("160", 3, [1, 2], [11, 10], [], [30], [40]),
    ("220", 8, [1, 2], [10, 11, 12], [20], [30], []),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind, (file, name) in LENGTHS.items():
        lines = [json.dumps({name: i, "token_length": n}) for i, n in PARTS[kind].items()]
        (tmp_path / file).write_text("\n".join(lines) + "\n")
    (tmp_path / "0_trace.jsonl").write_text("\n\n".join(map(_line, REQUESTS)) + "\n")
    return tmp_path


def _line(request: tuple[str, int, list[int], list[int], list[int], list[int], list[int]]) -> str:
    at, output, system, passages, history, question, web = request
    hash_ids = {
        "sys_prompt": system,
        "passages_ids": passages,
        "history": history,
        "web_search": web,
        "user_input": question,
    }
    return json.dumps({"timestamp": at, "output_length": output, "hash_ids": hash_ids})


@pytest.fixture
def trace(folder: Path) -> Trace:
    return read_trace(folder)


def test_lengths_are_an_eighth_and_never_nothing(trace: Trace) -> None:
    first, second, third, _ = trace.asks(4, VOCABULARY, seed=0)
    # 80 / 8, 4 / 8, 160 / 8, 240 / 8, then 16 / 8 + 9 / 8 of the request's own.
    assert [len(segment) for segment in first.segments] == [10, 1, 20, 30, 3]
    assert [len(segment) for segment in second.segments] == [10, 1, 20, 11, 3]
    assert [len(segment) for segment in third.segments] == [10, 1, 11, 20, 65]
    assert [ask.max_tokens for ask in (first, second, third)] == [100, 5, 1]


def test_shared_parts_have_names_in_the_order_of_retrieval(trace: Trace) -> None:
    first, _, third, _ = trace.asks(4, VOCABULARY, seed=0)
    system = ("sys_prompt/1", "sys_prompt/2")
    assert first.names == (*system, "passages_ids/10", "passages_ids/12")
    assert third.names == (*system, "passages_ids/11", "passages_ids/10")


def test_a_passage_has_the_same_ids_everywhere_and_a_question_its_own(trace: Trace) -> None:
    first, second, third, fourth = trace.asks(4, VOCABULARY, seed=0)
    assert first.segments[2] == second.segments[2] == third.segments[3]
    # The same question of the trace, asked twice.
    assert second.segments[-1] != fourth.segments[-1]
    assert all(100 <= token_id < VOCABULARY for token_id in first.ids)
    (other, *_) = trace.asks(1, VOCABULARY, seed=1)
    assert other.segments[2] != first.segments[2]


def test_arrivals_are_stretched_to_the_rate_and_keep_their_rhythm(trace: Trace) -> None:
    asks = trace.asks(4, VOCABULARY, seed=0)
    assert [ask.at_s for ask in asks] == [100.0, 130.0, 160.0, 220.0]
    # Three gaps of 1 / 0.5 s on average: 120 s become 6 s.
    assert [ask.at_s for ask in at_rate(asks, 0.5)] == [0.0, 1.5, 3.0, 6.0]
    assert [ask.segments for ask in at_rate(asks, 0.5)] == [ask.segments for ask in asks]


def test_requests_of_one_moment_arrive_together(trace: Trace) -> None:
    (only,) = at_rate(trace.asks(1, VOCABULARY, seed=0), 3.0)
    assert only.at_s == 0.0


def test_only_the_same_documents_behind_the_same_ones_can_be_reused(trace: Trace) -> None:
    asks = trace.asks(4, VOCABULARY, seed=0)
    # Second: the system's 11 and passage 10. Third: the system's alone, as 11 stands in 10's place.
    # Fourth: the second's documents, and nobody had 12 behind them.
    hits = 0 + (11 + 20) + 11 + (11 + 20 + 11)
    total = 64 + 45 + 107 + (11 + 20 + 11 + 30 + 3)
    assert reusable(asks) == pytest.approx(hits / total)


def test_without_the_trace_the_benchmark_cannot_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path
) -> None:
    monkeypatch.setenv("THOTH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(CannotRun, match="THOTH_DATA"):
        load_trace()
    monkeypatch.delenv("THOTH_DATA")
    with pytest.raises(CannotRun, match="THOTH_DATA"):
        load_trace()

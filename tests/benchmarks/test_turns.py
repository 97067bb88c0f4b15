"""Peers that are not installed are named, and the others are measured all the same."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.peers import catalogue, turns
from benchmarks.peers.catalogue import VARIANTS, Places, Precision, Variant
from benchmarks.peers.cells import PREFILL_512, Cell, Point
from benchmarks.peers.child import Child, EngineFailed
from benchmarks.peers.protocol import EngineRefused, Sample
from benchmarks.peers.turns import Bench, Found, Size, take_turns

DECODE = Cell("decode", 1, num_tokens=2)
HERE = Variant("here", Precision.FLOAT32, "here", catalogue.FOLDER)
GONE = Variant("gone", Precision.FLOAT32, "gone", "gone.gguf")
FRAIL = Variant("frail", Precision.FLOAT32, "frail", catalogue.FOLDER)


class StandIn(Child):
    """Answers without a process; `frail` does not survive its first decode."""

    def __init__(self, name: str, asked: list[str]) -> None:
        self.version = f"{name} 1"
        self._name, self._asked = name, asked

    def prefill(self, num_tokens: int) -> Sample:
        self._asked.append(self._name)
        return Sample(num_tokens, 1.0, 1.0)

    def decode(self, streams: int, num_tokens: int) -> Sample:
        if self._name == "frail":
            raise EngineFailed("ended with -9")
        return Sample(streams * num_tokens, 1.0, 1.0)

    def close(self) -> None:
        self._asked.append(f"{self._name} closed")


def measured(
    variants: Sequence[Variant], monkeypatch: pytest.MonkeyPatch
) -> tuple[Found, list[str]]:
    asked: list[str] = []
    monkeypatch.setattr(turns, "Child", lambda command, spec: _stand_in(command.module, asked))
    bench = Bench(Places(Path("nowhere")), Path("folder"), (), Console(file=io.StringIO()))
    found = Found()
    take_turns(bench, Size((1,), (PREFILL_512, DECODE), 2), 1, variants, found)
    return found, asked


def _stand_in(module: str, asked: list[str]) -> StandIn:
    return StandIn(module.rpartition(".")[2], asked)


def test_a_peer_that_is_not_installed_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, _ = measured([HERE, GONE], monkeypatch)
    assert found.missing == {"gone": "gone.gguf is not installed: python -m benchmarks.peers"}
    assert found.versions == {"here": "here 1"}
    assert found.rates()["here"][Point(1, "prefill_512")].per_s == 512.0


def test_engines_are_asked_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    _, asked = measured([HERE, FRAIL], monkeypatch)
    assert asked[:4] == ["here", "frail", "here", "frail"]


def test_a_cell_that_is_too_dear_for_an_engine_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = measured(
        [HERE, replace(GONE, source=HERE.source, skips=("prefill_512",))], monkeypatch
    )
    assert list(found.rates()["gone"]) == [Point(1, "decode_1")]
    assert len(found.rates()["here"]) == 2


def test_an_engine_that_fails_keeps_what_it_reached_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, asked = measured([FRAIL, HERE], monkeypatch)
    assert found.missing == {"frail": "decode of 1 stream, 1 thread: ended with -9"}
    assert list(found.rates()["frail"]) == [Point(1, "prefill_512")]
    assert len(found.samples["here"][Point(1, "decode_1")]) == 2
    assert asked.count("here closed") == 1
    assert "frail closed" in asked


def test_of_every_variant_it_is_known_what_it_needs(tmp_path: Path) -> None:
    places = Places(tmp_path)
    absent = {v.name: {p.name for p in places.absent(v)} for v in VARIANTS}
    assert absent["ours float32"] == set()
    assert absent["transformers float32"] == set()
    assert absent["llama.cpp Q8_0"] == {"llama-bench", "Q8_0.gguf"}
    assert absent["OpenVINO Q4_1"] == {"python"}
    for name in ("llama-bench", "Q8_0.gguf"):
        folder = places.programs if name == "llama-bench" else places.models
        folder.mkdir(parents=True)
        (folder / name).touch()
    (ready,) = (v for v in VARIANTS if v.name == "llama.cpp Q8_0")
    assert places.absent(ready) == []


def test_a_refusal_is_kept_in_the_engines_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Child:
        raise EngineRefused("weights: int8 is unknown")

    bench = Bench(Places(Path("nowhere")), Path("folder"), (), Console(file=io.StringIO()))
    monkeypatch.setattr(turns, "Child", refuse)
    found = Found()
    take_turns(bench, Size((1,), (PREFILL_512,), 1), 1, [HERE], found)
    assert found.missing == {"here": "weights: int8 is unknown"}
    assert found.rates() == {}

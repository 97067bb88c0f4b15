"""An engine's process answers orders, refuses in words, and may die without harm to the others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peers.child import Child, Command, EngineFailed, cores_for
from benchmarks.peers.protocol import EngineRefused, Sample, Spec

COMMAND = Command(Path(sys.executable), "tests.benchmarks.fake_engine")


def spec(weights: str = "float32") -> Spec:
    return Spec("model", weights, 1, tuple(cores_for(1)), tuple(range(600)))


def test_orders_are_answered_though_the_library_prints() -> None:
    with Child(COMMAND, spec()) as engine:
        assert engine.version == "1"
        assert engine.prefill(512) == Sample(512, 2.0, 1.0)


def test_an_engine_runs_on_as_many_cores_as_it_has_threads() -> None:
    with Child(COMMAND, spec()) as engine:
        assert engine.decode(streams=8, num_tokens=2) == Sample(16, 1.0, 1.0)


def test_a_refusal_comes_in_the_engines_words() -> None:
    with pytest.raises(EngineRefused, match="no weights of int3"):
        Child(COMMAND, spec("int3"))


def test_an_engine_that_cannot_be_loaded_fails_with_its_last_words() -> None:
    with pytest.raises(EngineFailed, match=r"ended with 1: .*out of luck"):
        Child(COMMAND, spec("broken"))


def test_an_engine_that_dies_at_work_fails_with_its_last_words() -> None:
    with Child(COMMAND, spec()) as engine:
        with pytest.raises(EngineFailed, match="nothing to decode"):
            engine.decode(streams=8, num_tokens=0)
        with pytest.raises(EngineFailed, match="ended with 1"):
            engine.prefill(512)


def test_a_library_that_is_not_there_is_a_refusal() -> None:
    with pytest.raises(EngineRefused, match="openvino_genai"):
        Child(Command(Path(sys.executable), "benchmarks.peers.with_openvino"), spec())


def test_streams_have_prompts_of_their_own() -> None:
    told = spec()
    assert told.prompt(4) == [0, 1, 2, 3]
    assert told.prompt(4, stream=2) == [34, 35, 36, 37]
    with pytest.raises(ValueError, match="too few"):
        told.prompt(600, stream=1)

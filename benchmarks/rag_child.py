"""A replay in a process of its own, on cores of its own: a cell goes in, what was served comes out.

    benchmark -> engine   the Cell, one line of JSON
    engine -> benchmark   {"version", "served": [...]}, or {"refused": why}

This module is imported inside the environments of the peers: it needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.child import ROOT, EngineFailed, environment
from benchmarks.peers.protocol import EngineRefused
from benchmarks.rag_clock import (
    Ask,
    Patience,
    Reuse,
    Served,
    Server,
    SkippingClock,
    replay,
)

# How much of what a process said on its way out is worth repeating.
LAST_WORDS = 300


@dataclass(frozen=True, slots=True)
class Cell:
    """What a process is started with. `model` is a file or a folder, as the engine reads it;
    `programs` the folder of those that it runs; `notes` one that lives as long as the benchmark.
    The KV of an engine may take `device_bytes`, and `host_bytes` beside them. `options` are the
    engine's own."""

    model: str
    weights: str
    threads: int
    cores: tuple[int, ...]
    device_bytes: int
    host_bytes: int
    notes: str
    programs: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replayed:
    version: str
    served: Sequence[Served]


Load = Callable[[Cell, SkippingClock], tuple[str, Server]]


def run_cell(
    command: Sequence[str], cell: Cell, asks: Sequence[Ask], patience: Patience, limit_s: float
) -> Replayed:
    """Raises EngineRefused when it refuses, EngineFailed when it dies or takes too long."""
    order = {"cell": asdict(cell), "asks": [asdict(a) for a in asks], "patience": asdict(patience)}
    answer = _call(command, json.dumps(order), cell.threads, limit_s)
    if "refused" in answer:
        raise EngineRefused(answer["refused"])
    served = [
        Served(**{**each, "reuse": Reuse(**each["reuse"]) if each["reuse"] else None})
        for each in answer["served"]
    ]
    if not served:
        raise EngineFailed("nobody was served")
    return Replayed(answer["version"], served)


def _call(command: Sequence[str], order: str, threads: int, limit_s: float) -> dict[str, Any]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=_environment(command, threads),
        # A group of its own, with whatever programs it runs itself.
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(order + "\n", timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise EngineFailed(f"no answer in {limit_s:.0f} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        words = " ".join(errors.split())[-LAST_WORDS:]
        raise EngineFailed(f"ended with {process.returncode}: {words}")
    answer: dict[str, Any] = json.loads(said)
    return answer


def _environment(command: Sequence[str], threads: int) -> dict[str, str]:
    """As in the other comparison; the project's own interpreter finds packages where this one
    does."""
    found = environment(threads)
    inherited = os.environ.get("PYTHONPATH")
    if inherited and command[0] == sys.executable:
        found["PYTHONPATH"] = os.pathsep.join([found["PYTHONPATH"], inherited])
    return found


def serve(load: Load) -> None:
    """The life of an engine's process. `load` may raise EngineRefused."""
    # Libraries print where they like: the answer gets a descriptor that none of them knows.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    cell = Cell(**{**order["cell"], "cores": tuple(order["cell"]["cores"])})
    asks = [_ask(raw) for raw in order["asks"]]
    # Before the library is imported: it counts the cores it may use once.
    os.sched_setaffinity(0, cell.cores)
    clock = SkippingClock()
    try:
        version, server = load(cell, clock)
    except (EngineRefused, ImportError) as error:
        answer: dict[str, Any] = {"refused": str(error)}
    else:
        served = replay(server, asks, clock, Patience(**order["patience"]))
        answer = {"version": version, "served": [asdict(each) for each in served]}
    with answers:
        answers.write(json.dumps(answer))


def _ask(raw: Mapping[str, Any]) -> Ask:
    segments = tuple(tuple(segment) for segment in raw["segments"])
    return Ask(**{**raw, "segments": segments, "names": tuple(raw["names"])})


def command_of(python: Path, module: str) -> list[str]:
    return [str(python), "-m", f"benchmarks.{module}"]

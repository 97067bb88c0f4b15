"""Who runs out of a home: claims, stale files, and processes by identity."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.cli.processes import (
    ProcessId,
    family,
    identify,
    is_alive,
    kill_all,
    terminate,
    wait_until_gone,
)
from actors.cli.runfile import Run, RunFile, config_digest, myself
from actors.roles import Endpoints
from cluster.config import GatewayConfig, ThothConfig
from cluster.errors import Refused

ENDPOINTS = Endpoints("http://127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
CONFIG = ThothConfig()


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A process with a child of its own; both sleep. It says the child's pid."""
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        yield run
        found = identify(run.pid)
        if found is not None:
            kill_all(family(found))


def test_a_claim_is_announced_and_released(tmp_path: Path) -> None:
    run_file = RunFile(tmp_path)
    run = run_file.claim(CONFIG)
    assert run_file.read() == run
    assert run.is_alive
    assert run.endpoints is None
    ready = run_file.announce(run, ENDPOINTS)
    assert run_file.read() == ready
    assert ready.endpoints == ENDPOINTS
    assert myself() in ready.family
    run_file.release(run)
    assert run_file.read() is None
    run_file.release(run)
    assert list(run_file.folder.iterdir()) == []


def test_a_second_claim_is_refused_naming_the_pid(tmp_path: Path) -> None:
    run_file = RunFile(tmp_path)
    run = run_file.claim(CONFIG)
    with pytest.raises(Refused, match=f"pid {run.process.pid}") as caught:
        run_file.claim(CONFIG)
    assert caught.value.field == "home"
    assert run_file.read() == run


def rewrite(run_file: RunFile, run: Run, process: ProcessId) -> None:
    stale = replace(run, process=process)
    said = json.loads(run_file.path.read_text())
    said["process"] = {"pid": stale.process.pid, "started_s": stale.process.started_s}
    run_file.path.write_text(json.dumps(said))


@pytest.mark.parametrize("pid_offset", [0, 10**8])
def test_a_stale_file_is_replaced(tmp_path: Path, pid_offset: int) -> None:
    """The pid is gone, or belongs to a process that started at another time."""
    run_file = RunFile(tmp_path)
    run = run_file.claim(CONFIG)
    rewrite(run_file, run, ProcessId(run.process.pid + pid_offset, run.process.started_s - 5.0))
    held = run_file.read()
    assert held is not None
    assert not held.is_alive
    assert run_file.claim(CONFIG).process == myself()


def test_a_file_that_is_garbage_is_no_run(tmp_path: Path) -> None:
    run_file = RunFile(tmp_path)
    run_file.folder.mkdir()
    for garbage in ("", "{", "[]", '{"process": 3}'):
        run_file.path.write_text(garbage)
        assert run_file.read() is None
    assert run_file.claim(CONFIG).is_alive


def test_a_file_of_another_run_is_not_released(tmp_path: Path) -> None:
    run_file = RunFile(tmp_path)
    run = run_file.claim(CONFIG)
    run_file.release(replace(run, process=ProcessId(1, 0.0)))
    assert run_file.read() == run


def test_the_digest_tells_configurations_apart() -> None:
    other = ThothConfig(gateway=GatewayConfig(http_port=1))
    assert config_digest(CONFIG) == config_digest(ThothConfig())
    assert config_digest(CONFIG) != config_digest(other)


def test_a_family_is_found_and_killed(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())
    root = identify(parent.pid)
    assert root is not None
    everyone = family(root)
    assert [process.pid for process in everyone] == [parent.pid, child_pid]
    assert wait_until_gone(everyone, 0.1) == everyone
    terminate(root)
    # The child outlives its parent, and is still known.
    assert [process.pid for process in wait_until_gone(everyone, 1.0)] == [child_pid]
    assert [process.pid for process in kill_all(everyone)] == [child_pid]
    assert not any(map(is_alive, everyone))
    assert kill_all(everyone) == ()


def test_a_pid_that_was_taken_again_is_another_process() -> None:
    me = myself()
    assert is_alive(me)
    assert not is_alive(ProcessId(me.pid, me.started_s - 1.0))
    assert identify(10**8) is None

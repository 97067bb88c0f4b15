"""Where requests lie and what that takes, as a user sees it: of a worker whose device is too small
for its requests, and who lets them lie on the host."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.cli.runfile import RunFile
from cluster.client import Client
from tests.cli.running import thoth
from tests.telemetry.chrome import check_trace, complete

NUM_REQUESTS = 6


@pytest.fixture(scope="module")
def home(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A cluster that has answered more than its device has room for."""
    folder = tmp_path_factory.mktemp("home")
    settings = ["--set", f"home={folder}"]
    chosen = {
        "model.source": tiny_folder,
        "gateway.http_port": 0,
        "gateway.grpc_port": 0,
        "gpu_worker.kv_blocks": 24,
        "offload.mode": "neo",
        "cache.host_bytes": 16 * 2**20,
    }
    own = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    up = thoth("up", "--local", "--detach", *settings, *own)
    assert up.returncode == 0, up.stderr
    run = RunFile(folder).read()
    assert run is not None
    assert run.endpoints is not None
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        list(pool.map(answer, [run.endpoints.grpc] * NUM_REQUESTS, range(NUM_REQUESTS)))
    yield settings
    assert thoth("down", *settings).returncode == 0


def answer(endpoint: str, number: int) -> None:
    with Client(endpoint) as client:
        client.ask(f"Number {number}?", max_tokens=200, temperature=0.0, ignore_eos=True)


@pytest.fixture(scope="module")
def report(home: list[str]) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(thoth("status", "--json", *home).stdout)
    return said


def test_status_shows_both_loads_of_a_node(home: list[str], report: dict[str, Any]) -> None:
    [worker] = report["loads"]
    load = worker["load"]
    assert load["num_blocks"] == 24
    assert load["num_host_blocks"] > 0
    assert load["num_lent_host_blocks"] == load["num_on_host"] == 0
    num_host = load["num_host_blocks"]
    assert f"{num_host} of {num_host}" in thoth("status", *home).stdout


def test_a_trace_shows_what_the_host_did_and_what_was_predicted(home: list[str]) -> None:
    done = thoth("trace", "--seconds", "300", *home)
    assert done.returncode == 0, done.stderr
    events = json.loads(done.stdout)["traceEvents"]
    check_trace(events)
    steps = [e for e in complete(events) if e["name"].startswith("step ")]
    assert {step["args"]["kind"] for step in steps} & {"one_batch", "two_batch"}
    assert all(s["args"]["predicted_s"] > 0.0 for s in steps if s["args"]["rows"])
    on_host = [e for e in complete(events) if e["name"].startswith("attention of")]
    assert sum(event["dur"] for event in on_host) > 0.0
    beside = [e for e in complete(events) if e["name"].startswith("sub-batch")]
    assert any(event["args"]["host_tokens"] for event in beside)
    ended = [e for e in events if e["ph"] == "e" and e["args"]["has_ended"]]
    assert len(ended) == NUM_REQUESTS


def test_the_metrics_add_up_to_what_the_trace_shows(
    home: list[str], report: dict[str, Any]
) -> None:
    [member] = [s["member"] for s in report["seats"] if s["member"]["role"] == "gpu_worker"]
    with urllib.request.urlopen(f"http://{member['metrics_address']}/metrics") as page:
        text = page.read().decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]

    def read(name: str, **labels: str) -> float:
        found = [s for s in samples if s.name == name and labels.items() <= s.labels.items()]
        return sum(s.value for s in found)

    events = complete(json.loads(thoth("trace", "--seconds", "300", *home).stdout)["traceEvents"])
    stages = {"linear": "linear", "attention": "device_attention", "waiting": "waited"}
    for name, stage in stages.items():
        drawn_s = sum(e["args"]["seconds"] for e in events if e["name"] == name)
        assert read("thoth_stage_seconds_total", stage=stage) == pytest.approx(drawn_s)
    host_s = sum(e["args"]["seconds"] for e in events if e["name"].startswith("attention of"))
    assert read("thoth_step_busy_seconds_total", side="host") == pytest.approx(host_s)
    assert 0.0 < host_s < read("thoth_timed_step_seconds_total")
    computing = [e for e in events if e["args"].get("rows") and e["name"].startswith("step ")]
    assert read("thoth_steps_total") == len(computing)
    assert read("thoth_paged_bytes_total") > 0
    assert read("thoth_kv_blocks", tier="host", state="used") == 0

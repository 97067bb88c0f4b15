"""A real Prometheus finds real metrics pages in the supervisor's list, and every panel has data."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.cli.demo import free_port
from cluster.scheduling.membership import Member, Role
from cluster.telemetry.catalogue import CATALOGUE
from cluster.telemetry.declared import Counter, Gauge, Histogram
from cluster.telemetry.discovery import write_targets
from cluster.telemetry.metrics import Metrics, MetricsServer
from tests.house.dashboards import ROOT, concrete, queries

PROMETHEUS = ROOT / "deploy" / "prometheus"
PATIENCE_S = 90.0

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not installed (Debian package `prometheus`)",
)


def happen(metrics: Metrics, declared: Sequence[Counter | Gauge | Histogram]) -> None:
    """Something of everything: each series grows, or holds a value."""
    for each in declared:
        children = each.children or ((),)
        for values in children:
            match each:
                case Counter():
                    counter = metrics.counter(each)
                    (counter.labels(*values) if values else counter).inc()
                case Gauge():
                    gauge = metrics.gauge(each)
                    (gauge.labels(*values) if values else gauge).set(3)
                case Histogram():
                    histogram = metrics.histogram(each)
                    (histogram.labels(*values) if values else histogram).observe(0.02)


@asynccontextmanager
async def actor(role: Role, name: str, metrics: Metrics) -> AsyncIterator[Member]:
    server = MetricsServer(metrics, "127.0.0.1")
    address = await server.start()
    try:
        yield Member(role, name, "i1", "", address, is_ready=True, pid=os.getpid(), node="n1")
    finally:
        await server.stop()


def write_config(folder: Path, targets: Path) -> Path:
    """The shipped configuration, scraping faster and reading the test's list."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    job["file_sd_configs"][0]["files"] = [str(targets)]
    shutil.copy(PROMETHEUS / "rules.yml", folder)
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    return file


@contextmanager
def prometheus(config: Path, port: int) -> Iterator[str]:
    """Runs until the block ends; gives the address of its API."""
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (config.parent / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def ask(address: str, expression: str) -> list[Any]:
    """The result vector of an instant query; empty while Prometheus is not up."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?{query}", timeout=5) as answer:
            result: list[Any] = json.load(answer)["data"]["result"]
            return result
    except urllib.error.URLError as error:
        if isinstance(error, urllib.error.HTTPError) and error.code != 503:
            with error:
                raise AssertionError(f"{expression}: {error.read().decode()}") from error
        return []


def has_data(result: list[Any]) -> bool:
    return any(not math.isnan(float(sample["value"][1])) for sample in result)


async def test_every_panel_has_data_from_a_real_prometheus(tmp_path: Path) -> None:
    gateway, worker = Metrics(Role.GATEWAY), Metrics(Role.GPU_WORKER)
    half = len(CATALOGUE) // 2
    targets = tmp_path / "run" / "prometheus-targets.json"
    missing = [query.expression for query in queries()]
    until_s = time.monotonic() + PATIENCE_S
    async with (
        actor(Role.GATEWAY, "gateway-a", gateway) as first,
        actor(Role.GPU_WORKER, "gpu_worker-0", worker) as second,
    ):
        write_targets(targets, [first, second])
        with prometheus(write_config(tmp_path, targets), free_port()) as address:
            while missing and time.monotonic() < until_s:
                happen(gateway, CATALOGUE[:half])
                happen(worker, CATALOGUE[half:])
                await asyncio.sleep(0.5)
                missing = [
                    expression
                    for expression in missing
                    if not has_data(await asyncio.to_thread(ask, address, concrete(expression)))
                ]
            ups = ask(address, 'up{job="thoth"}')
    assert not missing
    assert {up["metric"]["actor"] for up in ups} == {"gateway-a", "gpu_worker-0"}
    assert {up["metric"]["actor_role"] for up in ups} == {"gateway", "gpu_worker"}

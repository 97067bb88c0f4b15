"""Two nodes of one Ray cluster: the attention worker is on the second, which is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from actors.ray_environment import LOCAL
from cluster.kernels import kernels_available
from tests.actors.conftest import Running
from tests.actors.test_attention_workers import (
    assert_attends,
    attended,
    is_attached,
    sample,
    sink,
    under_load,
    wait_until,
)
from tests.house.source import ROOT

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not kernels_available(), reason="the kernels were not built"),
]

RESOURCE = "attention"


def address_of_ray(cluster: Running) -> str:
    """Where further nodes come to."""
    lines = [" ".join(p.cmdline()) for p in psutil.Process(cluster.pid).children(recursive=True)]
    (found,) = {m[1] for line in lines if (m := re.search(r"--gcs-address=(\S+)", line))}
    return found


@contextmanager
def second_node(cluster: Running, log: Path) -> Iterator[psutil.Popen]:
    """A node that has nothing but the resource of attention workers."""
    command = [sys.executable, "-m", "tests.actors.ray_node", address_of_ray(cluster), RESOURCE]
    with log.open("wb") as output:
        node = psutil.Popen(
            command,
            env=os.environ | LOCAL,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    try:
        yield node
    finally:
        kill(node)


def kill(node: psutil.Popen) -> None:
    """All of it at once, as when the power fails."""
    node.stdin.close()
    if not node.is_running():
        return
    family = [*node.children(recursive=True), node]
    # Some may end by themselves meanwhile.
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=20)


def test_a_worker_on_a_second_node_attends_and_its_loss_is_survived(
    tiny_folder: Path, tmp_path: Path
) -> None:
    settings = {"attention_worker.resource": RESOURCE}
    with attended(tiny_folder, tmp_path / "home", **settings) as cluster:
        expected = sink(cluster)
        assert not is_attached(cluster)
        with second_node(cluster, tmp_path / "first.log") as node:
            wait_until(lambda: is_attached(cluster))
            members = {name: status.member for name, status in cluster.members().items()}
            assert members["attention_worker-0"].node != members["gpu_worker-0"].node
            assert_attends(cluster, expected)
            assert sample(cluster, "attention_worker-0", "thoth_attention_clients") == 1
            lost = sample(cluster, "gpu_worker-0", "thoth_attention_lost_total")
            with under_load(cluster, expected):
                time.sleep(1.0)
                kill(node)
                wait_until(
                    lambda: sample(cluster, "gpu_worker-0", "thoth_attention_lost_total") > lost
                )
                time.sleep(1.0)
        assert sink(cluster) == expected
        with second_node(cluster, tmp_path / "second.log"):
            wait_until(lambda: is_attached(cluster))
            assert_attends(cluster, expected)

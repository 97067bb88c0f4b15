"""`deploy/serve.yaml` as the README says: `ray start --head`, `ray serve deploy`, `thoth ask`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from actors.cli.demo import free_port
from actors.ray_environment import LOCAL
from tests.actors.conftest import READY_S
from tests.house.source import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | LOCAL


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@dataclass(frozen=True)
class Deployed:
    http: str
    grpc: str


def stop(head: subprocess.Popen[bytes]) -> None:
    """By pid, and only what this test started."""
    family = psutil.Process(head.pid).children(recursive=True)
    head.terminate()
    try:
        head.wait(60)
    except subprocess.TimeoutExpired:
        head.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    for process in alive:
        process.kill()


@pytest.fixture(scope="module")
def deployed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """serve.yaml as it is, but for ports, home and model."""
    folder = tmp_path_factory.mktemp("deploy")
    config = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text())
    http_port, grpc_port, dashboard = free_port(), free_port(), free_port()
    config["http_options"]["port"], config["grpc_options"]["port"] = http_port, grpc_port
    (application,) = config["applications"]
    application["args"] |= {
        "home": str(folder / "home"),
        "model": {"source": str(tiny_folder), "name": "tiny"},
        "gateway": {"http_port": http_port, "grpc_port": grpc_port},
    }
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    run("ray", "get-auth-token", "--generate")
    command = [str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
    command += [f"--port={free_port()}", f"--dashboard-port={dashboard}", "--num-cpus=2"]
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        wait_for(f"{address}/api/version")
        said = run("ray", "serve", "deploy", str(file), "--address", address)
        assert said.returncode == 0, said.stderr
        wait_for(f"http://127.0.0.1:{http_port}/ready")
        yield Deployed(f"http://127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}")
    finally:
        stop(head)


def wait_for(url: str) -> None:
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s:
        try:
            # Ray's dashboard answers 401 without its token: it is up.
            if httpx.get(url, timeout=5.0).status_code in {200, 401}:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"{url} never answered")


def test_a_deployed_cluster_ingests_and_answers(deployed: Deployed, tmp_path: Path) -> None:
    (tmp_path / "keys.md").write_text("# Keys\n\nKeys are rotated every ninety days.\n")
    said = run("thoth", "ingest", str(tmp_path), "-k", "kb", "--endpoint", deployed.grpc)
    assert said.returncode == 0, said.stderr
    question = ("ask", "How often are keys rotated?", "-k", "kb", "--max-tokens", "8")
    answer = run("thoth", *question, "--endpoint", deployed.grpc)
    assert answer.returncode == 0, answer.stderr
    assert "keys.md" in answer.stdout + answer.stderr


def test_without_keys_a_peer_that_is_not_loopback_is_refused(deployed: Deployed) -> None:
    """Ray binds the gRPC port on every interface: the gateway looks at who calls."""
    others = {
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family.name == "AF_INET" and not address.address.startswith("127.")
    }
    if not others:
        pytest.skip("this machine has no interface but loopback")
    port = deployed.grpc.rpartition(":")[2]
    said = run("thoth", "ask", "Hello?", "--endpoint", f"{sorted(others)[0]}:{port}")
    assert said.returncode == 1
    assert "PERMISSION_DENIED" in said.stderr

"""Clusters of the tiny model: without Ray, and on a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from actors.cli.demo import free_port
from cluster.client import Client, ClusterProcess, Document
from cluster.client.local import Endpoints, Launch
from protos.thoth.v1 import supervisor_pb2, supervisor_pb2_grpc, worker_pb2, worker_pb2_grpc

READY_S = 240.0
COLLECTION = "kb"
DOCUMENTS = (
    Document("with", "The with statement", "The with statement wraps the execution of a block."),
    Document("yield", "The yield expression", "A yield expression suspends a generator."),
    Document("import", "The import statement", "The import statement finds a module and binds it."),
)


@dataclass(frozen=True)
class Running:
    """A cluster in a child process, and ways to look into it."""

    process: ClusterProcess
    home: Path

    @property
    def endpoints(self) -> Endpoints:
        return self.process.endpoints

    @property
    def pid(self) -> int:
        return self.process.pid

    def client(self, **options: float) -> Client:
        return Client(self.endpoints.grpc, **options)  # type: ignore[arg-type]

    def members(self) -> dict[str, supervisor_pb2.MemberStatus]:
        """What the supervisor says of everyone, by name."""
        with grpc.insecure_channel(self.endpoints.supervisor) as channel:
            stub = supervisor_pb2_grpc.SupervisorServiceStub(channel)
            response = stub.DescribeCluster(supervisor_pb2.DescribeClusterRequest(), timeout=10)
        return {status.member.name: status for status in response.members}

    def worker_load(self) -> worker_pb2.WorkerLoad:
        """What the only gpu_worker says of itself."""
        address = self.members()["gpu_worker-0"].member.address
        with grpc.insecure_channel(address) as channel:
            stub = worker_pb2_grpc.GpuWorkerServiceStub(channel)
            return stub.DescribeWorker(worker_pb2.DescribeWorkerRequest(), timeout=10).load


@contextmanager
def running(model: Path, home: Path, flags: tuple[str, ...], **more: str) -> Iterator[Running]:
    """A cluster that is ready and holds `DOCUMENTS`."""
    overrides = {
        "home": str(home),
        "model.source": str(model),
        "cache.host_bytes": str(2**24),
        "model.name": "tiny",
        "gpu_worker.threads": "1",
        "gateway.http_port": str(free_port()),
        "gateway.grpc_port": str(free_port()),
    }
    process = ClusterProcess(Launch(None, overrides | more, flags, home.with_suffix(".log")))
    try:
        assert process.poll(READY_S) is not None, process.last_words()
        cluster = Running(process, home)
        with cluster.client() as client:
            client.collections.create(COLLECTION)
            client.documents.upsert(COLLECTION, DOCUMENTS)
        yield cluster
    finally:
        process.stop()


@pytest.fixture(scope="module")
def local(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """All bodies in one process."""
    home = tmp_path_factory.mktemp("local") / "home"
    limits = {"gpu_worker.max_running": "8", "gpu_worker.max_waiting": "8"}
    with running(tiny_folder, home, ("--local",), **limits) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def on_ray(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Every body in an actor of a real Ray."""
    home = tmp_path_factory.mktemp("ray") / "home"
    with running(tiny_folder, home, ()) as cluster:
        yield cluster


def pages_of(cluster: Running) -> dict[str, str]:
    """Where each actor's metrics are, as Prometheus is told: address by actor name."""
    path = cluster.home / "run" / "prometheus-targets.json"
    return {g["labels"]["actor"]: g["targets"][0] for g in json.loads(path.read_text())}

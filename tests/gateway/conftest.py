"""A gateway among scripted peers, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest

from tests.gateway.scripted import ScriptedCluster, ScriptedWorker, config_of, scripted_cluster


@pytest.fixture
async def cluster(tiny_folder: Path, tmp_path: Path) -> AsyncIterator[ScriptedCluster]:
    async with scripted_cluster(config_of(tiny_folder, tmp_path)) as started:
        yield started


@pytest.fixture
def worker(cluster: ScriptedCluster) -> ScriptedWorker:
    return cluster.workers[0]


@pytest.fixture
async def http(cluster: ScriptedCluster) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=cluster.http, timeout=20.0) as client:
        yield client


@pytest.fixture
async def grpc_channel(cluster: ScriptedCluster) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(cluster.grpc) as channel:
        yield channel

"""A client of whichever cluster the user means."""

from __future__ import annotations

from actors.cli.runfile import RunFile
from cluster.client import Client
from cluster.config import ThothConfig


def client_for(config: ThothConfig, endpoint: str | None) -> Client:
    """The endpoint that was said, or the cluster that runs out of this home, or the port that is
    configured."""
    return Client(endpoint or _running(config) or _configured(config))


def _running(config: ThothConfig) -> str | None:
    run = RunFile(config.home_dir).read()
    if run is None or not run.is_alive or run.endpoints is None:
        return None
    return run.endpoints.grpc


def _configured(config: ThothConfig) -> str:
    return f"{config.gateway.http_host}:{config.gateway.grpc_port}"

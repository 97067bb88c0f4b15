"""A whole cluster on a Ray of its own: what `thoth up` runs."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable

import grpc
import httpx
import ray
from ray import serve

from actors.gateway.deployment import SERVICER_FUNCTIONS
from actors.launch import (
    NAMESPACE,
    STOP_S,
    SUPERVISOR,
    build_app,
    find_actor,
    supervisor_address,
)
from actors.roles import Endpoints
from cluster.config import ThothConfig
from cluster.errors import ThothError, Unavailable
from cluster.models.catalogue import resolve_model
from cluster.wire.status import translated
from protos.thoth.v1 import supervisor_pb2, supervisor_pb2_grpc

log = logging.getLogger(__name__)

APP = "thoth"


def serve_on_ray(
    config: ThothConfig, on_ready: Callable[[Endpoints], None], stop: threading.Event
) -> None:
    """A Ray of its own on this machine, from its first process to its last.

    This process must have `ray_environment.LOCAL` in its environment from before it imported Ray.
    Calls `on_ready` once the cluster can answer, returns when `stop` is set and everything is down.
    Raises Refused for a model that cannot be served, Unavailable when the cluster does not come up.
    """
    # Before Ray: a model that cannot be served is one clear error, and is converted once.
    resolve_model(config.model.source, config.models_dir)
    _start_ray()
    try:
        _start_serve(config)
        endpoints = _endpoints(config)
        if _wait_until_ready(endpoints, stop, config.supervisor.start_s):
            on_ready(endpoints)
            stop.wait()
    finally:
        _shut_down(config)


def _start_ray() -> None:
    ray.init(
        address="local",
        namespace=NAMESPACE,
        include_dashboard=False,
        num_cpus=max(2, os.cpu_count() or 1),
        logging_level=logging.WARNING,
    )


def _start_serve(config: ThothConfig) -> None:
    gateway = config.gateway
    serve.start(
        http_options={"host": gateway.http_host, "port": gateway.http_port},
        grpc_options={
            "port": gateway.grpc_port,
            "grpc_servicer_functions": list(SERVICER_FUNCTIONS),
            "enable_reflection": False,
        },
    )
    serve.run(build_app(config.model_dump(mode="json")), name=APP, route_prefix="/")


def _endpoints(config: ThothConfig) -> Endpoints:
    gateway = config.gateway
    return Endpoints(
        http=f"http://{gateway.http_host}:{gateway.http_port}",
        grpc=f"{gateway.http_host}:{gateway.grpc_port}",
        supervisor=asyncio.run(supervisor_address(config)),
    )


def _wait_until_ready(endpoints: Endpoints, stop: threading.Event, timeout_s: float) -> bool:
    """False when told to stop meanwhile. Raises Unavailable when the time is over."""
    until_s = time.monotonic() + timeout_s
    said = ""
    while not stop.is_set():
        try:
            response = httpx.get(f"{endpoints.http}/ready", timeout=5.0)
            if response.is_success:
                return True
            if response.text != said:
                said = response.text
                log.info("not ready: %s", said)
        except httpx.TransportError as error:
            log.debug("no answer yet: %s", error)
        if time.monotonic() > until_s:
            raise Unavailable(f"the cluster was not ready after {timeout_s:.0f} s: {said}")
        stop.wait(0.25)
    return False


def _shut_down(config: ThothConfig) -> None:
    """Gateways first, so that no request finds half a cluster; then the actors, then Ray."""
    serve.shutdown()  # type: ignore[no-untyped-call]
    handle = find_actor(SUPERVISOR)
    if handle is not None:
        try:
            asyncio.run(_ask_to_shut_down(config))
        except (ThothError, OSError) as error:
            log.warning("the supervisor did not shut down by itself: %s", error)
    ray.shutdown()


async def _ask_to_shut_down(config: ThothConfig) -> None:
    address = await supervisor_address(config)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = supervisor_pb2_grpc.SupervisorServiceStub(channel)
        with translated():
            await stub.ShutDown(supervisor_pb2.ShutDownRequest(), timeout=STOP_S * 3)

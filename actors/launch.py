"""The composition root on Ray: the only place that applies `ray.remote`.

Ray owns life, gRPC owns speech: actors are named, placed, started and killed here, and asked for
nothing but `start`, `stop` and `address`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from random import SystemRandom
from typing import Any

import grpc
import httpx
import ray
from ray import serve
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.bodies import make_body
from actors.gateway.deployment import SERVICER_FUNCTIONS, GatewayReplica
from actors.roles import Endpoints, Site
from actors.supervisor import Supervisor
from cluster.clock import MonotonicClock
from cluster.config import ThothConfig
from cluster.errors import Starting, ThothError, Unavailable
from cluster.scheduling.membership import Desired, Role
from cluster.telemetry.logs import write_logs
from cluster.wire.status import translated
from protos.thoth.v1 import supervisor_pb2, supervisor_pb2_grpc

log = logging.getLogger(__name__)

NAMESPACE = "thoth"
SUPERVISOR = "supervisor"
APP = "thoth"
# A killed actor keeps its name for a moment.
NAME_RETRY_S = 0.25
STOP_S = 10.0


def site_of(name: str, config: ThothConfig) -> Site:
    """Where a body in this Ray process stands."""

    async def find_supervisor() -> str:
        return await supervisor_address(config)

    def die(why: str) -> None:
        log.critical("%s dies: %s", name, why)
        # The process and nothing less: Ray and the supervisor's leases see it gone.
        os._exit(1)

    return Site(
        name=name,
        host=ray.util.get_node_ip_address(),
        node=ray.get_runtime_context().get_node_id(),
        find_supervisor=find_supervisor,
        clock=MonotonicClock(),
        random=SystemRandom(),
        die=die,
    )


class BodyActor:
    """A body in a process of its own."""

    def __init__(self, desired: Desired, config: ThothConfig) -> None:
        write_logs(config.log_level)
        self._body = make_body(desired, site_of(desired.name, config), config)
        self._starting = asyncio.Lock()
        self._started = False

    async def start(self) -> None:
        """Idempotent: an adopted actor is started already."""
        async with self._starting:
            if not self._started:
                await self._body.start()
                self._started = True

    async def stop(self) -> None:
        await self._body.stop()


class SupervisorActor:
    """The supervisor in a process of its own; Ray starts it again when it dies."""

    def __init__(self, config: ThothConfig) -> None:
        write_logs(config.log_level)
        self._supervisor = Supervisor(site_of(SUPERVISOR, config), config, RayStarter(config))
        self._starting = asyncio.Lock()
        self._started = False

    async def address(self) -> str:
        """host:port of its SupervisorService; the first to ask starts it."""
        async with self._starting:
            if not self._started:
                await self._supervisor.start()
                self._started = True
        return self._supervisor.address


class RayStarter:
    """Detached actors under fixed names: they outlive their creator, and a new one finds them."""

    def __init__(self, config: ThothConfig) -> None:
        self._config = config

    async def start(self, desired: Desired) -> None:
        options = {"num_cpus": 1} if desired.role is Role.GPU_WORKER else {"num_cpus": 0}
        actor_class = ray.remote(max_restarts=0, **options)(BodyActor)
        named = actor_class.options(
            name=desired.name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
        )
        handle = await asyncio.to_thread(named.remote, desired, self._config)
        await handle.start.remote()

    async def stop(self, name: str) -> None:
        """Asks, then kills; returns when the name is free."""
        handle = await asyncio.to_thread(_find, name)
        if handle is None:
            return
        try:
            async with asyncio.timeout(STOP_S):
                await handle.stop.remote()
        except (RayError, TimeoutError) as error:
            log.warning("%s did not stop by itself: %s", name, type(error).__name__)
        ray.kill(handle, no_restart=True)
        while await asyncio.to_thread(_find, name) is not None:
            await asyncio.sleep(NAME_RETRY_S)

    async def end(self) -> None:
        handle = await asyncio.to_thread(_find, SUPERVISOR)
        if handle is not None:
            ray.kill(handle, no_restart=True)


def _find(name: str) -> ActorHandle[Any] | None:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def ensure_supervisor(config: ThothConfig) -> ActorHandle[Any]:
    """The supervisor of this Ray cluster, brought up if there is none."""
    actor_class = ray.remote(num_cpus=0, max_restarts=-1)(SupervisorActor)
    return actor_class.options(
        name=SUPERVISOR, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote(config)


async def supervisor_address(config: ThothConfig) -> str:
    """Where the supervisor listens. Raises Starting while it comes up or is restarted."""
    try:
        handle = await asyncio.to_thread(ensure_supervisor, config)
        async with asyncio.timeout(STOP_S):
            return str(await handle.address.remote())
    except (RayError, TimeoutError, ValueError) as error:
        raise Starting(f"the supervisor does not answer: {type(error).__name__}") from error


def build_app(args: dict[str, Any]) -> serve.Application:
    """The Serve application; `args` is the config, as in `deploy/serve.yaml`.

    Raises pydantic's ValidationError for unknown keys and values out of range.
    """
    config = ThothConfig.model_validate(args)
    ensure_supervisor(config)
    deployment = serve.deployment(
        name="gateway",
        num_replicas=config.gateway.replicas,
        # Our own limit answers with 429 before Serve's would with 503.
        max_ongoing_requests=config.gateway.max_requests * 8,
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=20.0,
        ray_actor_options={"num_cpus": 0},
    )(serve.ingress()(GatewayReplica))
    return deployment.bind(config, site_of)


def serve_on_ray(
    config: ThothConfig, on_ready: Callable[[Endpoints], None], stop: threading.Event
) -> None:
    """A Ray of its own on this machine, from its first process to its last.

    This process must have `ray_environment.LOCAL` in its environment from before it imported Ray.
    Calls `on_ready` once the cluster can answer, returns when `stop` is set and everything is down.
    """
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
    serve.shutdown()
    handle = _find(SUPERVISOR)
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

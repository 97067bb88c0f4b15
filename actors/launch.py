"""The composition root on Ray: the only place that applies `ray.remote`.

Ray owns life, gRPC owns speech: actors are named, placed, started and killed here, and asked for
nothing but `start`, `stop` and `address`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from random import SystemRandom
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.bodies import make_body
from actors.gateway.deployment import GatewayReplica
from actors.roles import Site
from actors.supervisor import Supervisor
from cluster.clock import MonotonicClock
from cluster.config import ThothConfig
from cluster.errors import Starting
from cluster.scheduling.membership import Desired, Role
from cluster.telemetry.logs import write_logs

log = logging.getLogger(__name__)

NAMESPACE = "thoth"
SUPERVISOR = "supervisor"
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
        host=str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
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
    """Actors of Ray; one that lives under its name already is adopted."""

    def __init__(self, config: ThothConfig) -> None:
        self._config = config

    async def start(self, desired: Desired, node: str) -> None:
        named = _actor_class(BodyActor, desired.name, max_restarts=0, **self._needs(desired, node))
        handle = await asyncio.to_thread(named.remote, desired, self._config)
        await handle.start.remote()

    def _needs(self, desired: Desired, node: str) -> dict[str, Any]:
        """What Ray is asked for. A node that has gone since is no reason to stay away."""
        needs: dict[str, Any] = {"num_cpus": 1 if desired.role is Role.GPU_WORKER else 0}
        if node:
            needs["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
        resource = self._config.attention_worker.resource
        if desired.role is Role.ATTENTION_WORKER and resource:
            needs["resources"] = {resource: 1}
        return needs

    async def stop(self, name: str) -> None:
        """Asks, then kills; returns when the name is free, or raises TimeoutError."""
        handle = await asyncio.to_thread(find_actor, name)
        if handle is None:
            return
        try:
            async with asyncio.timeout(STOP_S):
                await handle.stop.remote()
        except (RayError, TimeoutError) as error:
            log.warning("%s did not stop by itself: %s", name, type(error).__name__)
        ray.kill(handle, no_restart=True)
        async with asyncio.timeout(STOP_S):
            await _until_free(name)

    async def end(self) -> None:
        handle = await asyncio.to_thread(find_actor, SUPERVISOR)
        if handle is not None:
            ray.kill(handle, no_restart=True)


async def _until_free(name: str) -> None:
    # Ray has no event for it.
    while await asyncio.to_thread(find_actor, name) is not None:  # noqa: ASYNC110
        await asyncio.sleep(NAME_RETRY_S)


def find_actor(name: str) -> Any | None:
    """A handle of a living actor of this cluster."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def _actor_class(body: type, name: str, *, max_restarts: int, **needs: Any) -> Any:
    """`body` as a detached actor under a fixed name: it outlives whoever created it. `needs` are
    options of Ray's."""
    return ray.remote(body).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=max_restarts,
        **needs,
    )


def ensure_supervisor(config: ThothConfig) -> Any:
    """A handle of this Ray cluster's supervisor, brought up if there is none."""
    return _actor_class(SupervisorActor, SUPERVISOR, num_cpus=0, max_restarts=-1).remote(config)


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

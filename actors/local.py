"""The whole cluster in one process, without Ray: the same bodies, the same gRPC between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import SystemRandom

import uvicorn

from actors.bodies import make_body
from actors.gateway.body import Gateway
from actors.gateway.grpc import add_public_services
from actors.gateway.http import build_http_app
from actors.roles import Body, Endpoints, Site
from actors.supervisor import Supervisor
from cluster.clock import MonotonicClock
from cluster.config import ThothConfig
from cluster.errors import Unavailable
from cluster.ids import new_incarnation
from cluster.scheduling.membership import Desired, Role
from cluster.wire.serving import GrpcServer

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
NODE = "local"
READY_CHECK_S = 0.1


class LocalStarter:
    """Bodies are objects here; a dead one is an object that was stopped."""

    def __init__(self, config: ThothConfig, site_for: Callable[[str], Site]) -> None:
        self._config = config
        self._site_for = site_for
        self.bodies: dict[str, Body] = {}

    async def start(self, desired: Desired, node: str) -> None:
        if desired.name in self.bodies:
            return
        body = make_body(desired, self._site_for(desired.name), self._config)
        self.bodies[desired.name] = body
        try:
            await body.start()
        except BaseException:
            await self.stop(desired.name)
            raise

    async def stop(self, name: str) -> None:
        body = self.bodies.pop(name, None)
        if body is not None:
            await body.stop()

    async def end(self) -> None:
        """The process belongs to whoever called `local_cluster`."""


class LocalCluster:
    """Everything of one process, from `start` to `stop`."""

    def __init__(self, config: ThothConfig) -> None:
        self.config = config
        self._random = SystemRandom()
        self._deaths: set[asyncio.Task[None]] = set()
        self.starter = LocalStarter(config, self.site)
        self.supervisor = Supervisor(self.site("supervisor"), config, self.starter)
        name = f"{Role.GATEWAY}-{new_incarnation(self._random)}"
        self.gateway = Gateway(site=self.site(name), config=config)

    def site(self, name: str) -> Site:
        async def find_supervisor() -> str:
            if not self.supervisor.address:
                raise Unavailable("the supervisor is not up yet")
            return self.supervisor.address

        def die(why: str) -> None:
            log.critical("%s dies: %s", name, why)
            task = asyncio.get_running_loop().create_task(self.starter.stop(name))
            self._deaths.add(task)
            task.add_done_callback(self._deaths.discard)

        return Site(
            name=name,
            host=LOOPBACK,
            node=NODE,
            find_supervisor=find_supervisor,
            clock=MonotonicClock(),
            random=self._random,
            die=die,
        )

    async def stop(self) -> None:
        await self.gateway.stop()
        await self.supervisor.shut_down("the process ends")
        await self.supervisor.stop()


@asynccontextmanager
async def local_cluster(config: ThothConfig) -> AsyncIterator[tuple[LocalCluster, Endpoints]]:
    """A running cluster and its public endpoints; everything is down when the block ends.

    Workers may still be loading: `/ready` tells, and `/health` answers from the beginning.
    """
    gateway_config = config.gateway
    cluster = LocalCluster(config)
    async with AsyncExitStack() as stack:
        await cluster.supervisor.start()
        stack.push_async_callback(cluster.stop)
        grpc_server = GrpcServer(gateway_config.http_host, gateway_config.grpc_port)
        add_public_services(grpc_server, cluster.gateway)
        grpc_address = await grpc_server.start()
        stack.push_async_callback(grpc_server.stop)
        http_server = HttpServer(cluster.gateway, config)
        http_address = await http_server.start()
        stack.push_async_callback(http_server.stop)
        await cluster.gateway.start()
        yield (
            cluster,
            Endpoints(
                http=f"http://{http_address}",
                grpc=grpc_address,
                supervisor=cluster.supervisor.address,
            ),
        )


class HttpServer:
    """uvicorn inside a running event loop, leaving signals to whoever owns the process."""

    def __init__(self, gateway: Gateway, config: ThothConfig) -> None:
        app = build_http_app(lambda: gateway)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=config.gateway.http_host,
                port=config.gateway.http_port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Returns `host:port`. Raises Unavailable when the port is taken."""
        self._task = asyncio.create_task(self._server._serve(), name="http")
        while not self._server.started:
            if self._task.done():
                config = self._server.config
                raise Unavailable(f"HTTP cannot listen on {config.host}:{config.port}")
            await asyncio.sleep(0.01)
        host, port = self._server.servers[0].sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


async def serve_local(config: ThothConfig, on_ready: Callable[[Endpoints], None]) -> None:
    """Runs until cancelled; `on_ready` is called once when the cluster can answer."""
    async with local_cluster(config) as (cluster, endpoints):
        said: tuple[str, ...] = ()
        while missing := cluster.gateway.missing():
            if missing != said:
                log.info("waiting for %s", ", ".join(missing))
                said = missing
            await asyncio.sleep(READY_CHECK_S)
        on_ready(endpoints)
        await asyncio.Event().wait()

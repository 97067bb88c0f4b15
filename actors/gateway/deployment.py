"""The gateway as Ray Serve runs it: HTTP and gRPC on one replica.

Serve calls a gRPC method of a replica by its last path segment, with the context as the keyword
`grpc_context`, and takes the ASGI app of a late-bound `serve.ingress()` from
`__serve_build_asgi_app__`. Errors are answers, never exceptions: those would show tracebacks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from random import SystemRandom
from typing import Any

from fastapi import FastAPI

from actors.gateway.body import Gateway
from actors.gateway.grpc import GatewayServicer
from actors.gateway.http import build_routes
from actors.roles import Site
from cluster.config import ThothConfig
from cluster.ids import new_incarnation
from cluster.scheduling.membership import Role

# For Serve's `grpc_servicer_functions`.
SERVICER_FUNCTIONS = ("actors.gateway.services.add_services",)

SiteFor = Callable[[str, ThothConfig], Site]


def _unary(name: str) -> Callable[[GatewayReplica, bytes, Any], Awaitable[Any]]:
    """A method of the servicer, taking its context the way Serve passes it."""

    async def call(self: GatewayReplica, request: bytes, grpc_context: Any) -> Any:
        return await getattr(self.servicer, name)(request, grpc_context)

    call.__name__ = name
    return call


class GatewayReplica:
    """To be wrapped as `serve.deployment(...)(serve.ingress()(GatewayReplica))`."""

    # Serve awaits the constructor.
    async def __init__(  # type: ignore[misc]
        self, config: ThothConfig, site_for: SiteFor
    ) -> None:
        """Raises Refused for a model or keys that cannot be used: Serve shows it as the reason."""
        name = f"{Role.GATEWAY}-{new_incarnation(SystemRandom())}"
        self.gateway = Gateway(site=site_for(name, config), config=config)
        self.servicer = GatewayServicer(self.gateway)
        await self.gateway.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_routes(lambda: self.gateway)

    async def StreamChat(self, request: bytes, grpc_context: Any) -> AsyncIterator[Any]:
        async for response in self.servicer.StreamChat(request, grpc_context):
            yield response

    async def Prove(self, request: bytes, grpc_context: Any) -> AsyncIterator[Any]:
        async for response in self.servicer.Prove(request, grpc_context):
            yield response

    Chat = _unary("Chat")
    Retrieve = _unary("Retrieve")
    ListModels = _unary("ListModels")
    CreateCollection = _unary("CreateCollection")
    GetCollection = _unary("GetCollection")
    ListCollections = _unary("ListCollections")
    DeleteCollection = _unary("DeleteCollection")
    UpsertDocuments = _unary("UpsertDocuments")
    GetDocument = _unary("GetDocument")
    ListDocuments = _unary("ListDocuments")
    DeleteDocuments = _unary("DeleteDocuments")

"""The HTTP door: OpenAI's chat API, retrieval and documents, proofs, health and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from actors.gateway import http_chat, http_documents, http_prove
from actors.gateway.auth import Caller
from actors.gateway.body import Gateway
from actors.gateway.http_schema import describe_bodies
from actors.gateway.openai import error_to_json
from actors.gateway.request_ids import RequestIds
from cluster.errors import (
    InvalidArgument,
    InvariantBroken,
    NotFound,
    Starting,
    ThothError,
    TooLarge,
    Unavailable,
    Unsupported,
)
from cluster.telemetry.metrics import Metrics
from cluster.wire.status import code_of

# nginx's code for a client that went away; nobody is there to read it.
_CLIENT_CLOSED_REQUEST = 499


def build_http_app(gateway: Callable[[], Gateway]) -> FastAPI:
    """The app as it stands by itself; `gateway` is asked at each request."""
    app = build_routes(gateway)
    app.add_middleware(RequestIds, new_id=lambda: gateway().new_request_id())
    return app


def build_routes(gateway: Callable[[], Gateway]) -> FastAPI:
    """The app behind a proxy that puts x-request-id on every response, as Ray Serve's does."""

    def authenticate(request: Request) -> None:
        request.state.principal = gateway().keyring.authenticate(caller_of(request))

    app = FastAPI(title="Thoth", version=version("thoth-cluster"), docs_url=None, redoc_url=None)
    guard = [Depends(authenticate)]
    app.include_router(_health_routes(gateway))
    app.include_router(_inspection_routes(gateway), dependencies=guard)
    app.include_router(http_chat.routes(gateway), dependencies=guard)
    app.include_router(http_documents.routes(gateway), dependencies=guard)
    app.include_router(http_prove.routes(gateway), dependencies=guard)
    app.add_exception_handler(ThothError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_bad_parameter)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_unforeseen)
    describe_bodies(app)
    return app


def caller_of(request: Request) -> Caller:
    """A peer without an address came by a unix socket, which only this machine has."""
    host = request.client.host if request.client else ""
    return Caller(
        host=host,
        authorization=request.headers.get("authorization", ""),
        origin=request.headers.get("origin", ""),
    )


def _health_routes(gateway: Callable[[], Gateway]) -> APIRouter:
    """Open to all: they tell nothing but whether it works."""
    router = APIRouter(tags=["health"])

    @router.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive and its event loop turns."""
        return {"status": "ok"}

    @router.get("/ready")
    async def ready() -> Response:
        """200 when an answer can be had; 503 with what is missing until then."""
        missing = gateway().missing()
        if missing:
            error = Starting(f"not ready: {', '.join(missing)}", retry_after_s=2.0)
            return error_response(error, missing=list(missing))
        return JSONResponse({"status": "ready"})

    return router


def _inspection_routes(gateway: Callable[[], Gateway]) -> APIRouter:
    router = APIRouter(tags=["inspection"])

    @router.get("/metrics")
    async def metrics() -> Response:
        """What this gateway counted, for Prometheus."""
        return Response(gateway().metrics.exposition(), media_type=Metrics.content_type)

    @router.get("/version")
    async def get_version() -> dict[str, str]:
        return {"version": version("thoth-cluster")}

    return router


def error_response(error: ThothError, **extra: Any) -> JSONResponse:
    """An OpenAI error object with the status and headers that belong to it."""
    headers = {}
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, TooLarge):
        # The rest of the body may still be coming, and nobody reads it.
        headers["connection"] = "close"
    status = code_of(error).http
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_to_json(error) | extra, status, headers)


async def _on_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, ThothError):
        raise error
    return error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, or not with this method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    known: ThothError
    match status:
        case 404:
            known = NotFound(f"there is no {request.url.path} here", field="path")
        case 405:
            known = Unsupported(f"{request.method} is not offered for this path", field="method")
        case _:
            known = InvalidArgument(str(error), field="request")
    return JSONResponse(error_to_json(known), status)


async def _on_bad_parameter(_: Request, error: Exception) -> Response:
    """FastAPI's own: something in the path or the query."""
    if not isinstance(error, RequestValidationError):
        raise error
    fault = error.errors()[0]
    field = str(fault["loc"][-1])
    return error_response(InvalidArgument(f"{field}: {fault['msg']}", field=field))


async def _on_disconnect(_: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _on_unforeseen(request: Request, error: Exception) -> Response:
    """Starlette logs the traceback; the caller is told nothing of the inside."""
    return error_response(InvariantBroken(f"internal error in {request.url.path}"))

"""The public gRPC methods, registered so that bytes which are no message reach the servicer.

Generated `add_...Servicer_to_server` functions parse before the method is called, and a failure
there is the transport's: no code of ours, no word on what was wrong. Here the servicer parses. That
spares Ray Serve's proxy the work, too: name `add_services` in its `grpc_servicer_functions`.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from protos.thoth.v1 import documents_pb2, gateway_pb2, prover_pb2

SERVICES: tuple[ServiceDescriptor, ...] = (
    gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"],
    documents_pb2.DESCRIPTOR.services_by_name["DocumentsService"],
    prover_pb2.DESCRIPTOR.services_by_name["ProverService"],
)


def add_services(servicer: Any, server: grpc.aio.Server | grpc.Server) -> None:
    """Registers every method of `SERVICES` with the servicer's method of that name."""
    for service in SERVICES:
        handlers = {method.name: _handler(servicer, method) for method in service.methods}
        generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
        server.add_generic_rpc_handlers((generic,))


def _handler(servicer: Any, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    """Requests stay bytes."""
    made = (
        grpc.unary_stream_rpc_method_handler
        if method.server_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    return made(getattr(servicer, method.name), response_serializer=_to_bytes)


def _to_bytes(message: Message) -> bytes:
    # Not `Message.SerializeToString`: that is the abstract one of the class that all share.
    return message.SerializeToString()

"""What the commands ask of the gpu_workers themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import grpc

from cluster.errors import NotFound
from cluster.request import WorkerLoad
from cluster.scheduling.membership import Member, Role
from cluster.wire.generation import load_from_pb
from cluster.wire.serving import MESSAGE_OPTIONS
from cluster.wire.status import from_rpc_error
from protos.thoth.v1 import worker_pb2, worker_pb2_grpc

Answer = TypeVar("Answer")


def ready_workers(members: Iterable[Member], name: str | None = None) -> list[Member]:
    """All of them, or the one of that name. Raises NotFound when there is none."""
    ready = [m for m in members if m.role is Role.GPU_WORKER and m.is_ready]
    found = [m for m in ready if name is None or m.name == name]
    if not found:
        known = f"; ready are {', '.join(m.name for m in ready)}" if ready else ""
        raise NotFound(f"no {name or 'gpu_worker'} is ready: see `thoth status`{known}")
    return found


def asked(worker: Member, ask: Callable[[worker_pb2_grpc.GpuWorkerServiceStub], Answer]) -> Answer:
    """Raises the worker's refusal, or Unavailable when it does not answer."""
    with grpc.insecure_channel(worker.address, options=MESSAGE_OPTIONS) as channel:
        try:
            return ask(worker_pb2_grpc.GpuWorkerServiceStub(channel))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None


def load_of(worker: Member, timeout_s: float) -> WorkerLoad:
    request = worker_pb2.DescribeWorkerRequest()
    return load_from_pb(asked(worker, lambda s: s.DescribeWorker(request, timeout=timeout_s)).load)

"""Attention workers of this process, whose answers can be twisted on their way, and their ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from random import Random

import grpc
from torch import Tensor

from cluster.attention.native import NativeBackend
from cluster.attention.port import Exchange
from cluster.attention.server import AttentionServer
from cluster.attention.shared_memory import ChannelSizes
from cluster.attention.split import PartPlan
from cluster.kernels import kernels
from cluster.wire.attention_port import GrpcPort, connect
from cluster.wire.attention_relay import Relay
from protos.thoth.v1 import attention_pb2 as pb
from protos.thoth.v1 import attention_pb2_grpc
from tests.attention.shared_steps import NUM_LAYERS, SIZES, Rig, SharedBlocks, drawn_plan
from tests.attention.workers import MAX_BYTES, PATIENCE_S, source_of

# From what is to be answered to a request to what is answered.
Twist = Callable[[list[pb.AttendResponse]], Iterable[pb.AttendResponse]]


class Twisted(attention_pb2_grpc.AttentionServiceServicer):
    """Computes right, and answers as it is told. `written` are the blocks that came, in order."""

    def __init__(self, server: AttentionServer, twist: Twist, max_bytes: int) -> None:
        self.server = server
        self.max_bytes = max_bytes
        self.twist = twist
        self.written: list[int] = []

    def Attend(
        self, requests: Iterator[pb.AttendRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.AttendResponse]:
        relay = Relay(self.server, self.max_bytes)
        try:
            for request in requests:
                if request.WhichOneof("event") == "write":
                    self.written.append(request.write.block)
                yield from self.twist(relay.answers(request))
        finally:
            relay.close()


@contextmanager
def twisted(twist: Twist, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, Twisted]]:
    """Its address, and it."""
    attention = AttentionServer(1, spin_us=0)
    server = grpc.server(ThreadPoolExecutor(4))
    servicer = Twisted(attention, twist, max_bytes)
    attention_pb2_grpc.add_AttentionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        server.stop(0).wait()
        attention.close()


def native() -> NativeBackend:
    return NativeBackend(kernels().Threads(1))


def port_at(
    address: str, blocks: SharedBlocks, timeout_s: float = PATIENCE_S, sizes: ChannelSizes = SIZES
) -> GrpcPort:
    return connect(address, sizes, source_of(blocks), client="test", timeout_s=timeout_s)


def rig_at(port: GrpcPort, blocks: SharedBlocks) -> Rig:
    return Rig(port, blocks, native())


def some_plan(blocks: SharedBlocks, seed: int = 0) -> PartPlan:
    return drawn_plan(Random(seed), blocks.segments, 3)


def as_it_is(responses: list[pb.AttendResponse]) -> list[pb.AttendResponse]:
    return responses


def compute_for_ever(exchange: Exchange, q: Tensor) -> None:
    for layer in cycle(range(NUM_LAYERS)):
        exchange.post(layer, q)
        exchange.collect(layer)

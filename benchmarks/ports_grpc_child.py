"""As `benchmarks.ports_child`, also for engines on other hosts, of which each may have MAX_BYTES:
`python -m benchmarks.ports_grpc_child PATH NUM_THREADS MAX_BYTES`.

It says when its door is open, and its address on the loopback.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.ports_child import open_door
from cluster.attention.server import AttentionServer
from cluster.wire.attention_service import AttentionServicer
from cluster.wire.serving import GrpcServer
from protos.thoth.v1 import attention_pb2_grpc


async def listen(server: AttentionServer, max_bytes: int) -> None:
    grpc = GrpcServer("127.0.0.1")
    servicer = AttentionServicer(server, max_bytes)
    grpc.add(attention_pb2_grpc.add_AttentionServiceServicer_to_server, servicer)
    print(f"open {await grpc.start()}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await grpc.stop(0.0)


def main(path: str, num_threads: str, max_bytes: str) -> None:
    with open_door(Path(path), int(num_threads)) as server:
        asyncio.run(listen(server, int(max_bytes)))


if __name__ == "__main__":
    main(*sys.argv[1:])

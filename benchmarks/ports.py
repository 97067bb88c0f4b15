"""What it costs that attention is computed by another process.

    payload   queries go there and states of the same size come back, over no keys at all; beside
              it a bare copy of as many bytes there and back, in this process
    layer     a layer of SmolLM2-135M: rows with 2,048 tokens of their own each, in this process and
              in the other, over the same memory and with as many threads
    grpc ..   the same as if the process were on another host: through gRPC, over a copy of the
              blocks that it has already; the network between two hosts is left out

Both are run in turn; times are medians over the rounds. Through shared memory a payload is copied
twice on its way there and once on its way back, and the states are written once.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from benchmarks.catalogue import Scale
from benchmarks.kernel import seconds
from benchmarks.result import CannotRun, Outcome, Row, Verdict
from cluster.attention.door import enter
from cluster.attention.native import NativeBackend
from cluster.attention.plan import AttentionPlan, Run, plan_attention
from cluster.attention.port import AttentionPort, LocalPort
from cluster.attention.shared_kv import DTYPES, SharedKv
from cluster.attention.shared_memory import ChannelSizes
from cluster.attention.split import PartPlan
from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import Home, SegmentView
from cluster.ids import BlockId
from cluster.kernels import kernels, kernels_available, why_not
from cluster.wire.attention_port import Source, connect

SEED = 0
NUM_THREADS = 1
# Of the other process: how many threads, and the bytes that it keeps for one client.
CHILD = (str(NUM_THREADS), str(2**30))
TIMEOUT_S = 60.0
ROUNDS = {Scale.QUICK: 5, Scale.FULL: 31}
# A row of a payload is 4 KiB.
PAYLOAD_HEADS, HEAD_DIM = 16, 64
PAYLOAD_ROWS = (1, 4, 16, 64, 256, 512, 2048)
# SmolLM2-135M.
HEADS, KV_HEADS = 9, 3
TOKENS = 2048
LAYER_ROWS = (1, 8, 32)
# What the other process may cost.
MOST_LAYER_RATIO = 1.05
MOST_COPY_RATIO = 4.0


# A port to the other process, over these blocks.
OpenPort = Callable[["Blocks", ChannelSizes], AttentionPort]


class Blocks:
    """Keys and values of one layer in memory that another process can map."""

    def __init__(self, kv_heads: int, num_blocks: int) -> None:
        inner = kv_heads * HEAD_DIM * BLOCK_TOKENS
        num_bytes = 2 * num_blocks * inner * DTYPES["float32"].itemsize
        self.kv = SharedKv(
            "float32", num_bytes, num_blocks, kv_heads, HEAD_DIM, 2 * inner, ((0, inner),)
        )
        self.fd = os.memfd_create("benchmark", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, num_bytes)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.memory = memoryview(mmap.mmap(self.fd, num_bytes))
        memory = torch.frombuffer(self.memory, dtype=torch.uint8)
        memory.view(torch.float32).normal_(generator=torch.Generator().manual_seed(SEED))
        self.k, self.v = self.kv.views(memory)

    def close(self) -> None:
        os.close(self.fd)


def round_trip(port: AttentionPort, plan: PartPlan, heads: int) -> Callable[[], object]:
    """One layer through the port, its plan known already."""
    exchange = port.prepare(plan)
    q = torch.randn(
        (len(plan.queries), heads, HEAD_DIM), generator=torch.Generator().manual_seed(SEED)
    )

    def work() -> None:
        exchange.post(0, q)
        exchange.collect(0)

    return work


def copies(num_rows: int) -> Callable[[], object]:
    """There and back."""
    here, there, back = (torch.ones((num_rows, PAYLOAD_HEADS, HEAD_DIM)) for _ in range(3))

    def work() -> None:
        there.copy_(here)
        back.copy_(there)

    return work


def rows_over_nothing(num_rows: int) -> PartPlan:
    rows = torch.arange(num_rows, dtype=torch.int32)
    none, zero = torch.zeros(0, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    return PartPlan(rows.long(), rows, AttentionPlan(none.view(0, 2), zero, none, none, zero, none))


def decodes(num_rows: int) -> PartPlan:
    """Contexts scattered over the blocks, as an allocator leaves them after a while."""
    order = torch.randperm(
        num_rows * blocks_for(TOKENS), generator=torch.Generator().manual_seed(SEED)
    )
    runs = [
        Run(i, 1, (SegmentView(tuple(map(BlockId, blocks)), TOKENS, Home.HOST),))
        for i, blocks in enumerate(order.view(num_rows, -1).tolist())
    ]
    rows = torch.arange(num_rows, dtype=torch.int32)
    return PartPlan(rows.long(), rows, plan_attention(runs))


@contextmanager
def worker() -> Iterator[dict[str, OpenPort]]:
    """The ways to one in another process, by what their rows are called."""
    with tempfile.TemporaryDirectory() as folder:
        door = Path(folder) / "door"
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ports_grpc_child", str(door), *CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert child.stdout is not None
            said, _, address = child.stdout.readline().strip().partition(" ")
            if said != "open":
                raise CannotRun("the attention worker did not start")
            yield {"": partial(shared, door), "grpc ": partial(remote, address)}
        finally:
            child.communicate()


def shared(door: Path, blocks: Blocks, sizes: ChannelSizes) -> AttentionPort:
    return enter(door, sizes, blocks.kv, blocks.fd, timeout_s=TIMEOUT_S)


def remote(address: str, blocks: Blocks, sizes: ChannelSizes) -> AttentionPort:
    """The blocks stay as they are."""
    source = Source(blocks.kv, blocks.memory, lambda ids: np.zeros(len(ids), np.int64))
    return connect(address, sizes, source, client="benchmark", timeout_s=TIMEOUT_S)


def run(scale: Scale, console: Console) -> Outcome:
    """One row for each payload and each number of rows."""
    if not kernels_available():
        raise CannotRun(f"the kernels were not built: {why_not()}")
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    try:
        with worker() as ways:
            rows: list[Row] = []
            for name, way in ways.items():
                rows += payload_rows(f"{name}payload", way, ROUNDS[scale])
                rows += layer_rows(f"{name}layer", way, ROUNDS[scale])
    finally:
        torch.set_num_threads(before)
    return Outcome(rows, verdicts(rows), SEED)


def payload_rows(what: str, open_port: OpenPort, rounds: int) -> Iterator[Row]:
    sizes = ChannelSizes(PAYLOAD_HEADS, HEAD_DIM)
    with closing(Blocks(1, 1)) as blocks, ExitStack() as open_ports:
        for num_rows in PAYLOAD_ROWS:
            port = open_port(blocks, sizes)
            open_ports.callback(port.close)
            there = round_trip(port, rows_over_nothing(num_rows), PAYLOAD_HEADS)
            payload = num_rows * PAYLOAD_HEADS * HEAD_DIM * torch.float32.itemsize
            yield row(what, num_rows, 2 * payload, in_turn(copies(num_rows), there, rounds))


def layer_rows(what: str, open_port: OpenPort, rounds: int) -> Iterator[Row]:
    sizes = ChannelSizes(HEADS, HEAD_DIM)
    backend = NativeBackend(kernels().Threads(NUM_THREADS))
    blocks = Blocks(KV_HEADS, max(LAYER_ROWS) * blocks_for(TOKENS))
    with closing(blocks), ExitStack() as open_ports:
        for num_rows in LAYER_ROWS:
            plan = decodes(num_rows)
            port = open_port(blocks, sizes)
            open_ports.callback(port.close)
            here = round_trip(LocalPort(backend, blocks.k, blocks.v), plan, HEADS)
            there = round_trip(port, plan, HEADS)
            read = 2 * num_rows * TOKENS * KV_HEADS * HEAD_DIM * torch.float32.itemsize
            yield row(what, num_rows, read, in_turn(here, there, rounds))


def in_turn(
    here: Callable[[], object], there: Callable[[], object], rounds: int
) -> list[tuple[float, float]]:
    """Seconds of each; what else the machine does falls on both."""
    here()
    there()
    return [(seconds(here), seconds(there)) for _ in range(rounds)]


def row(what: str, num_rows: int, num_bytes: int, turns: Sequence[tuple[float, float]]) -> Row:
    here, there = (statistics.median(column) for column in zip(*turns, strict=True))
    return {
        "what": what,
        "rows": num_rows,
        "kib": num_bytes // 1024,
        "here_us": 1e6 * here,
        "there_us": 1e6 * there,
        "here_gb_s": num_bytes / here / 1e9,
        "there_gb_s": num_bytes / there / 1e9,
        "ratio": statistics.median(b / a for a, b in turns),
    }


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    largest = {str(each["what"]): each for each in rows}
    payload, layer = largest["payload"], largest["layer"]
    return [
        Verdict(
            f"a payload of {int(payload['kib']) // 2048} MiB there and back takes at most "
            f"{MOST_COPY_RATIO:.0f}x as long as a bare copy",
            f"{float(payload['ratio']):.2f}x, {float(payload['there_gb_s']):.1f} GB/s",
            float(payload["ratio"]) <= MOST_COPY_RATIO,
        ),
        Verdict(
            f"a layer of {layer['rows']} rows takes at most {MOST_LAYER_RATIO:.2f}x as long in "
            "another process",
            f"{float(layer['ratio']):.3f}x, {float(layer['there_us']):.0f} us",
            float(layer["ratio"]) <= MOST_LAYER_RATIO,
        ),
    ]

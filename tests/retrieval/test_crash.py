"""kill -9: what was acknowledged is there, and nothing is there by halves."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import grpc
import pytest

from protos.thoth.v1 import documents_pb2 as pb
from tests.retrieval.bodies import Stubs, connected

ROOT = Path(__file__).parents[2]
BATCH = 5


@dataclass
class Process:
    """A retriever that can be killed."""

    child: subprocess.Popen[str]
    address: str

    def kill(self) -> None:
        self.child.send_signal(signal.SIGKILL)
        assert self.child.wait() == -signal.SIGKILL


@contextmanager
def process(home: Path) -> Iterator[Process]:
    command = [sys.executable, "-m", "tests.retrieval.bodies", str(home)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield Process(child, child.stdout.readline().strip())
        finally:
            child.kill()


def document(number: int) -> pb.Document:
    """Several chunks, each with a word that no other document has."""
    text = f"Report unique{number} begins. " + f"Line of unique{number} goes on here. " * 30
    return pb.Document(id=f"{number:05}", text=text, metadata={"number": str(number)})


async def stored(stubs: Stubs, number: int) -> bool:
    """Whether the document is there; if so, it must be whole and found by both rankings."""
    wanted = document(number)
    try:
        request = pb.GetDocumentRequest(collection="kb", id=wanted.id)
        got = (await stubs.documents.GetDocument(request)).document
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    assert (got.text, got.metadata) == (wanted.text, wanted.metadata)
    found = await stubs.search(f"unique{number}", top_k=1000, filters=dict(wanted.metadata))
    result = (await stubs.upsert(wanted)).results[0]
    assert not result.changed
    assert len(found.chunks) == result.num_chunks > 1
    # In the words and in the index: a share of both rankings.
    assert min(chunk.score for chunk in found.chunks) > 1 / 61
    return True


async def test_what_was_acknowledged_survives_a_kill_right_after(tmp_path: Path) -> None:
    with process(tmp_path) as first:
        async with connected(first.address) as stubs:
            await stubs.create("kb")
            response = await stubs.upsert(*(document(i) for i in range(BATCH)))
            first.kill()
    with process(tmp_path) as second:
        async with connected(second.address) as stubs:
            assert all([await stored(stubs, i) for i in range(BATCH)])
            again = await stubs.search("unique0")
            assert again.sequence == response.sequence
            assert again.chunks[0].document_id == document(0).id


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3))]
)
async def test_a_kill_amid_upserts_loses_no_acknowledged_document(
    tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    num_acknowledged = 0
    for _ in range(2):
        with process(tmp_path) as running:
            async with connected(running.address) as stubs:
                await stubs.create("kb")
                await check_all(stubs, num_acknowledged)
                ending = asyncio.create_task(kill_later(running, random.uniform(0.05, 0.4)))
                try:
                    while True:
                        batch = range(num_acknowledged, num_acknowledged + BATCH)
                        await stubs.upsert(*map(document, batch))
                        num_acknowledged += BATCH
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                await ending
    with process(tmp_path) as last:
        async with connected(last.address) as stubs:
            await check_all(stubs, num_acknowledged)
    assert num_acknowledged > 0


async def kill_later(running: Process, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    await asyncio.to_thread(running.kill)


async def check_all(stubs: Stubs, num_acknowledged: int) -> None:
    """All acknowledged ones are there, the batch in flight is there as a whole or not at all."""
    assert all([await stored(stubs, i) for i in range(num_acknowledged)])
    in_flight = {await stored(stubs, num_acknowledged + i) for i in range(BATCH)}
    assert len(in_flight) == 1

"""An error is the same error on the other side, with its field, limit and time to come back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from cluster import errors
from cluster.errors import ThothError
from cluster.wire.serving import CallContext, GrpcServer, streaming, unary
from cluster.wire.status import CODES, from_detail, to_detail, translated
from protos.thoth.v1 import worker_pb2 as pb
from protos.thoth.v1 import worker_pb2_grpc


def make(kind: type[ThothError]) -> ThothError:
    if issubclass(kind, errors.Unavailable):
        return kind("what happened", retry_after_s=2.5, field="a.b", limit="at most 3")
    return kind("what happened", field="a.b", limit="at most 3")


EVERY_ERROR = [make(kind) for kind in CODES]


def assert_same(there: ThothError, here: ThothError) -> None:
    assert type(there) is type(here)
    assert (there.message, there.field, there.limit) == (here.message, here.field, here.limit)
    assert there.retry_after_s == here.retry_after_s


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda e: type(e).__name__)
def test_an_error_survives_a_stream_event(error: ThothError) -> None:
    assert_same(from_detail(to_detail(error)), error)


class Failing(worker_pb2_grpc.GpuWorkerServiceServicer):
    """Raises whatever it is given."""

    error: Exception = errors.Lost("nothing set")

    @unary(pb.DescribeWorkerResponse)
    async def DescribeWorker(
        self, request: pb.DescribeWorkerRequest, context: CallContext
    ) -> pb.DescribeWorkerResponse:
        raise self.error

    @streaming(lambda detail: pb.GenerateResponse(error=detail))
    async def Generate(
        self, request: pb.GenerateRequest, context: CallContext
    ) -> AsyncIterator[pb.GenerateResponse]:
        yield pb.GenerateResponse(tokens=pb.TokensGenerated(token_ids=[1]))
        raise self.error


@pytest.fixture
async def stub() -> AsyncIterator[worker_pb2_grpc.GpuWorkerServiceAsyncStub]:
    server = GrpcServer("127.0.0.1")
    # The method that nobody calls is that of the generated base: UNIMPLEMENTED.
    servicer = Failing()  # type: ignore[abstract]
    server.add(worker_pb2_grpc.add_GpuWorkerServiceServicer_to_server, servicer)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield worker_pb2_grpc.GpuWorkerServiceStub(channel)
    await server.stop(0.0)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda e: type(e).__name__)
async def test_an_error_survives_a_unary_call(
    error: ThothError, stub: worker_pb2_grpc.GpuWorkerServiceAsyncStub
) -> None:
    Failing.error = error
    with pytest.raises(ThothError) as caught, translated():
        await stub.DescribeWorker(pb.DescribeWorkerRequest())
    assert_same(caught.value, error)


async def test_a_started_stream_ends_with_the_error_and_its_code(
    stub: worker_pb2_grpc.GpuWorkerServiceAsyncStub,
) -> None:
    Failing.error = errors.Overloaded("too many", retry_after_s=3.0)
    call = stub.Generate(pb.GenerateRequest())
    events: list[pb.GenerateResponse] = []
    for _ in range(2):
        event = await call.read()
        assert isinstance(event, pb.GenerateResponse)
        events.append(event)
    with pytest.raises(errors.Overloaded), translated():
        await call.read()
    assert [event.WhichOneof("event") for event in events] == ["tokens", "error"]
    assert_same(from_detail(events[-1].error), Failing.error)


async def test_an_unforeseen_failure_shows_no_traceback(
    stub: worker_pb2_grpc.GpuWorkerServiceAsyncStub, caplog: pytest.LogCaptureFixture
) -> None:
    Failing.error = KeyError("secret")
    with pytest.raises(errors.InvariantBroken) as caught, translated():
        await stub.DescribeWorker(pb.DescribeWorkerRequest())
    assert "secret" not in caught.value.message
    assert "unforeseen failure in DescribeWorker" in caplog.text


async def test_a_peer_that_is_gone_is_lost() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        stub = worker_pb2_grpc.GpuWorkerServiceStub(channel)
        with pytest.raises(errors.Lost), translated():
            await stub.DescribeWorker(pb.DescribeWorkerRequest(), timeout=5)

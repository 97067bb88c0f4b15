"""A prover as a body of its own in this process, the way to it, and problems for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import grpc
import psutil

from actors.prover import Prover
from actors.roles import Site
from cluster.clock import MonotonicClock
from cluster.config import ThothConfig
from cluster.errors import Starting
from cluster.proofs import GoalOutcome
from cluster.wire.proofs import ProofEvent, ProofsFinished, event_from_pb
from cluster.wire.status import from_rpc_error
from protos.thoth.v1 import prover_pb2 as pb
from protos.thoth.v1 import prover_pb2_grpc
from tests.prover.theory import PLUS

NAT = f"data nat = zero | succ(nat)\n{PLUS}"
THEOREM = "prove forall x: nat. plus(x, zero) = x\n"
FALSEHOOD = "prove forall x: nat. plus(x, x) = x\n"
COMMUTES = f"{NAT}prove forall x: nat, y: nat. plus(x, y) = plus(y, x)\n"
# Evaluated on any sample but the smallest it takes for ever.
ENDLESS = f"""{NAT}fun double(nat): nat
double(zero) = zero
double(succ(x)) = succ(succ(double(x)))
fun power(nat): nat
power(zero) = succ(zero)
power(succ(x)) = double(power(x))
fun tower(nat): nat
tower(zero) = succ(zero)
tower(succ(x)) = power(tower(x))
prove forall x: nat. tower(tower(tower(tower(x)))) = plus(x, tower(power(tower(x))))
"""


# A second, and what a process waits for its turn on cores that others share.
SHARED_S = 10.0


def searches() -> list[psutil.Process]:
    """The processes of this one's provers."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "prover.attempt" in " ".join(child.cmdline()):
                found.append(child)
    return found


async def until(is_so: Callable[[], bool], within_s: float = SHARED_S) -> None:
    """For states that are reached without anybody being told."""
    async with asyncio.timeout(within_s):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def nobody() -> str:
    """A cluster without a supervisor."""
    raise Starting("there is no supervisor here")


def prover(home: Path, **limits: Any) -> Prover:
    site = Site(
        name="prover-0",
        host="127.0.0.1",
        node="here",
        find_supervisor=nobody,
        clock=MonotonicClock(),
        random=Random(1),
        die=print,
    )
    return Prover(ThothConfig.model_validate({"home": home, "prover": limits}), site)


class Stub:
    """The service at an address."""

    def __init__(self, body: Prover, channel: grpc.aio.Channel) -> None:
        self.body = body
        self.channel = channel
        self.service = prover_pb2_grpc.ProverServiceStub(channel)

    async def prove(self, text: str, **more: Any) -> list[ProofEvent]:
        """All events. Raises the error that the call ends with."""
        request = pb.ProveRequest(text=text, **more)
        try:
            return [event_from_pb(each) async for each in self.service.Prove(request)]
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def only(self, text: str, **more: Any) -> GoalOutcome:
        """The outcome of a problem with one goal."""
        outcome, finished = await self.prove(text, **more)
        assert isinstance(outcome, GoalOutcome)
        assert isinstance(finished, ProofsFinished)
        return outcome

    def counted(self, sample: str) -> float:
        """What the body says on its metrics page."""
        page = self.body.station.metrics.exposition().decode()
        (line,) = (each for each in page.splitlines() if each.startswith(f"{sample} "))
        return float(line.rpartition(" ")[2])


@asynccontextmanager
async def serving(home: Path, **limits: Any) -> AsyncIterator[Stub]:
    body = prover(home, **limits)
    await body.start()
    try:
        async with grpc.aio.insecure_channel(body.address) as channel:
            yield Stub(body, channel)
    finally:
        await body.stop()

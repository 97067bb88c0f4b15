"""The prover: every goal is searched in a process of its own, and what is proved was checked there.

    problem -> seat -> turn -> goal 1 -> turn -> goal 2 .. -> finished

Seats are bounded: one problem more is refused. Turns are as many as processes may work side by
side, and tenants take them in a ring, so that many problems of one, or many goals of a problem, let
others in between; a portfolio takes a second one that nobody waits for. A caller that leaves takes
the process with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial

from actors.lemmas import Kept, KeptLemmas
from actors.proofs import problem_of, record_of, settings_of
from actors.roles import Site, Station
from actors.turns import Turns
from cluster.config import ThothConfig
from cluster.errors import (
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    Refused,
    Starting,
    ThothError,
)
from cluster.numa import Topology, read_topology
from cluster.proofs import GoalOutcome
from cluster.scheduling.membership import Role
from cluster.telemetry import catalogue
from cluster.wire.proofs import outcome_to_pb
from cluster.wire.serving import CallContext, streaming
from protos.thoth.v1 import prover_pb2 as pb
from protos.thoth.v1 import prover_pb2_grpc
from prover.errors import Unusable
from prover.proving import Proving

_GIB = 2**30
# Weight of the newest duration in the running mean.
_NEWEST = 0.1
_MIN_RETRY_S = 1.0
_MAX_RETRY_S = 60.0


class Prover:
    """Keeps nothing but lemmas, and only where it is told to: without them a problem has the same
    outcomes wherever and however often it is given."""

    def __init__(self, config: ThothConfig, site: Site) -> None:
        self._limits = config.prover
        self._default_timeout_s = config.gateway.default_timeout_s
        self._clock = site.clock
        self.station = Station(Role.PROVER, site, config)
        self._num_processes = config.prover.processes or _half_of_the_cores(read_topology())
        self._turns = Turns(self._num_processes)
        self._threads = ThreadPoolExecutor(self._num_processes, thread_name_prefix="proof")
        self._seated: set[Proving] = set()
        self._num_at_work = 0
        self._mean_s = 0.0
        self._is_stopping = False
        metrics = self.station.metrics
        self._problems = metrics.counter(catalogue.PROBLEMS)
        self._proofs = metrics.counter(catalogue.PROOFS)
        self._proof_seconds = metrics.histogram(catalogue.PROOF_SECONDS)
        self._running = metrics.gauge(catalogue.NUM_PROOFS_RUNNING)
        self._waiting = metrics.gauge(catalogue.NUM_PROOFS_WAITING)
        self._lemmas = KeptLemmas(config.lemmas_dir, config.prover.max_lemmas_bytes, metrics)
        self.station.server.add(
            prover_pb2_grpc.add_ProverServiceServicer_to_server, _Servicer(self)
        )

    @property
    def address(self) -> str:
        """host:port once started."""
        return self.station.server.address

    async def start(self) -> None:
        await self.station.open()
        most_gib = self._limits.max_memory_bytes / _GIB
        several = "es" * (self._num_processes > 1)
        self.station.lease.set_runs_on(
            f"{self._num_processes} process{several} of at most {most_gib:.1f} GiB"
        )
        await self.station.set_ready(True)

    async def stop(self) -> None:
        """Kills what is at work: its callers are told to come again."""
        self._is_stopping = True
        for proving in self._seated:
            proving.stop()
        await self.station.close()
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def prove(self, request: pb.ProveRequest) -> AsyncGenerator[GoalOutcome, None]:
        """Outcomes as they come. Closing the generator kills the process that is at work.

        Raises InvalidArgument with file, line and column for a problem that is of no use, TooLarge,
        Overloaded when too many wait, DeadlineExceeded, Starting when the prover ends.
        """
        with self._counted():
            problem = problem_of(request, self._limits)
            settings = settings_of(request, self._limits)
            kept = await asyncio.to_thread(self._lemmas.of, request.tenant)
            proving = Proving(problem, settings, shelf=kept.shelf)
            asked_s = request.timeout_s if request.HasField("timeout_s") else None
            deadline_s = self._clock.now_s() + (asked_s or self._default_timeout_s)
            with self._seat(proving):
                while not proving.is_done:
                    work = partial(self._prove_next, proving, request, kept)
                    outcome = await self._in_turn(work, request, deadline_s)
                    self._count(outcome)
                    yield outcome

    async def _in_turn(
        self, work: Callable[[int], GoalOutcome], request: pb.ProveRequest, deadline_s: float
    ) -> GoalOutcome:
        loop = asyncio.get_running_loop()
        is_portfolio = request.mode == pb.PROOF_MODE_PORTFOLIO
        try:
            async with (
                asyncio.timeout(deadline_s - self._clock.now_s()),
                self._turn(request.tenant),
                self._turns.spare(int(is_portfolio)) as num_spare,
            ):
                outcome = await loop.run_in_executor(self._threads, work, 1 + num_spare)
        except TimeoutError:
            raise DeadlineExceeded(
                "the time given for all goals has passed", field="timeout_s"
            ) from None
        if self._is_stopping:
            raise Starting("the prover is being stopped")
        return outcome

    def _prove_next(
        self, proving: Proving, request: pb.ProveRequest, kept: Kept, num_processes: int
    ) -> GoalOutcome:
        """In a thread: it waits for processes, certificates may be long, and lemmas are files."""
        outcome = proving.prove_next(num_processes)
        if isinstance(outcome.verdict, Unusable):
            raise InvalidArgument(
                str(outcome.verdict), field="text", limit="what can be read, and does define"
            )
        self._lemmas.keep(outcome, kept)
        return record_of(outcome, request)

    @asynccontextmanager
    async def _turn(self, tenant: str) -> AsyncIterator[None]:
        async with self._turns.turn(tenant):
            self._num_at_work += 1
            self._show()
            try:
                yield
            finally:
                self._num_at_work -= 1
                self._show()

    @contextmanager
    def _seat(self, proving: Proving) -> Iterator[None]:
        most = self._num_processes + self._limits.max_waiting
        if len(self._seated) >= most:
            raise Overloaded(
                f"{len(self._seated)} problems are here, the limit is {most}",
                retry_after_s=self._retry_after_s,
                limit=f"at most {self._limits.max_waiting} waiting (prover.max_waiting)",
            )
        self._seated.add(proving)
        self._show()
        try:
            yield
        finally:
            proving.stop()
            self._seated.discard(proving)
            self._show()

    @property
    def _retry_after_s(self) -> float:
        """A turn comes free about every `mean duration / processes` seconds."""
        return min(max(self._mean_s / self._num_processes, _MIN_RETRY_S), _MAX_RETRY_S)

    def _show(self) -> None:
        self._running.set(self._num_at_work)
        self._waiting.set(len(self._seated) - self._num_at_work)

    def _count(self, outcome: GoalOutcome) -> None:
        self._proofs.labels(outcome.verdict).inc()
        self._proof_seconds.observe(outcome.seconds)
        self._mean_s += (
            _NEWEST * (outcome.seconds - self._mean_s) if self._mean_s else (outcome.seconds)
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Every problem once, by how its call ended."""
        label = "failed"
        try:
            yield
            label = "finished"
        except ThothError as error:
            label = _label(error)
            raise
        except (GeneratorExit, asyncio.CancelledError):
            label = "cancelled"
            raise
        finally:
            self._problems.labels(label).inc()


def _label(error: ThothError) -> str:
    match error:
        case Refused():
            return "refused"
        case Overloaded():
            return "overloaded"
        case DeadlineExceeded():
            return "deadline"
        case _:
            return "failed"


def _half_of_the_cores(topology: Topology) -> int:
    quota = topology.limits.quota_cpus
    cpus = topology.num_cpus if quota is None else min(topology.num_cpus, int(quota))
    return max(1, cpus // 2)


class _Servicer(prover_pb2_grpc.ProverServiceServicer):
    def __init__(self, prover: Prover) -> None:
        self._prover = prover

    @streaming(lambda detail: pb.ProveResponse(error=detail))
    async def Prove(
        self, request: pb.ProveRequest, context: CallContext
    ) -> AsyncIterator[pb.ProveResponse]:
        finished = pb.ProveFinished()
        async with aclosing(self._prover.prove(request)) as outcomes:
            async for outcome in outcomes:
                finished.num_goals += 1
                finished.seconds += outcome.seconds
                yield pb.ProveResponse(outcome=outcome_to_pb(outcome))
        yield pb.ProveResponse(finished=finished)

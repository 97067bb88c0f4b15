"""The global scheduler: says where a request should run, and relays no token."""

from __future__ import annotations

from actors.roles import Site, Station
from cluster.config import ThothConfig
from cluster.ids import Incarnation, RequestId, WorkerName
from cluster.scheduling.membership import Role
from cluster.scheduling.routing import Router, RoutingPolicy
from cluster.telemetry import catalogue
from cluster.wire.generation import load_from_pb
from cluster.wire.serving import CallContext, unary
from protos.thoth.v1 import scheduler_pb2 as pb
from protos.thoth.v1 import scheduler_pb2_grpc


class Scheduler:
    """Soft state only: a restarted scheduler knows the cluster again after one report a worker."""

    def __init__(self, site: Site, config: ThothConfig) -> None:
        self._station = Station(Role.SCHEDULER, site, config)
        self._clock = site.clock
        self._router = Router(RoutingPolicy(expiry_s=config.supervisor.lease_s))
        self._route_seconds = self._station.metrics.histogram(catalogue.ROUTE_SECONDS)
        self._station.server.add(
            scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server, _Servicer(self)
        )

    async def start(self) -> None:
        await self._station.open()
        await self._station.set_ready(True)

    async def stop(self) -> None:
        await self._station.close()

    def route(self, request: pb.RouteRequest) -> pb.RouteResponse:
        with self._route_seconds.time():
            chosen = self._router.route(
                RequestId(request.request_id),
                request.prompt_tokens,
                [WorkerName(name) for name in request.excluded_workers],
                self._clock.now_s(),
            )
        return pb.RouteResponse(
            worker=chosen.worker,
            incarnation=chosen.incarnation,
            address=chosen.address,
            why=chosen.why,
        )

    def report_load(self, request: pb.ReportLoadRequest) -> None:
        source = (
            WorkerName(request.worker),
            Incarnation(request.incarnation),
            request.address,
        )
        self._router.reported(
            source,
            load_from_pb(request.load),
            [RequestId(i) for i in request.request_ids],
            self._clock.now_s(),
        )


class _Servicer(scheduler_pb2_grpc.SchedulerServiceServicer):
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    @unary(pb.RouteResponse)
    async def Route(self, request: pb.RouteRequest, context: CallContext) -> pb.RouteResponse:
        return self._scheduler.route(request)

    @unary(pb.ReportLoadResponse)
    async def ReportLoad(
        self, request: pb.ReportLoadRequest, context: CallContext
    ) -> pb.ReportLoadResponse:
        self._scheduler.report_load(request)
        return pb.ReportLoadResponse()

"""`thoth status`: who is there, and whether an answer can be had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import grpc
import httpx
import typer
from rich.table import Table

from actors.cli.console import results, table, write_json
from actors.cli.options import AsJson, ConfigFile, Settings, settings_in_force
from actors.cli.runfile import RunFile
from actors.cli.workers import load_of
from actors.roles import Endpoints
from cluster.config import ThothConfig
from cluster.errors import ThothError, Unavailable
from cluster.request import WorkerLoad
from cluster.scheduling.membership import Member, Role
from cluster.wire.members import member_from_pb
from cluster.wire.status import from_rpc_error
from protos.thoth.v1 import supervisor_pb2, supervisor_pb2_grpc

_TIMEOUT_S = 5.0

Supervisor = Annotated[
    str | None,
    typer.Option("--supervisor", help="host:port of the supervisor, where `up` was not used."),
]


@dataclass(frozen=True, slots=True)
class Seat:
    """A member as the supervisor describes it. `lease_age_s` None: it never came up."""

    member: Member
    num_restarts: int
    lease_age_s: float | None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A gpu_worker's load, as it says itself."""

    worker: str
    load: WorkerLoad


@dataclass(frozen=True, slots=True)
class Report:
    """`why` says what is missing when `is_ready` is false; `loads` are those of the gpu_workers
    that answer."""

    is_ready: bool
    why: str
    http: str
    uptime_s: float
    seats: tuple[Seat, ...]
    loads: tuple[WorkerStatus, ...] = ()


def status(
    config: ConfigFile = None,
    settings: Settings = None,
    supervisor: Supervisor = None,
    as_json: AsJson = False,
) -> None:
    """Show the members of the cluster; exit status 1 unless it can answer."""
    report = look(settings_in_force(config, settings), supervisor)
    if as_json:
        write_json(report)
    else:
        _show(report)
    if not report.is_ready:
        raise typer.Exit(1)


def look(config: ThothConfig, supervisor: str | None) -> Report:
    """Asks the gateway and the supervisor. Raises Unavailable when the latter does not answer."""
    endpoints = _running(config)
    http = endpoints.http if endpoints else _configured_http(config)
    why = _why_not_ready(http)
    address = supervisor or (endpoints.supervisor if endpoints else None)
    if address is None:
        return Report(not why, why, http, 0.0, ())
    described = _describe(address)
    seats = tuple(_seat(status) for status in described.members)
    absent = [seat.member.name for seat in seats if not seat.member.is_ready]
    why = why or (f"not ready: {', '.join(absent)}" if absent else "")
    loads = tuple(_loads(seat.member for seat in seats))
    return Report(not why, why, http, described.uptime_s, seats, loads)


def _loads(members: Iterable[Member]) -> Iterator[WorkerStatus]:
    """Whoever does not answer has no load: its seat says the rest."""
    for member in members:
        if member.role is Role.GPU_WORKER and member.is_ready:
            with suppress(ThothError):
                yield WorkerStatus(member.name, load_of(member, _TIMEOUT_S))


def seats_of(config: ThothConfig, supervisor: str | None) -> tuple[Seat, ...]:
    """Every seat the supervisor knows of. Raises Unavailable when there is no such cluster, or it
    does not answer."""
    endpoints = _running(config)
    address = supervisor or (endpoints.supervisor if endpoints else None)
    if address is None:
        raise Unavailable(
            f"no cluster runs out of {config.home_dir}: name its supervisor with --supervisor"
        )
    return tuple(_seat(status) for status in _describe(address).members)


def _running(config: ThothConfig) -> Endpoints | None:
    """Of the cluster that was started out of this home and lives."""
    run = RunFile(config.home_dir).read()
    return run.endpoints if run is not None and run.is_alive else None


def _configured_http(config: ThothConfig) -> str:
    return f"http://{config.gateway.http_host}:{config.gateway.http_port}"


def _why_not_ready(http: str) -> str:
    """Empty when the gateway says that it is."""
    try:
        response = httpx.get(f"{http}/ready", timeout=_TIMEOUT_S)
    except httpx.TransportError as error:
        return f"no gateway answers at {http}: {error}"
    return "" if response.is_success else f"the gateway says {response.text.strip()}"


def _describe(address: str) -> supervisor_pb2.DescribeClusterResponse:
    with grpc.insecure_channel(address) as channel:
        stub = supervisor_pb2_grpc.SupervisorServiceStub(channel)
        try:
            return stub.DescribeCluster(supervisor_pb2.DescribeClusterRequest(), timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None


def _seat(status: supervisor_pb2.MemberStatus) -> Seat:
    return Seat(
        member_from_pb(status.member),
        status.num_restarts,
        status.lease_age_s if status.HasField("lease_age_s") else None,
    )


def _show(report: Report) -> None:
    console = results()
    if report.seats:
        rows = table("", "role", "name", "ready", "address", "pid", "restarts", "lease")
        for seat in report.seats:
            rows.add_row(*_row(seat))
        console.print(rows)
        for member in (seat.member for seat in report.seats if seat.member.runs_on):
            said = f"{member.name} runs on {member.runs_on}"
            console.print(said, markup=False, soft_wrap=True)
    if report.loads:
        console.print(_load_table(report.loads))
    said = "ready" if report.is_ready else report.why
    console.print(f"{report.http}: {said}", markup=False, soft_wrap=True)


def _load_table(loads: Iterable[WorkerStatus]) -> Table:
    """Of the device's blocks those that no request and no document in use holds are free."""
    rows = table("", "worker", "running", "waiting", "blocks free", "on host", "host blocks free")
    for worker, load in ((each.worker, each.load) for each in loads):
        free = load.num_free_blocks + load.num_evictable_blocks
        host_free = load.num_host_blocks - load.num_lent_host_blocks
        rows.add_row(
            worker,
            str(load.num_running),
            str(load.num_waiting),
            f"{free} of {load.num_blocks}",
            str(load.num_on_host),
            f"{host_free} of {load.num_host_blocks}" if load.num_host_blocks else "-",
        )
    return rows


def _row(seat: Seat) -> tuple[str, ...]:
    member = seat.member
    return (
        str(member.role),
        member.name,
        "yes" if member.is_ready else "no",
        member.address or "-",
        str(member.pid or "-"),
        str(seat.num_restarts),
        "-" if seat.lease_age_s is None else f"{seat.lease_age_s:.1f} s",
    )

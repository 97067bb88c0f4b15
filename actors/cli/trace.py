"""`thoth trace`: where the time of the last steps went, as a Chrome trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.console import say
from actors.cli.options import ConfigFile, Settings, settings_in_force
from actors.cli.status import Supervisor, seats_of
from actors.cli.workers import asked, ready_workers
from cluster.errors import NotFound
from cluster.ids import RequestId
from cluster.scheduling.membership import Member
from cluster.telemetry.steps import MOST_STEPS, OLDEST_S
from cluster.telemetry.trace import WorkerSteps, chrome_trace
from cluster.wire.steps import steps_from_pb
from protos.thoth.v1 import worker_pb2

_TIMEOUT_S = 30.0
DEFAULT_SECONDS = 10.0

OfRequest = Annotated[
    str | None,
    typer.Option(
        "--request", metavar="ID", help="Only steps from this request's first to its last."
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option("--seconds", min=0.001, help="Only steps of the last so many seconds."),
]
Worker = Annotated[str | None, typer.Option("--worker", help="Only this gpu_worker.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write; by default stdout.")
]


def trace(  # noqa: PLR0913, PLR0917 - one parameter per option
    request: OfRequest = None,
    seconds: Seconds = None,
    worker: Worker = None,
    output: Output = None,
    config: ConfigFile = None,
    settings: Settings = None,
    supervisor: Supervisor = None,
) -> None:
    """Write the steps of one request, or of the last seconds, as a trace for ui.perfetto.dev."""
    if request is None and seconds is None:
        seconds = DEFAULT_SECONDS
    seats = seats_of(settings_in_force(config, settings), supervisor)
    workers = ready_workers((seat.member for seat in seats), worker)
    found = [_ask(member, request, seconds) for member in workers]
    found = [each for each in found if each.steps]
    if not found:
        raise NotFound(_nothing(request, seconds))
    _write(json.dumps(chrome_trace(found, RequestId(request) if request else None)), output)
    num_steps = sum(len(each.steps) for each in found)
    names = ", ".join(each.worker for each in found)
    say(f"{num_steps} steps of {names}: open {output or 'it'} in ui.perfetto.dev")


def _ask(worker: Member, request: str | None, seconds: float | None) -> WorkerSteps:
    asking = worker_pb2.DescribeStepsRequest(request_id=request or "", seconds=seconds)
    answer = asked(worker, lambda s: s.DescribeSteps(asking, timeout=_TIMEOUT_S))
    return WorkerSteps(worker.name, steps_from_pb(answer), answer.now_s)


def _nothing(request: str | None, seconds: float | None) -> str:
    kept = f"a worker remembers its last {MOST_STEPS} steps for {OLDEST_S:.0f} s"
    of_request = f" of request {request}" if request else ""
    within = f" in the last {seconds:g} s" if seconds is not None else ""
    return f"no step{of_request} ended{within}: {kept}"


def _write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text + "\n")

"""`thoth up` and `thoth down`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.console import messages, printable, say, write_json
from actors.cli.foreground import Stop, in_this_process, on_ray, results_apart, run_cluster
from actors.cli.options import AsJson, ConfigFile, Settings, WithoutRay, settings_in_force
from actors.cli.processes import kill_all, terminate, wait_until_gone
from actors.cli.runfile import Run, RunFile
from actors.roles import Endpoints
from cluster.config import ThothConfig
from cluster.errors import Unavailable

_POLL_S = 0.2
DOWN_S = 60.0

Detached = Annotated[bool, typer.Option("--detach", "-d", help="Return when it is ready.")]
UntilEof = Annotated[bool, typer.Option("--until-eof", hidden=True)]


def up(
    config: ConfigFile = None,
    settings: Settings = None,
    local: WithoutRay = False,
    detach: Detached = False,
    as_json: AsJson = False,
    until_eof: UntilEof = False,
) -> None:
    """Start the cluster on a Ray of its own, and stay with it until Ctrl+C."""
    in_force = settings_in_force(config, settings)
    if detach:
        run = start_detached(in_force, _again(config, settings, local), say)
        endpoints = run.endpoints
        if as_json and endpoints is not None:
            write_json(asdict(endpoints) | {"pid": run.process.pid})
        return
    stop = Stop()
    if until_eof:
        stop.follow_input()
    serve = in_this_process if local else on_ray
    if as_json:
        with results_apart() as output:
            run_cluster(
                in_force,
                serve,
                lambda e: print(json.dumps(asdict(e)), file=output, flush=True),
                stop,
            )
    else:
        run_cluster(in_force, serve, _announce, stop)


def _announce(endpoints: Endpoints) -> None:
    say(f"ready: HTTP {endpoints.http}  gRPC {endpoints.grpc}  (Ctrl+C stops it)")


def _again(config: Path | None, settings: list[str] | None, local: bool) -> list[str]:
    """The arguments of the same command in the foreground."""
    arguments = ["--local"] if local else []
    if config is not None:
        arguments += ["--config", str(config.absolute())]
    for setting in settings or ():
        arguments += ["--set", setting]
    return arguments


def start_detached(config: ThothConfig, arguments: list[str], tell: Callable[[str], None]) -> Run:
    """A cluster that outlives this process, ready. Raises Unavailable with the last line of its
    log when it does not come up."""
    run_file = RunFile(config.home_dir)
    run_file.folder.mkdir(parents=True, exist_ok=True)
    with run_file.log.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "actors", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    tell(f"starting, pid {child.pid}, log {run_file.log}")
    try:
        run = _wait_until_ready(run_file, child, config.supervisor.start_s, tell)
    except BaseException:
        _end(child)
        raise
    # It is meant to go on: this process no longer answers for it.
    child.returncode = 0
    tell(f"ready, `thoth down` stops it{_where(run)}")
    return run


def _where(run: Run) -> str:
    endpoints = run.endpoints
    return "" if endpoints is None else f": HTTP {endpoints.http}  gRPC {endpoints.grpc}"


def _wait_until_ready(
    run_file: RunFile,
    child: subprocess.Popen[bytes],
    timeout_s: float,
    tell: Callable[[str], None],
) -> Run:
    deadline_s = time.monotonic() + timeout_s
    told = 0
    while time.monotonic() < deadline_s:
        lines = run_file.log.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines[told:]:
            tell(f"  {printable(line)}")
        told = len(lines)
        run = run_file.read()
        if run is not None and run.process.pid == child.pid and run.endpoints is not None:
            return run
        if child.poll() is not None:
            last = lines[-1] if lines else "(it said nothing)"
            raise Unavailable(f"the cluster did not start: {last.removeprefix('thoth: ')}")
        time.sleep(_POLL_S)
    raise Unavailable(f"the cluster was not ready within {timeout_s:g} s, see {run_file.log}")


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(DOWN_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def down(config: ConfigFile = None, settings: Settings = None) -> None:
    """Stop the cluster that runs out of this home, and everything that belongs to it."""
    run_file = RunFile(settings_in_force(config, settings).home_dir)
    run = run_file.read()
    if run is None:
        say(f"nothing runs out of {run_file.folder.parent}")
        run_file.path.unlink(missing_ok=True)
        return
    everyone = run.everyone()
    terminate(run.process)
    console = messages()
    with console.status(f"stopping pid {run.process.pid}") as status:
        left = wait_until_gone(
            everyone, DOWN_S, lambda num: status.update(f"stopping: {num} processes left")
        )
    killed = kill_all(left)
    run_file.release(run)
    how = f", {len(killed)} of them by force" if killed else ""
    say(f"stopped, processes that were part of it: {len(everyone)}{how}")

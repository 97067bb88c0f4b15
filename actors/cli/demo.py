"""`thoth demo`: from nothing to answers over real documents, and back to nothing."""

from __future__ import annotations

import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.ask import show_rest, stream_text
from actors.cli.console import complain, messages, say
from actors.cli.ingest import Source, Tally, send
from actors.cli.options import ConfigFile, Settings, WithoutRay, settings_in_force
from actors.cli.processes import family, identify, kill_all, wait_until_gone
from cluster.client import Answer, AskOptions, ChatRole, Client, Message
from cluster.client.local import ClusterProcess, Launch
from cluster.config import ThothConfig, parse_overrides
from cluster.documents.reference import REFERENCE_COLLECTION
from cluster.errors import Unavailable

QUESTIONS = (
    "How does the with statement use a context manager?",
    "When is the finally clause of a try statement executed?",
    "What happens when a break statement is executed in a loop?",
)
# A processor reads a few hundred tokens of prompt per second: three passages are a few seconds.
OPTIONS = AskOptions(collections=(REFERENCE_COLLECTION,), top_k=3, max_tokens=96, temperature=0.0)
_GONE_S = 10.0
_PORTS = range(20_000, 32_000)  # below what systems give to connections, above Ray's own
# Serve logs every request, and until all is ready there is only this one.
_READY_PROBE = "GET /ready"

Home = Annotated[
    Path | None, typer.Option("--home", help="Kept afterwards; by default a temporary folder.")
]


def demo(
    home: Home = None,
    local: WithoutRay = False,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Start a cluster, ingest Python's language reference, ask three questions and one of them
    again, stop it all."""
    started_s = time.monotonic()
    with ExitStack() as stack:
        folder = home or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thoth-")))
        overrides = _overrides(folder, parse_overrides(settings or ()))
        in_force = settings_in_force(config, [f"{k}={v}" for k, v in overrides.items()])
        folder.mkdir(parents=True, exist_ok=True)
        flags = ("--local",) if local else ()
        launch = Launch(config, overrides, flags, folder / "up.log")
        cluster = stack.enter_context(_running(launch, in_force))
        client = stack.enter_context(Client(cluster.endpoints.grpc))
        _ingest(client, in_force)
        first = _ask(client, f"[1/4] {QUESTIONS[0]}", QUESTIONS[0])
        say(f"first answer {time.monotonic() - started_s:.0f} s after the start")
        for number, question in enumerate(QUESTIONS[1:], start=2):
            _ask(client, f"[{number}/4] {question}", question)
        _compare(first, _ask(client, f"[4/4] again: {QUESTIONS[0]}", QUESTIONS[0]))
    say("everything that was started is stopped")


def _overrides(home: Path, said: dict[str, str]) -> dict[str, str]:
    """A home and ports of its own, so that it meets no other cluster."""
    own = {
        "home": str(home.absolute()),
        "gateway.http_port": str(free_port()),
        "gateway.grpc_port": str(free_port()),
    }
    return own | said


def free_port() -> int:
    """A port that nobody listened on a moment ago, and that the system gives to nobody who asks for
    any: it may take half a minute until it is listened on."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Unavailable(f"no port of {_PORTS.start} to {_PORTS.stop - 1} is free")


@contextmanager
def _running(launch: Launch, config: ThothConfig) -> Iterator[ClusterProcess]:
    where = "in one process" if "--local" in launch.flags else "on a local Ray"
    say(f"starting the cluster {where}: model {config.model.source}, home {config.home_dir}")
    cluster = ClusterProcess(launch)
    try:
        # The cluster gives up by itself after `start_s`, and knows better why.
        _wait_until_ready(cluster, config.supervisor.start_s + 60.0)
        yield cluster
    finally:
        _stop(cluster)


def _wait_until_ready(cluster: ClusterProcess, timeout_s: float) -> None:
    """Shows the last thing the cluster said. Raises Unavailable when it ends or takes too long."""
    console = messages()
    started_s = time.monotonic()
    said = ""
    with console.status("starting") as spinner:
        while cluster.poll(0.5) is None:
            passed_s = time.monotonic() - started_s
            if passed_s > timeout_s:
                raise Unavailable(f"the cluster was not ready within {timeout_s:g} s: {said}")
            line = _without_time(cluster.last_words())
            spinner.update(f"starting, {passed_s:.0f} s: {line[:90]}")
            if line != said and not console.is_terminal and _READY_PROBE not in line:
                say(f"  {passed_s:3.0f} s  {line}")
            said = line
    say(f"ready after {time.monotonic() - started_s:.0f} s: HTTP {cluster.endpoints.http}")


def _without_time(line: str) -> str:
    """A log line from its level on: the same message again is no news."""
    _, info, said = line.partition(" INFO ")
    return said if info else line


def _stop(cluster: ClusterProcess) -> None:
    """Stops all of it; Ctrl+C does not interrupt this, it is what the user wants."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with messages().status("stopping the cluster"):
            root = identify(cluster.pid)
            everyone = () if root is None else family(root)
            cluster.stop()
            left = wait_until_gone(everyone, _GONE_S)
        for process in kill_all(left):
            complain(f"pid {process.pid} of the cluster had to be killed")
    finally:
        signal.signal(signal.SIGINT, before)


def _ingest(client: Client, config: ThothConfig) -> None:
    started_s = time.monotonic()
    tally = Tally(REFERENCE_COLLECTION)
    source = Source(tally, config.retriever.max_document_bytes)
    source.add_reference()
    say(f"ingesting {source.num_documents} topics of Python's language reference")
    send(client, source, tally)
    say(f"{tally.said()}, in {time.monotonic() - started_s:.1f} s")


def _ask(client: Client, heading: str, question: str) -> Answer:
    sys.stdout.write(f"\n{heading}\n\n")
    answer = stream_text(client, (Message(ChatRole.USER, question),), OPTIONS)
    show_rest(answer)
    return answer


def _compare(first: Answer, again: Answer) -> None:
    """What it was worth that the documents were there already."""
    before_s, after_s = (a.timings.time_to_first_token_s for a in (first, again))
    usage = again.usage
    same = "the same answer" if again.text == first.text else "another answer"
    say(
        f"\nasked again: {usage.cached.total} of {usage.prompt_tokens} prompt tokens reused, "
        f"first token after {after_s:.2f} s instead of {before_s:.2f} s, {same}"
    )

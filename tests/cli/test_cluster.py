"""A cluster in one process, by the command and by the SDK, on a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.cli.processes import identify, is_alive
from actors.cli.runfile import RunFile
from cluster.client import Client, Document
from cluster.errors import NotFound, Unavailable
from tests.cli.running import clean_environment, thoth
from tests.telemetry.chrome import check_trace, complete


@pytest.fixture(scope="module")
def home(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The settings of a detached cluster that runs."""
    folder = tmp_path_factory.mktemp("home")
    settings = ["--set", f"home={folder}"]
    own = ["--set", f"model.source={tiny_folder}", "--set", "cache.host_bytes=16777216"]
    own += ["--set", "gateway.http_port=0", "--set", "gateway.grpc_port=0"]
    up = thoth("up", "--local", "--detach", *settings, *own)
    assert up.returncode == 0, up.stderr
    run = RunFile(folder).read()
    assert run is not None
    yield settings
    assert thoth("down", *settings).returncode == 0
    assert not is_alive(run.process)
    assert RunFile(folder).read() is None


def test_status_lists_every_role_as_ready(home: list[str]) -> None:
    done = thoth("status", "--json", *home)
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert {seat["member"]["role"] for seat in report["seats"]} >= {
        "scheduler", "retriever", "gpu_worker", "prover", "gateway",
    }  # fmt: skip
    assert all(seat["member"]["is_ready"] for seat in report["seats"])
    [worker] = report["loads"]
    load = worker["load"]
    assert worker["worker"] == "gpu_worker-0"
    assert load["num_blocks"] >= load["num_free_blocks"] + load["num_evictable_blocks"] > 0
    assert {"num_host_blocks", "num_lent_host_blocks", "num_on_host"} <= load.keys()
    shown = thoth("status", *home).stdout
    assert "host blocks free" in shown
    assert f"of {load['num_blocks']}" in shown


def test_a_second_cluster_in_the_same_home_is_refused(home: list[str]) -> None:
    done = thoth("up", "--local", *home)
    assert done.returncode == 1
    assert "a cluster runs out of" in done.stderr
    assert done.stderr.count("\n") == 1


def test_bad_files_are_named_and_the_others_go_in(home: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# With\nThe with statement wraps a block.")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "image.png").write_bytes(b"x")
    done = thoth("ingest", str(tmp_path), "-k", "files", "--json", *home)
    tally = json.loads(done.stdout)
    assert done.returncode == 1
    assert (tally["num_changed"], tally["num_skipped"]) == (1, 1)
    assert "bad.txt is not UTF-8" in tally["failures"][0]
    (tmp_path / "bad.txt").unlink()
    again = thoth("ingest", str(tmp_path), "-k", "files", *home)
    assert again.returncode == 0
    assert "0 changed, 1 unchanged" in again.stdout


def test_an_answer_comes_with_its_documents_and_times(home: list[str]) -> None:
    thoth("ingest", "--stdlib", "-k", "py", *home)
    options = ["-k", "py", "--top-k", "2", "--max-tokens", "4", "--temperature", "0"]
    done = thoth("ask", "What does yield do?", *options, *home)
    assert done.returncode == 0, done.stderr
    assert "Documents" in done.stdout
    assert "retrieval" in done.stdout
    assert "prefill" in done.stdout
    answer = json.loads(thoth("ask", "What does yield do?", "--json", *options, *home).stdout)
    assert len(answer["citations"]) == 2
    assert answer["text"].strip() in done.stdout
    assert answer["finish_reason"] == "length"


def test_the_cache_shows_the_documents_that_were_read(home: list[str]) -> None:
    thoth("ingest", "--stdlib", "-k", "py", *home)
    options = ["-k", "py", "--top-k", "2", "--max-tokens", "4", "--temperature", "0"]
    thoth("ask", "How is a list sliced?", *options, *home)
    again = json.loads(thoth("ask", "How is a list sliced?", "--json", *options, *home).stdout)
    assert again["usage"]["cached"]["device"] > 0
    said = thoth("cache", "show", "--json", *home)
    assert said.returncode == 0, said.stderr
    (worker,) = json.loads(said.stdout)
    assert worker["worker"] == "gpu_worker-0"
    assert [tier["tier"] for tier in worker["tiers"]] == ["device", "host"]
    assert all(t["free"] + t["cached"] <= t["blocks"] for t in worker["tiers"])
    nodes = {node["key"]: node for node in worker["nodes"]}
    assert len(nodes) == worker["num_nodes"]
    assert all(node["parent"] in {None, *nodes} for node in nodes.values())
    read = {(c["chunk"]["document_id"], c["chunk"]["chunk"]) for c in again["citations"]}
    kept = {(node["document_id"], node["chunk"]): node for node in nodes.values()}
    assert all(kept[passage]["tiers"] == ["device"] for passage in read)
    assert {node["collection"] for node in nodes.values()} == {"", "py"}
    assert "salt" not in said.stdout


def test_the_tree_is_drawn_with_as_many_nodes_as_were_asked_for(home: list[str]) -> None:
    thoth("ingest", "--stdlib", "-k", "py", *home)
    options = ["-k", "py", "--top-k", "2", "--max-tokens", "1"]
    answer = json.loads(thoth("ask", "What is a tuple?", "--json", *options, *home).stdout)
    cited = answer["citations"][0]["chunk"]["document_id"]
    whole = thoth("cache", "show", *home)
    assert whole.returncode == 0, whole.stderr
    assert f"py/{cited}" in whole.stdout
    assert "system prompt" in whole.stdout
    assert "policy pgdsf" in whole.stdout
    one = thoth("cache", "show", "--max-nodes", "1", *home)
    assert "1 of " in one.stdout
    assert "py/" not in one.stdout
    refused = thoth("cache", "show", "--max-nodes", "0", *home)
    assert refused.returncode == 2


def test_the_steps_of_one_request_are_a_trace(home: list[str], tmp_path: Path) -> None:
    options = ["--json", "--max-tokens", "6", "--temperature", "0"]
    answer = json.loads(thoth("ask", "What is a tuple?", *options, *home).stdout)
    file = tmp_path / "trace.json"
    done = thoth("trace", "--request", answer["request_id"], "-o", str(file), *home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert f"steps of gpu_worker-0: open {file} in ui.perfetto.dev" in done.stderr
    events = json.loads(file.read_text())["traceEvents"]
    check_trace(events)
    steps = [e for e in complete(events) if e["name"].startswith("step ")]
    assert f"{len(steps)} steps" in done.stderr
    # One for the prompt, which gives the first token, and one for each of the other five.
    assert len(steps) == 6
    assert all(step["args"]["kind"] == "gpu_only" for step in steps)
    assert sum(step["args"]["rows"] for step in steps) == answer["usage"]["prompt_tokens"] + 5
    assert steps[-1]["args"]["finished"] == [answer["request_id"]]
    linear_s = sum(e["args"]["seconds"] for e in complete(events) if e["name"] == "linear")
    assert 0.0 < linear_s < sum(step["args"]["measured_s"] for step in steps)
    assert sum(e["name"] == "first token" for e in events) == 1


def test_the_steps_of_the_last_seconds_are_a_trace_on_stdout(home: list[str]) -> None:
    thoth("ask", "Which?", "--max-tokens", "3", *home)
    done = thoth("trace", "--seconds", "120", "--worker", "gpu_worker-0", *home)
    assert done.returncode == 0, done.stderr
    trace = json.loads(done.stdout)
    check_trace(trace["traceEvents"])
    assert trace["otherData"]["workers"] == ["gpu_worker-0"]
    assert {e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"} >= {"gpu_worker-0"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--request", "nobody"], "no step of request nobody ended: a worker remembers its last"),
        (["--worker", "gpu_worker-9"], "no gpu_worker-9 is ready"),
    ],
)
def test_a_trace_of_nothing_is_one_line(home: list[str], options: list[str], said: str) -> None:
    done = thoth("trace", *options, *home)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert said in line
    assert line.endswith("(NOT_FOUND)")


def test_an_answer_in_json_is_drawn_again_from_its_seed(home: list[str], tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": ["red", "green", "blue", "grey", "gold", "black"]}')
    drawn = ["--temperature", "1.5", "--top-p", "0.95", "--json-schema", str(schema)]
    first, second, other = (
        json.loads(thoth("ask", "Which?", "--json", "--seed", seed, *drawn, *home).stdout)["text"]
        for seed in ("4", "4", "5")
    )
    assert first == second
    assert {json.loads(first), json.loads(other)} <= {
        "red", "green", "blue", "grey", "gold", "black",
    }  # fmt: skip
    stopped = thoth("ask", "Which?", "--json", "--stop", "e", "--stop", "l", *drawn, *home)
    assert not {"e", "l"} & set(json.loads(stopped.stdout)["text"])


def test_a_schema_that_cannot_be_used_is_one_line(home: list[str], tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "strnig"}')
    done = thoth("ask", "Which?", "--json-schema", str(schema), *home)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "strnig" in line
    missing = thoth("ask", "Which?", "--json-schema", str(tmp_path / "none.json"), *home)
    assert missing.returncode != 0


def test_an_error_of_the_cluster_is_one_line(home: list[str]) -> None:
    done = thoth("ask", "hi", "-k", "nope", *home, timeout_s=30)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.endswith("(NOT_FOUND)")
    assert "'nope'" in line


def test_a_chat_goes_on_until_its_input_ends(home: list[str]) -> None:
    options = ["--max-tokens", "3", "--temperature", "0.8", "--top-p", "0.9", "--seed", "1"]
    done = thoth("chat", *options, *home, stdin="hello\n\nagain\n")
    assert done.returncode == 0
    assert done.stdout.count("\n") >= 2


def test_a_client_has_a_cluster_of_its_own(tiny_folder: Path, tmp_path: Path) -> None:
    overrides = {"home": str(tmp_path), "model.source": str(tiny_folder)}
    with Client.local(overrides=overrides) as client:
        run = RunFile(tmp_path).read()
        assert run is not None
        client.collections.create("kb")
        client.documents.upsert("kb", [Document("a", "A", "Grüße, and a with statement.")])
        answer = client.ask("with?", collections=["kb"], max_tokens=3, temperature=0.0)
        assert answer.citations[0].chunk.document_id == "a"
        with client.stream("with?", collections=["kb"], max_tokens=3, temperature=0.0) as stream:
            list(stream)
        assert stream.answer().text == answer.text
        with pytest.raises(NotFound):
            client.retrieve("x", ["nope"])
    assert not is_alive(run.process)


def test_a_cluster_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"did not start: gateway\.http_host"):
        Client.local(overrides={"home": str(tmp_path), "gateway.http_host": "0.0.0.0"})
    assert RunFile(tmp_path).read() is None


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["ctrl-c", "term"]
)
def test_a_signal_stops_the_foreground(
    number: signal.Signals, status: int, tiny_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-P", "-m", "actors", "up", "--local", "--json"]
    for setting in (
        f"home={tmp_path}", f"model.source={tiny_folder}",
        "gateway.http_port=0", "gateway.grpc_port=0",
    ):  # fmt: skip
        command += ["--set", setting]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment()
    ) as up:
        assert up.stdout is not None
        assert set(json.loads(up.stdout.readline())) == {"http", "grpc", "supervisor"}
        os.kill(up.pid, number)
        assert up.wait(60) == status
    assert identify(up.pid) is None
    assert RunFile(tmp_path).read() is None


@contextmanager
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl+C, and so do its children; not these."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_the_demo_leaves_nothing_running(tiny_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "actors", "demo", "--local", "--home", str(tmp_path)]
    command += ["--set", f"model.source={tiny_folder}"]
    # A token a step, or the demo could be over before it is interrupted.
    command += ["--set", "gpu_worker.step_tokens=1", "--set", "gpu_worker.max_running=1"]
    with (
        interruptible(),
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()
        ) as demo,
    ):
        assert demo.stdout is not None
        first_heading = next(line for line in demo.stdout if line.strip())
        assert first_heading.startswith(b"[1/4]")
        run = RunFile(tmp_path).read()
        assert run is not None
        assert run.process.pid != demo.pid
        os.kill(demo.pid, signal.SIGINT)
        said, errors = demo.communicate(timeout=60)
        assert demo.returncode == 130, (said + errors).decode()
    assert not is_alive(run.process)
    assert RunFile(tmp_path).read() is None, (said + errors).decode()

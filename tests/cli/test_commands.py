"""The command as it is run: what it prints where, and its exit status."""

from __future__ import annotations

import hashlib
import json
import socket
import stat
from pathlib import Path

import pytest

from actors.cli import describe
from actors.cli.checks import is_free
from actors.cli.console import plain, printable
from actors.cli.keys import add_key
from actors.gateway.auth import Caller, load_keyring
from cluster.errors import InvalidArgument
from tests.cli.running import thoth


def test_the_schema_describes_every_section() -> None:
    schema = json.loads(thoth("config", "schema").stdout)
    assert schema["additionalProperties"] is False
    assert "http_port" in schema["$defs"]["GatewayConfig"]["properties"]


def test_what_is_in_force_is_shown_with_flags_over_variables() -> None:
    done = thoth(
        "config", "show", "--json", "--set", "gateway.http_port=8003",
        environ={"THOTH_GATEWAY__HTTP_PORT": "8002", "THOTH_LOG_LEVEL": "ERROR"},
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert (shown["gateway"]["http_port"], shown["log_level"]) == (8003, "ERROR")


def test_a_wrong_setting_is_one_line_on_stderr(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("gateway: {http_prot: 1}")
    done = thoth("config", "validate", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"thoth: {file}: gateway.http_prot is not a setting")
    assert "did you mean gateway.http_port?" in line


def test_a_valid_file_is_said_to_be_so(tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text("gateway: {http_port: 1}")
    done = thoth("config", "validate", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: valid\n")


def test_a_command_line_that_makes_no_sense_is_status_2() -> None:
    done = thoth("answer")
    assert done.returncode == 2
    assert "answer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["ask", "hi"], ["ingest", "--stdlib"]])
def test_no_cluster_is_one_line_naming_the_endpoint(command: list[str], tmp_path: Path) -> None:
    done = thoth(*command, "--set", f"home={tmp_path}", environ={"THOTH_ENDPOINT": "127.0.0.1:1"})
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("thoth: no answer from 127.0.0.1:1")


def test_status_without_a_cluster_is_not_ready(tmp_path: Path) -> None:
    settings = ("--set", f"home={tmp_path}", "--set", "gateway.http_port=1")
    done = thoth("status", "--json", *settings)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["is_ready"] is False
    assert "no gateway answers" in report["why"]


def test_down_is_idempotent(tmp_path: Path) -> None:
    done = thoth("down", "--set", f"home={tmp_path}")
    assert (done.returncode, done.stderr) == (0, f"nothing runs out of {tmp_path}\n")


def test_the_cache_of_no_cluster_is_one_line(tmp_path: Path) -> None:
    done = thoth("cache", "show", "--set", f"home={tmp_path}")
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert f"no cluster runs out of {tmp_path}: name its supervisor with --supervisor" in line
    assert line.endswith("(UNAVAILABLE)")


def test_the_cache_of_a_supervisor_that_is_silent_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    supervisor = f"127.0.0.1:{port}"
    done = thoth("cache", "show", "--set", f"home={tmp_path}", "--supervisor", supervisor)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert supervisor in line
    assert line.endswith("(LOST)")


def test_the_doctor_reports_every_check_as_json(tmp_path: Path, tiny_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = thoth(
            "doctor", "--json", "--set", f"home={tmp_path}", "--set", f"gateway.http_port={port}",
            "--set", "gateway.grpc_port=0", "--set", f"model.source={tiny_folder}",
            environ={"RAY_AUTH_MODE": "disabled"},
        )  # fmt: skip
    assert done.returncode == 1
    said = json.loads(done.stdout)
    levels = {check["name"]: check["level"] for check in said["checks"]}
    assert said["ok"] is False
    assert levels["http port"] == "fail"
    assert levels["grpc port"] == "ok"
    assert levels["ray authentication"] == "warn"
    assert {levels[name] for name in ("torch", "ray", "faiss", "home", "model")} == {"ok"}
    assert {"cores", "memory", "numa", "gpus", "pinning"} <= levels.keys()
    assert all(check["advice"] for check in said["checks"] if check["level"] == "fail")


def test_a_model_that_is_not_there_fails_the_doctor(tmp_path: Path) -> None:
    done = thoth("doctor", "--json", "--set", f"home={tmp_path}", "--set", "model.source=/nope")
    levels = {check["name"]: check["level"] for check in json.loads(done.stdout)["checks"]}
    assert (done.returncode, levels["model"]) == (1, "fail")


def test_a_new_key_opens_the_door_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    key = add_key("alice", file)
    other = add_key("bob", file)
    assert key not in file.read_text()
    assert hashlib.sha256(key.encode()).hexdigest() in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keyring = load_keyring(file)
    assert keyring.authenticate(Caller("10.0.0.1", f"Bearer {key}")) == "alice"
    assert keyring.authenticate(Caller("10.0.0.1", f"Bearer {other}")) == "bob"


@pytest.mark.parametrize("name", ["", "a:b", "a b", "x" * 65, "a\n"])
def test_a_key_needs_a_name_that_fits_its_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="NAME is"):
        add_key(name, tmp_path / "keys")


def test_a_name_has_one_key(tmp_path: Path) -> None:
    add_key("alice", tmp_path / "keys")
    with pytest.raises(InvalidArgument, match="a key for alice already"):
        add_key("alice", tmp_path / "keys")


def test_an_error_is_one_line_with_what_it_knows() -> None:
    error = InvalidArgument("top_k is 0\nhere", field="top_k", limit="1 to 64")
    error.request_id = "req-1"
    assert describe(error) == "top_k is 0 here (limit: 1 to 64) [req-1] (INVALID_ARGUMENT)"


def test_documents_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\x9b\x07\n\tü") == "a\ufffd[2Jb\ufffd\ufffd\ufffd\n\tü"
    assert plain("[red]x[/red]\n y").plain == "[red]x[/red] y"
    assert plain("[red]x").spans == []


def test_a_taken_port_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free("127.0.0.1", port)
    assert is_free("127.0.0.1", port)

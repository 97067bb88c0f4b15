"""The command line: what it says, its exit status, and what it makes of input of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import prover
from actors.cli.app import build_app
from prover.command import main
from prover.processes import Outcome
from prover.verdict import Proved

ROOT = Path(__file__).parents[2]
NAT = """data nat = zero | succ(nat)
fun plus(nat, nat): nat
plus(zero, y) = y
plus(succ(x), y) = succ(plus(x, y))
"""
TRUE = f"{NAT}prove forall x: nat. plus(x, zero) = x\n"
FALSE = f"{NAT}prove forall x: nat. plus(x, x) = x\n"
OPEN = f"{NAT}free f(nat): nat\nprove forall x: nat. f(plus(x, x)) = f(f(x))\n"
SMT = "(declare-datatype N ((Z) (S (p N))))"
DEEP = "(S " * 10_000 + "Z" + ")" * 10_000
ODD: dict[str, tuple[str | bytes, str]] = {
    "empty.smt2": (b"", "1:1: the file is empty"),
    "blank.prove": (b"  \n# nothing\n", "the file is empty"),
    "unbalanced.smt2": (b"(prove (= 1 1)", "1:1: a ( is never closed"),
    "too many.smt2": (b"(prove (= 1 1)))", "1:16: a ) closes nothing"),
    "unknown symbol.smt2": (f"{SMT}(prove (= (g Z) Z))", "1:47: (g Z): unknown symbol"),
    "unknown sort.smt2": (b"(prove (forall ((x T)) (= x x)))", "1:20: T: unknown sort"),
    "unknown command.smt2": (b"(exploit 1)", "1:1: (exploit 1): unknown command"),
    "arity.smt2": (f"{SMT}(prove (= (S Z Z) Z))", "S takes 1 arguments, not 2"),
    "arity.prove": (f"{NAT}prove plus(zero) = zero", "5:20: zero: it has sort nat"),
    "sorts.smt2": (f"{SMT}(prove (= Z true))", "it has sort"),
    "sorts.prove": (f"{NAT}prove zero = 1", "it has sort"),
    "deep.smt2": (f"{SMT}(prove (= {DEEP} Z))", "nested deeper than 1000"),
    "deep.prove": (f"{NAT}prove {'succ(' * 10_000}zero{')' * 10_000} = zero", "nested deeper"),
    "nul.smt2": (b"(prove (= 1 \0 1))", "1:13: control character 0x00"),
    "nuls.prove": (b"\0" * 1000, "1:1: control character 0x00"),
    "bytes.smt2": (b"(prove \xff\xfe)", "1:8: it is not UTF-8 text"),
    "big.smt2": (b"(" * 10_000_000, "1:1: it is longer than"),
    "brackets.smt2": (b"()" * 100_000, "1:1: (): a command was expected"),
    "quote.smt2": (b"(prove |x)", "1:8: a quoted symbol is not closed"),
    "forever.prove": (f"{NAT}fun f(nat): nat\nf(x) = f(x)\nprove f(zero) = zero", "may not term"),
    "partial.prove": (
        f"{NAT}fun f(nat): nat\nf(zero) = zero\nprove f(zero) = zero",
        "not say what",
    ),
    "twice.prove": (
        f"{NAT}fun f(nat): nat\nf(x) = x\nf(zero) = succ(zero)\nprove f(zero) = zero",
        "two equations disagree",
    ),
    "no value.prove": (b"data t = make(t)\nprove forall x: t. x = x", "has no value"),
    "no goal.smt2": (SMT, "there is no goal"),
    "huge number.smt2": (f"(prove (= {'9' * 100_000} 1))", "more than 1000 digits"),
    "lets.smt2": (
        f"{SMT}(declare-fun f (N N) N)(prove (forall ((x0 N)) "
        + "".join(f"(let ((x{i + 1} (f x{i} x{i}))) " for i in range(60))
        + f"(= x60 Z){')' * 62}",
        "larger than 100000 symbols",
    ),
}


def _file(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", ODD)
def test_input_of_no_use_is_refused_with_a_clear_error(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, says = ODD[name]
    file = _file(tmp_path, name, text)
    began_s = time.process_time()
    assert main([str(file)]) == 2
    assert time.process_time() - began_s < 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{file}:")
    assert says in said.err
    assert "Traceback" not in said.err
    assert len(said.err) < 1000


@pytest.mark.parametrize("what", ["nothing", "folder", "endless"])
def test_a_file_that_cannot_be_read_is_refused(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = {"nothing": tmp_path / "none", "folder": tmp_path, "endless": Path("/dev/zero")}[what]
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"{path}:1:1: ")


def test_what_is_proved_is_said_and_its_certificate_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, certificate = _file(tmp_path, "a.prove", TRUE), tmp_path / "a.json"
    assert main([str(file), "--certificate", str(certificate)]) == 0
    said = capsys.readouterr()
    assert f"{file}: goal: proved after " in said.out
    assert "for all x: nat. (plus x zero) = x" in said.out
    assert main([str(file), "--check", str(certificate)]) == 0
    assert capsys.readouterr().out == "proved: for all x: nat. (plus x zero) = x\n"
    other = _file(tmp_path, "b.prove", FALSE)
    assert main([str(other), "--check", str(certificate)]) == 1
    assert "rejected: goal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b"\0\xff", "it is no JSON"),
        (b"7", "malformed"),
        (b'{"format": "thoth-certificate-1"}', "malformed"),
        (b" " * ((1 << 26) + 1), "it is longer than"),
        (None, "No such file"),
    ],
)
def test_what_is_no_certificate_is_rejected(
    text: bytes | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, certificate = _file(tmp_path, "a.prove", TRUE), tmp_path / "a.json"
    if text is not None:
        certificate.write_bytes(text)
    assert main([str(file), "--check", str(certificate)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{certificate}: rejected: ")
    assert says in said


def test_how_a_proof_was_found_is_said_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    proved = Proved({}, "proved: x = x\n  assuming y: y = y", ("by induction", "on x"))
    outcome = Outcome("a.prove", "goal", "x = x", proved, 0.5)
    monkeypatch.setattr("prover.command.prove_all", lambda *given: iter([outcome]))
    assert main(["a.prove", "--explain"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.prove: goal: proved after 0.50 s",
        "  x = x",
        "  assuming y: y = y",
        "  by induction",
        "  on x",
    ]
    assert main(["a.prove"]) == 0
    assert "induction" not in capsys.readouterr().out


def test_what_is_not_proved_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [_file(tmp_path, f"{i}.prove", text) for i, text in enumerate([TRUE, FALSE, OPEN])]
    status = main([*map(str, files), "--steps", "2000", "--time-limit", "20", "--jobs", "2"])
    said = capsys.readouterr()
    assert status == 1
    assert "with x = (succ zero)" in said.out
    assert "the left side is (succ (succ zero))" in said.out
    assert said.err.startswith("1 of 3 proved, but not\n")
    assert f"  {files[1]}: goal: refuted\n" in said.err
    assert main([str(files[0]), str(_file(tmp_path, "none.smt2", ""))]) == 2


def test_each_goal_is_an_object_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [_file(tmp_path, f"{i}.prove", text) for i, text in enumerate([TRUE, FALSE, "prove"])]
    assert main(["--json", *map(str, files)]) == 2
    proved, refuted, odd = map(json.loads, capsys.readouterr().out.splitlines())
    assert proved["verdict"] == "proved"
    assert proved["checked"] == f"proved: {proved['statement']}"
    assert refuted["values"] == {"x": "(succ zero)"}
    assert (odd["verdict"], odd["goal"]) == ("unusable", "")
    assert odd["message"].startswith(f"{files[2]}:1:6: expected a name")


@pytest.mark.parametrize(
    "arguments",
    [[], ["a", "--mode", "wild"], ["a", "--time-limit", "0"], ["a", "--jobs", "no"]],
)
def test_a_wrong_command_line_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_one_certificate_is_for_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a", "b", "--certificate", "c"]) == 2
    assert main(["a", "b", "--check", "c"]) == 2
    assert capsys.readouterr().err == "one certificate is for one file\n" * 2


def test_the_program_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(_file(tmp_path, "a.prove", TRUE)), "--show"]) == 0
    assert "  2  (plus (succ x) y) = (succ (plus x y))" in capsys.readouterr().out


def test_thoth_prove_does_the_same(tmp_path: Path) -> None:
    good, bad = _file(tmp_path, "a.prove", TRUE), _file(tmp_path, "b.prove", "prove")
    command = CliRunner()
    assert command.invoke(build_app(), ["prove", str(good), "--time-limit", "20"]).exit_code == 0
    assert command.invoke(build_app(), ["prove", str(bad)]).exit_code == 2
    assert command.invoke(build_app(), ["prove"]).exit_code == 2


def test_the_module_runs_by_itself(tmp_path: Path) -> None:
    file = _file(tmp_path, "a.prove", TRUE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "prover", str(file)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_library_proves_a_file(tmp_path: Path) -> None:
    (outcome,) = prover.prove(_file(tmp_path, "a.prove", TRUE))
    assert isinstance(outcome.verdict, Proved)

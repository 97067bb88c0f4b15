"""Problems are printed for another prover, and answers become rows and verdicts."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import prover
from benchmarks.peers.catalogue import Places
from benchmarks.prover import Part, measure
from benchmarks.prover_rows import DIRECTED, ENUMERATIVE, Answers, Task, rows, verdicts
from benchmarks.prover_smtlib import inducible, plain, wrapped
from benchmarks.prover_solvers import CVC5, PROVED, REFUTED, UNKNOWN, Answer, Solver
from benchmarks.result import CannotRun
from prover.syntax.problem import parse

PROBLEM = """
sort elem
data nat = zero | succ(nat)
data list = nil | cons(elem, list)
fun len(list): nat
len(nil) = zero
len(cons(x, xs)) = succ(len(xs))
fun map(elem -> elem, list): list
map(f, nil) = nil
map(f, cons(x, xs)) = cons(f(x), map(f, xs))
free mark(bool, elem): elem
free below(nat, nat): bool
assume below(zero, zero)
prove forall xs: list, f: elem -> elem, n: nat.
  below(n, n) => len(map(mark(true), map(f, xs))) = len(xs)
"""


def _problem() -> tuple[str, str]:
    program = parse(PROBLEM.encode(), "a.prove")
    goal = program.goals[0]
    first, second = inducible(program, goal)
    assert (first.name, second.name) == ("xs", "n")
    return plain(program, goal), wrapped(program, goal, first)


def test_a_problem_is_printed_with_every_equation() -> None:
    text, _ = _problem()
    assert "(assert (= (|f.len| |c.nil| ) |c.zero|))" in text
    assert (
        "(assert (forall ((|v.f| |s.(=> elem elem)|) (|v.x| |s.elem|) (|v.xs| |s.list|)) "
        "(= (|f.map| |v.f| (|c.cons| |v.x| |v.xs| ) ) "
        "(|c.cons| (|apply.(=> elem elem)| |v.f| |v.x| ) (|f.map| |v.f| |v.xs| ) ))))" in text
    )
    assert "(assert (|f.below| |c.zero| |c.zero| ))" in text
    assert (
        "(assert (not (forall ((|v.xs| |s.list|) (|v.f| |s.(=> elem elem)|) (|v.n| |s.nat|)) "
        "(=> (|f.below| |v.n| |v.n| ) (= (|f.len| (|f.map| (|p.mark.Boolelem.1| true ) "
        "(|f.map| |v.f| |v.xs| ) ) ) (|f.len| |v.xs| ))))))" in text
    )


def test_a_partial_application_is_applied_by_an_equation() -> None:
    text, _ = _problem()
    assert (
        "(assert (forall ((|v.a0| Bool) (|v.a1| |s.elem|)) "
        "(= (|apply.(=> elem elem)| (|p.mark.Boolelem.1| |v.a0| ) |v.a1|) "
        "(|f.mark| |v.a0| |v.a1| ))))" in text
    )


def test_a_wrapped_goal_is_a_predicate_of_one_variable() -> None:
    _, text = _problem()
    assert "(declare-fun |wrapped| (|s.list|) Bool)" in text
    assert "(assert (not (forall ((|v.xs| |s.list|)) (|wrapped| |v.xs|))))" in text
    said = "(assert (forall ((|v.xs| |s.list|)) (= (|wrapped| |v.xs|) (forall ((|v.f| "
    assert said in text


def test_cvc5_reads_what_is_printed(tmp_path: Path) -> None:
    python = Places.standard().python("cvc5")
    if not python.exists():
        pytest.skip("no cvc5 below THOTH_PEERS: `make peers`")
    for text in _problem():
        file = tmp_path / "a.smt2"
        file.write_text(text)
        command = [str(python), str(CVC5), str(file), "5", "quant-ind"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["unsat"], done.stderr


TRUE, OTHER, FALSE = Task("laws", "a"), Task("laws", "b"), Task("laws", "false1", is_false=True)


def _found() -> Answers:
    return Answers(
        5.0,
        (TRUE, OTHER, FALSE),
        {
            DIRECTED: {
                TRUE: Answer(PROVED, 1.0),
                OTHER: Answer(UNKNOWN, 5.0),
                FALSE: Answer(REFUTED, 0.5),
            },
            ENUMERATIVE: {
                TRUE: Answer(PROVED, 4.0),
                OTHER: Answer(PROVED, 2.0),
                FALSE: Answer(PROVED, 1.0),
            },
        },
    )


def test_rows_count_who_solved_what_and_compare_times() -> None:
    first, second = rows(_found())
    assert (first["solved"], second["solved"]) == (2, 2)
    assert (second["solved_only_here"], second["solved_only_by_directed"]) == (1, 1)
    assert second["median_s"] == 3.0
    assert second["times_directed_on_common"] == 4.0
    assert second["times_directed_with_limits"] == (4 + 2 + 5) / (1 + 5 + 0.5)
    assert first.keys() == second.keys()


def test_who_was_asked_about_a_part_of_a_set_has_no_row() -> None:
    found = _found()
    some = {task: answer for task, answer in found.by_solver[DIRECTED].items() if task is not OTHER}
    asked = Answers(5.0, found.tasks, {DIRECTED: some, ENUMERATIVE: found.by_solver[ENUMERATIVE]})
    (row,) = rows(asked)
    assert (row["solver"], row["solved"]) == (ENUMERATIVE, 2)
    assert row["times_directed_on_common"] == "-"
    assert not any("laws" in verdict.aim for verdict in verdicts([asked]))


@pytest.mark.parametrize("num_asked", [33, 32])
def test_nobody_is_ahead_of_who_was_not_asked(num_asked: int) -> None:
    tasks = tuple(Task("hipspec", str(number)) for number in range(33))
    mine = {task: Answer(PROVED, 1.0) for task in tasks}
    theirs = {task: Answer(UNKNOWN, 5.0) for task in tasks}
    some = dict(list(theirs.items())[:num_asked])
    answers = {DIRECTED: mine, "cvc5 -i": theirs, "cvc5 -ig": some}
    (ahead,) = (v for v in verdicts([Answers(5.0, tasks, answers)]) if "hipspec" in v.aim)
    assert ahead.met == (num_asked == 33)
    assert ahead.measured == f"33 of 33; cvc5 -i 0, cvc5 -ig {0 if ahead.met else 'not asked'}"


def test_a_part_of_a_set_meets_no_aim_and_a_false_theorem_is_named() -> None:
    found = {verdict.aim: verdict for verdict in verdicts([_found()])}
    laws = found["laws, 5 s: all true ones proved, all false ones refuted"]
    assert (laws.met, laws.measured) == (False, "2 of 3; not b")
    false = found["5 s: nothing false is proved"]
    assert (false.met, false.measured) == (False, "ours, enumerative: laws/false1")


def test_a_run_goes_on_where_it_was_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "prover" / "laws"
    folder.mkdir(parents=True)
    for name in ("false1", "law1", "law2"):
        (folder / f"{name}.smt2").write_text("")
    asked: list[Path] = []
    versions = ["1"]

    def ask(file: Path, limit_s: float) -> Answer:
        asked.append(file)
        return Answer(PROVED, limit_s)

    monkeypatch.setenv("THOTH_DATA", str(tmp_path))
    monkeypatch.setattr(prover, "solvers", lambda: [Solver(DIRECTED, ask, versions[-1])])
    part = Part(("laws",), None, (2.0,), log=tmp_path / "log")
    first = measure(part, Console())
    assert [row["solved"] for row in first.rows] == [2]
    assert measure(part, Console()) == first
    assert measure(replace(part, only_known=True), Console()) == first
    assert len(asked) == 3
    versions.append("2")
    assert not measure(replace(part, only_known=True), Console()).rows
    assert measure(part, Console()) == first
    assert len(asked) == 6


def test_without_problems_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THOTH_DATA", raising=False)
    with pytest.raises(CannotRun):
        measure(Part(), Console())


def test_an_unknown_set_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        prover.main(["--sets", "laws,nothing"])
    assert "no set is called nothing" in capsys.readouterr().err

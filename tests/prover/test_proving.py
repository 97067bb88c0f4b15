"""Goals are proved in processes of their own: limits hold, and nothing depends on their number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prover import command
from prover import proving as proving_of_goals
from prover.command import Order
from prover.errors import Failed, Unusable
from prover.processes import Outcome
from prover.program import Equality
from prover.proving import Problem, Proving, Settings, prove, prove_all
from prover.verdict import Budget, Mode, Proved, Reason, Refuted, Unknown

# A second, and what a process waits for its turn on cores that others share.
SHARED_S = 4.0
NAT = """data nat = zero | succ(nat)
fun plus(nat, nat): nat
plus(zero, y) = y
plus(succ(x), y) = succ(plus(x, y))
"""
RIGHT_ZERO = f"{NAT}prove forall x: nat. plus(x, zero) = x"
# Of any size there is a value that takes forever.
POWERS = f"""{NAT}
fun double(nat): nat
double(zero) = zero
double(succ(x)) = succ(succ(double(x)))
fun tower(nat): nat
tower(zero) = succ(zero)
tower(succ(x)) = power(tower(x))
fun power(nat): nat
power(zero) = succ(zero)
power(succ(x)) = double(power(x))
prove forall x: nat. tower(tower(tower(tower(x)))) = plus(x, tower(power(tower(x))))
"""
SEARCHES = {
    "sleeps": "import time\ndef search(*given):\n    time.sleep(60)",
    "runs": "def search(*given):\n    while True: pass",
    "ignores": """import signal
def search(*given):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    while True: pass""",
    "fills": "def search(*given):\n    kept = []\n    while True: kept.append(bytearray(1 << 20))",
    "dies": "import os\ndef search(*given):\n    os.abort()",
    "fails": "def search(*given):\n    return 1 // 0",
    "slips": """from prover.rewriting.steps import Compute
from prover.search import directed
from prover.search.branch import Branch
def search(*given):
    right = Branch.proof
    Branch.proof = lambda self, *last: (*right(self, *last), Compute("left", (), *[self.left] * 2))
    return directed.search(*given)""",
    "lies": """from prover.verdict import Proved
def search(*given):
    return Proved({"format": "thoth-certificate-1", "goal": "goal", "groups": [[]]}, "it is")""",
    "errs": """from prover.builtins import TRUE, FALSE
from prover.verdict import Refuted
def search(program, goal, budget, seed):
    values = {v: program.constructors(v.sort)[0]() for v in goal.variables}
    return Refuted(values, TRUE, FALSE)""",
    "digs": """from prover.program import Equality
from prover.verdict import Reason, Unknown
def search(program, goal, budget, seed):
    zero, successor = (program.constructors(goal.variables[0].sort))
    deep = zero()
    for _ in range(5000): deep = successor(deep)
    return Unknown(Reason.STUCK, Equality(deep, deep))""",
}


@pytest.fixture
def searching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in SEARCHES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def _by(search: str, seconds: float = 1.0, megabytes: int = 512) -> Outcome:
    settings = Settings(budget=Budget(seconds=seconds), memory_bytes=megabytes << 20, search=search)
    (outcome,) = prove_all([Problem("a.prove", RIGHT_ZERO.encode())], settings)
    return outcome


@pytest.mark.usefixtures("searching")
@pytest.mark.parametrize("search", ["sleeps", "runs", "ignores"])
def test_a_search_that_does_not_end_is_ended(search: str) -> None:
    began_s = time.monotonic()
    outcome = _by(search, seconds=1.5)
    assert time.monotonic() - began_s < 1.5 + SHARED_S
    assert outcome.verdict == Unknown(Reason.TIMEOUT)
    assert outcome.statement == "for all x: nat. (plus x zero) = x"


@pytest.mark.usefixtures("searching")
@pytest.mark.parametrize("search", ["fills", "dies"])
def test_a_search_that_takes_too_much_memory_is_ended(search: str) -> None:
    assert _by(search, seconds=20).verdict == Unknown(Reason.MEMORY)


@pytest.mark.usefixtures("searching")
def test_an_error_of_a_search_is_told_as_one() -> None:
    outcome = _by("fails", seconds=20)
    assert isinstance(outcome.verdict, Failed)
    assert "ZeroDivisionError" in str(outcome.verdict)


@pytest.mark.usefixtures("searching")
def test_what_a_search_claims_is_checked_again() -> None:
    assert isinstance(_by("lies", seconds=20).verdict, Failed)
    assert _by("errs", seconds=20).verdict == Unknown(Reason.STUCK)


@pytest.mark.usefixtures("searching")
def test_a_wrong_step_of_a_search_is_a_failure_and_said_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = _by("slips", seconds=20).verdict
    assert isinstance(verdict, Failed)
    assert "Rejected: lemma-1, case 1, step" in str(verdict)
    file = tmp_path / "a.prove"
    file.write_text(RIGHT_ZERO)
    assert command.run(Order([file], Settings(search="slips"))) == command.NOT_PROVED
    assert f"{file}: goal: an error of the prover itself" in capsys.readouterr().err


@pytest.mark.usefixtures("searching")
def test_what_is_nested_deep_comes_back() -> None:
    verdict = _by("digs", seconds=20).verdict
    assert isinstance(verdict, Unknown)
    assert isinstance(verdict.stuck, Equality)
    assert verdict.stuck.left.size == 5001


@pytest.mark.parametrize("seconds", [1.0, 2.0])
def test_definitions_that_explode_keep_to_the_time(seconds: float) -> None:
    began_s = time.monotonic()
    (outcome,) = prove(POWERS, Settings(budget=Budget(seconds=seconds)))
    assert time.monotonic() - began_s < seconds + SHARED_S
    assert isinstance(outcome.verdict, Unknown | Refuted)


def test_a_theorem_is_proved_and_a_falsehood_refuted() -> None:
    (outcome,) = prove(RIGHT_ZERO)
    assert isinstance(outcome.verdict, Proved)
    assert outcome.verdict.statement == "proved: for all x: nat. (plus x zero) = x"
    (outcome,) = prove(f"{NAT}prove forall x: nat. plus(x, x) = x")
    assert isinstance(outcome.verdict, Refuted)
    assert str(outcome.verdict.left) == "(succ (succ zero))"


def test_values_that_an_assumption_may_forbid_refute_nothing() -> None:
    text = f"{NAT}free k: nat\nassume k = zero\nprove forall x: nat. plus(x, k) = x"
    (outcome,) = prove(text, Settings(budget=Budget(seconds=5)))
    assert not isinstance(outcome.verdict, Refuted)


def test_every_goal_has_its_outcome_whatever_the_number_of_jobs(tmp_path: Path) -> None:
    goals = "prove forall x: nat. plus(x, zero) = zero\nprove forall x: nat. plus(zero, x) = x"
    texts = {"a.prove": RIGHT_ZERO, "b.prove": f"{RIGHT_ZERO}\n{goals}", "c.prove": "prove"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    files = [Problem(str(tmp_path / name)) for name in (*texts, "none.prove")]
    one, many = (list(prove_all(files, Settings(jobs=jobs))) for jobs in (1, 3))
    assert [type(each.verdict) for each in one] == [
        *(Proved, Proved, Refuted, Proved),
        *(Unusable, Unusable),
    ]
    told = [[(e.file, e.goal, e.statement, repr(e.verdict)) for e in each] for each in (one, many)]
    assert told[0] == told[1]


def test_what_cannot_be_used_is_raised_by_the_library() -> None:
    with pytest.raises(Unusable, match=r"^<text>.prove:1:6: expected a name, found the end$"):
        prove("prove")


def test_the_goals_of_a_problem_are_proved_one_after_the_other() -> None:
    text = f"{RIGHT_ZERO}\nprove forall x: nat. plus(x, zero) = zero"
    proving = Proving(Problem("two.prove", text.encode()), Settings())
    first = proving.prove_next()
    assert (first.goal, type(first.verdict)) == ("goal", Proved)
    assert not proving.is_done
    second = proving.prove_next()
    assert (second.goal, type(second.verdict)) == ("goal-2", Refuted)
    assert proving.is_done
    unreadable = Proving(Problem("no.prove", b"prove"), Settings())
    assert isinstance(unreadable.prove_next().verdict, Unusable)
    assert unreadable.is_done


# Portfolios: the directed search is heard first.


def _race(
    monkeypatch: pytest.MonkeyPatch, first: str, second: str, jobs: int, seconds: float = 20.0
) -> Outcome:
    """Of two searches by name, as those of a portfolio."""
    budget = Budget(1000, seconds)
    shares = ((first, Budget(600, 0.6 * seconds)), (second, Budget(400, seconds)))
    monkeypatch.setattr(proving_of_goals, "_shares", lambda _: shares)
    settings = Settings(Mode.PORTFOLIO, budget, jobs=jobs)
    (outcome,) = prove_all([Problem("a.prove", RIGHT_ZERO.encode())], settings)
    return outcome


@pytest.mark.usefixtures("searching")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_verdict_of_the_first_ends_the_second(jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    began_s = time.monotonic()
    outcome = _race(monkeypatch, "prover.search.directed", "ignores", jobs)
    assert isinstance(outcome.verdict, Proved)
    assert time.monotonic() - began_s < SHARED_S


@pytest.mark.usefixtures("searching")
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_second_is_heard_where_the_first_finds_nothing(
    jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in ("errs", "runs"):
        outcome = _race(monkeypatch, first, "prover.search.guided", jobs, seconds=4.0)
        assert isinstance(outcome.verdict, Proved)
        assert outcome.seconds < 4.0 + SHARED_S


@pytest.mark.usefixtures("searching")
def test_two_searches_of_a_portfolio_work_at_once(
    searching: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits until the other is there."""
    for one, other in (("a", "b"), ("b", "a")):
        (searching / f"{one}_meets.py").write_text(
            "import pathlib, time\n"
            "from prover.verdict import Reason, Unknown\n"
            "def search(*given):\n"
            f"    here = pathlib.Path({str(searching)!r})\n"
            f"    (here / 'there-{one}').touch()\n"
            f"    while not (here / 'there-{other}').exists(): time.sleep(0.01)\n"
            "    return Unknown(Reason.STUCK)"
        )
    assert _race(monkeypatch, "a_meets", "b_meets", 2).verdict == Unknown(Reason.STUCK)


@pytest.mark.usefixtures("searching")
def test_a_portfolio_ends_in_time_and_by_another_thread() -> None:
    settings = Settings(Mode.PORTFOLIO, Budget(10**9, 2.0))
    for num_processes in (1, 2):
        began_s = time.monotonic()
        outcome = Proving(Problem("a.prove", POWERS.encode()), settings).prove_next(num_processes)
        assert time.monotonic() - began_s < 2.0 + SHARED_S
        assert isinstance(outcome.verdict, Unknown | Refuted)
    stopped = Proving(
        Problem("a.prove", POWERS.encode()), Settings(Mode.PORTFOLIO, Budget(10**9, 60.0))
    )
    stopper = threading.Timer(1.5, stopped.stop)
    began_s = time.monotonic()
    stopper.start()
    assert stopped.prove_next(2).verdict == Unknown(Reason.TIMEOUT)
    assert time.monotonic() - began_s < 1.5 + SHARED_S
    stopper.join()


def test_a_portfolio_says_the_same_with_any_number_of_jobs() -> None:
    rest = "prove forall x: nat, y: nat. plus(x, y) = plus(y, x)"
    for text in (RIGHT_ZERO, f"{NAT}{rest}", f"{NAT}prove forall x: nat. plus(x, x) = x", "prove"):
        problem = Problem("a.prove", text.encode())
        told = [
            [
                (type(each.verdict), repr(each.verdict), each.goal)
                for each in prove_all(
                    [problem, problem], Settings(Mode.PORTFOLIO, Budget(20_000), jobs=jobs)
                )
            ]
            for jobs in (1, 2, 4)
        ]
        assert told[0] == told[1] == told[2]


@pytest.mark.usefixtures("searching")
def test_another_thread_ends_a_search() -> None:
    settings = Settings(budget=Budget(seconds=60.0), search="ignores")
    proving = Proving(Problem("a.prove", RIGHT_ZERO.encode()), settings)
    stopper = threading.Timer(1.5, proving.stop)
    stopper.start()
    began_s = time.monotonic()
    assert proving.prove_next().verdict == Unknown(Reason.TIMEOUT)
    assert time.monotonic() - began_s < 1.5 + SHARED_S
    stopper.join()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.usefixtures("searching")
def test_nothing_runs_on_after_an_interrupt_or_a_kill(
    searching: Path, sent: signal.Signals
) -> None:
    (searching / "notes.py").write_text(
        "import os, pathlib, time\ndef search(*given):\n"
        f"    pathlib.Path({str(searching / 'pid')!r}).write_text(str(os.getpid()))\n"
        "    time.sleep(60)"
    )
    script = (
        "from prover.proving import *\n"
        f"text = {RIGHT_ZERO!r}.encode()\n"
        "list(prove_all([Problem('a.prove', text)], Settings(search='notes')))"
    )
    paths = os.pathsep.join([str(searching), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
    )
    noted = searching / "pid"
    _wait_until(lambda: noted.exists() and noted.read_text() != "")
    process.send_signal(sent)
    assert process.wait(timeout=10) != 0
    _wait_until(lambda: not Path(f"/proc/{noted.read_text()}").exists())


def _wait_until(holds: object) -> None:
    ends_s = time.monotonic() + 20
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < ends_s
        time.sleep(0.02)

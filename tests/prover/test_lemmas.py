"""A store of lemmas on disk: many may write it, it stays small, and no damage does harm."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actors.cli.app import build_app
from prover.command import main
from prover.errors import Unusable
from prover.processes import Outcome
from prover.proving import Problem, Settings, prove_all
from prover.store.database import FILE, Shelf, Store, look_up
from prover.store.portable import Entry
from prover.verdict import Budget, Proved
from tests.prover.theory import APPEND, PLUS, REVERSE, TIMES

NAT = f"data nat = zero | succ(nat)\n{PLUS}"
COMMUTES = f"{NAT}prove forall x: nat, y: nat. plus(x, y) = plus(y, x)\n"
RENAMED = COMMUTES.replace("plus", "++").replace("succ", "next").replace("++", "add")
PRODUCT = f"{NAT}{TIMES}prove forall x: nat, y: nat. times(x, y) = times(y, x)\n"
LISTS = "sort elem\ndata list = nil | cons(elem, list)\n"
TWICE = f"{LISTS}{APPEND}{REVERSE}prove forall xs: list. reverse(reverse(xs)) = xs\n"
BUDGET = Budget(20_000, 60.0)
PUTS = """
import sys
from pathlib import Path
from prover.store.database import Store
from prover.store.portable import Entry
store = Store(Path(sys.argv[1]))
for number in range(40):
    store.put([Entry(f"{sys.argv[2]}-{number}", "key", ("a",), "text" * 100)])
"""


def entry(name: str, *definitions: str, size: int = 10) -> Entry:
    return Entry(name, "-".join(definitions), definitions, "x" * size)


def statements(store: Store, *definitions: str) -> list[str]:
    found = look_up(store.shelf(), frozenset(definitions), 100)
    return [each.statement for each in found.entries]


def outcomes(store: Store | None, *texts: str, jobs: int = 1) -> list[Outcome]:
    problems = [Problem(f"{number}.prove", text.encode()) for number, text in enumerate(texts)]
    return list(prove_all(problems, Settings(budget=BUDGET, jobs=jobs, lemmas=store)))


def certificates(found: list[Outcome]) -> list[str]:
    assert all(isinstance(each.verdict, Proved) for each in found)
    return [json.dumps(each.verdict.certificate) for each in found]  # type: ignore[union-attr]


# The folder


def test_entries_are_found_by_the_definitions_they_speak_of(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    assert store.put([entry("long", "a", "b", size=20), entry("short", "b"), entry("c", "c")]) == 3
    assert statements(store, "a", "b", "d") == ["short", "long"]
    assert statements(store, "a") == []
    assert look_up(store.shelf(), frozenset("abc"), 2).entries[1].statement == "short"


def test_what_says_the_same_is_kept_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.put([entry("one", "a", size=5)]) == 1
    assert store.put([entry("one", "a", size=9), entry("two", "a")]) == 1
    assert store.num_lemmas() == 2
    assert look_up(store.shelf(), frozenset("a"), 9).entries[0].text == "x" * 5


def test_nobody_is_shown_the_lemmas_of_another(tmp_path: Path) -> None:
    alice, bob = Store(tmp_path, owner="alice"), Store(tmp_path, owner="bob")
    alice.put([entry("one", "a")])
    assert (statements(alice, "a"), statements(bob, "a")) == (["one"], [])
    assert bob.put([entry("one", "a")]) == 1
    bob.drop(["one"])
    assert (alice.num_lemmas(), bob.num_lemmas()) == (1, 0)


def test_a_shelf_does_not_show_what_came_later(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put([entry("one", "a")])
    before = store.shelf()
    store.put([entry("two", "a")])
    seen = look_up(before, frozenset("a"), 9).entries
    assert [each.statement for each in seen] == ["one"]


def test_what_was_not_used_for_longest_leaves_first(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=35)
    store.put(entry(name, "a") for name in ("one", "two", "three"))
    store.put([entry("one", "a"), entry("four", "a")])
    store.trim()
    assert sorted(statements(store, "a")) == ["four", "one", "three"]


def test_the_file_stays_small(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=100_000)
    for number in range(100):
        store.put([entry(f"{number}", "a", size=20_000)])
        store.trim()
    assert store.num_lemmas() == 5
    assert (tmp_path / FILE).stat().st_size < 200_000


def test_what_was_rejected_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put([entry("one", "a"), entry("two", "a")])
    store.drop(["one", "three"])
    assert statements(store, "a") == ["two"]


def test_many_processes_may_write(tmp_path: Path) -> None:
    Store(tmp_path)
    path = str(Path(__file__).parents[2])
    begin = [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r})\n{PUTS}"]
    writers = [subprocess.Popen([*begin, str(tmp_path), str(number)]) for number in range(4)]
    assert [each.wait(timeout=60) for each in writers] == [0, 0, 0, 0]
    assert Store(tmp_path).num_lemmas() == 160


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE lemmas SET text = 'other' WHERE statement = 'one'",
        "UPDATE lemmas SET text = x'00ff' WHERE statement = 'one'",
        "UPDATE lemmas SET definitions = '[' WHERE statement = 'one'",
        "UPDATE lemmas SET definitions = '7' WHERE statement = 'one'",
        "UPDATE lemmas SET sum = 3 WHERE statement = 'one'",
    ],
)
def test_a_damaged_entry_is_passed_over_and_named(tmp_path: Path, change: str) -> None:
    store = Store(tmp_path)
    store.put([entry("one", "a"), entry("two", "a")])
    with closing(sqlite3.connect(tmp_path / FILE)) as database, database:
        database.execute(change)
    found = look_up(store.shelf(), frozenset("a"), 9)
    assert [each.statement for each in found.entries] == ["two"]
    assert found.damaged == ("one",)


@pytest.mark.parametrize(
    "data", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_file_of_another_kind_is_of_no_use(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(Unusable, match="no store of lemmas"):
        Store(tmp_path)
    with pytest.raises(Unusable, match="no store of lemmas"):
        look_up(Shelf(tmp_path, 1), frozenset("a"), 9)


def test_a_folder_that_cannot_be_one_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unusable, match="no store of lemmas"):
        Store(tmp_path / "file")


# What searches make of it


def test_a_problem_is_proved_by_what_another_one_left(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (first,) = outcomes(store, COMMUTES)
    assert first.lemmas.num_known == 0
    assert len(first.lemmas.learned) == store.num_lemmas() > 1
    (second,) = outcomes(store, RENAMED)
    assert second.lemmas.num_known == store.num_lemmas()
    assert isinstance(second.verdict, Proved)
    assert second.verdict.statement == "proved: for all x: nat, y: nat. (add x y) = (add y x)"
    assert len(second.lemmas.learned) < len(first.lemmas.learned) + 1
    assert any("It was known" in line for line in second.verdict.explanation)


def test_an_empty_store_changes_nothing(tmp_path: Path) -> None:
    texts = (COMMUTES, TWICE)
    assert certificates(outcomes(Store(tmp_path), *texts)) == certificates(outcomes(None, *texts))


def test_the_same_store_gives_the_same_whatever_the_number_of_jobs(tmp_path: Path) -> None:
    texts = (COMMUTES, RENAMED, PRODUCT, TWICE, COMMUTES)
    one, many = Store(tmp_path / "one"), Store(tmp_path / "many")
    for store in (one, many):
        outcomes(store, PRODUCT)
    found = outcomes(one, *texts), outcomes(many, *texts, jobs=3)
    assert certificates(found[0]) == certificates(found[1])
    assert all(each.lemmas.num_known for each in found[0][:3])
    definitions = frozenset(name for each in found[0] for e in each.lemmas.learned
                            for name in e.definitions)  # fmt: skip
    held = [look_up(store.shelf(), definitions, 100).entries for store in (one, many)]
    assert held[0] == held[1]


def test_a_goal_knows_what_goals_before_it_have_shown(tmp_path: Path) -> None:
    text = (
        f"{COMMUTES}prove forall a: nat, b: nat, c: nat. plus(a, plus(b, c)) = plus(c, plus(b, a))"
    )
    first, second = outcomes(Store(tmp_path), text)
    assert first.lemmas.num_known == 0
    assert second.lemmas.num_known == len(first.lemmas.learned)


def test_a_wrong_entry_is_named_dropped_and_proves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "lemmas", tmp_path / "a.prove"
    file.write_text(f"{NAT}prove forall x: nat. plus(x, zero) = zero\n")
    store = Store(folder)
    for each in outcomes(None, COMMUTES):
        assert each.lemmas.learned == ()
    (found,) = outcomes(Store(tmp_path / "other"), COMMUTES)
    true = found.lemmas.learned[0]
    data = json.loads(true.text)
    data["lemmas"][-1]["right"] = data["lemmas"][-1]["left"].replace(
        "?0", data["lemmas"][-1]["right"]
    )
    data["lemmas"][-1]["left"] = data["lemmas"][-1]["variables"][0][0]
    store.put([Entry("false", true.key, true.definitions, json.dumps(data))])
    assert main([str(file), "--lemmas", str(folder)]) == 1
    said = capsys.readouterr()
    assert "refuted" in said.out
    assert f"{folder}: lemma false is left out: " in said.err
    assert store.num_lemmas() == 0


def test_the_command_keeps_lemmas_and_says_what_it_cannot_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "lemmas", tmp_path / "a.prove"
    file.write_text(TWICE)
    assert main([str(file), "--lemmas", str(folder)]) == 0
    assert Store(folder).num_lemmas() > 1
    command = CliRunner()
    arguments = ["prove", str(file), "--lemmas", str(folder), "--explain"]
    again = command.invoke(build_app(), arguments)
    assert (again.exit_code, "It was known" in again.output) == (0, True)
    capsys.readouterr()
    (folder / FILE).write_bytes(b"something else, and longer than a header" * 100)
    assert main([str(file), "--lemmas", str(folder)]) == 2
    said = capsys.readouterr()
    assert (said.out, "Traceback" in said.err) == ("", False)
    assert said.err.startswith(f"{folder / FILE}: no store of lemmas: ")
    assert command.invoke(build_app(), arguments).exit_code == 2


def test_a_store_that_is_lost_on_the_way_costs_its_lemmas_alone(tmp_path: Path) -> None:
    class Gone(Store):
        def shelf(self) -> Shelf:
            return Shelf(tmp_path / "nowhere", 9)

    (outcome,) = outcomes(Gone(tmp_path), COMMUTES)
    assert isinstance(outcome.verdict, Proved)
    assert list(outcome.lemmas.rejected) == [""]

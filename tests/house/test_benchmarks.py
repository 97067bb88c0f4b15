"""Benchmarks can be listed, and what they write can be read without them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.catalogue import BENCHMARKS
from benchmarks.result import Outcome, Setting, Spread, Verdict, write
from benchmarks.tables import tables
from tests.house.source import ROOT

KEYS = {"benchmark", "command", "machine", "versions", "rows", "verdicts", "seed", "finished"}


def listed() -> str:
    command = [sys.executable, "-m", "benchmarks", "--list"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout


def test_every_benchmark_is_listed_with_what_it_measures() -> None:
    text = listed()
    assert len(text.splitlines()) == len(BENCHMARKS)
    for each in BENCHMARKS:
        assert f"{each.name} ({each.full_minutes} minutes): {each.summary}" in text


def test_every_benchmark_of_the_list_has_code() -> None:
    for each in BENCHMARKS:
        assert callable(each.load())


def test_an_unknown_benchmark_is_refused_with_the_names_of_the_known() -> None:
    command = [sys.executable, "-m", "benchmarks", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert all(each.name in done.stderr for each in BENCHMARKS)


def test_a_verdict_that_is_not_met_stays_in_the_file(tmp_path: Path) -> None:
    verdict = Verdict("ten at least", "9", met=False)
    file = tmp_path / "results" / "x.json"
    write(file, Setting("x", "python -m benchmarks x"), Outcome([{"n": 9}], [verdict], seed=3))
    found = json.loads(file.read_text())
    assert found.keys() == KEYS
    assert found["rows"] == [{"n": 9}]
    assert found["verdicts"] == [{"aim": "ten at least", "measured": "9", "met": False}]


def test_the_spread_of_observations_is_their_quantiles() -> None:
    assert Spread.of([float(n) for n in range(11)]) == Spread(1.0, 5.0, 9.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="no observations"):
        Spread.of([])


def test_committed_results_have_every_key() -> None:
    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        found = json.loads(file.read_text())
        assert found.keys() == KEYS, file.name
        assert found["rows"], file.name
        assert all(row.keys() == found["rows"][0].keys() for row in found["rows"]), file.name


def test_the_readme_shows_the_results_that_are_committed() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("<!-- python -m benchmarks --tables -->\n")
    shown, _, _ = rest.partition("\n<!-- end -->")
    assert shown == tables()
    assert "| aim | measured | met |" in shown

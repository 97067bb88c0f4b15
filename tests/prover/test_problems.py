"""The open problem files are read: each gives a checked program, or an error that names why not."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from prover.checks import check
from prover.errors import Inadmissible, SourceError
from prover.syntax.problem import load

# Folder, how many files it has, and how many at least must be read and be well-defined.
FOLDERS = [
    ("examples", 3, 3),
    ("laws", 14, 14),
    ("tip/isaplanner", 64, 64),
    ("tip/prod", 56, 56),
    ("tip/false", 51, 43),
    ("tip/grammars", 4, 4),
    ("tip/tip2015", 244, 188),
    ("vmcai15-dt", 231, 231),
    ("sufu/cvc5", 72, 72),
]


@pytest.fixture
def folder() -> Path:
    named = os.environ.get("THOTH_DATA")
    if not named or not (Path(named) / "prover").is_dir():
        pytest.skip("THOTH_DATA is not set to a folder with prover/: problems in SMT-LIB and TIP")
    return Path(named) / "prover"


@pytest.mark.parametrize(("name", "files", "at_least"), FOLDERS, ids=[f[0] for f in FOLDERS])
def test_every_file_is_read_or_refused_by_name(
    folder: Path, name: str, files: int, at_least: int
) -> None:
    found = Counter(_outcome(path) for path in sorted((folder / name).rglob("*.smt2")))
    assert found.total() == files
    assert found["passes"] >= at_least, found
    assert not any(outcome.startswith("unnamed") for outcome in found), found


def _outcome(path: Path) -> str:
    try:
        check(load(path))
    except SourceError as error:
        return "read" if error.construct or error.place.line > 1 else f"unnamed: {error}"
    except Inadmissible as error:
        return "refused" if error.name and error.reason else f"unnamed: {error}"
    return "passes"

"""Habits that no linter knows."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.house.source import ROOT, SHIPPED, WRITTEN, module_name, modules, parsed, said, texts

MOST_LINES = 400
# Whole names or last words of names that say nothing of what is behind them.
EMPTY_NAMES = re.compile(r"(^|_)(utils?|common|helpers?|misc)$")
EMPTY_CLASSES = re.compile(r"^Base[A-Z]|Manager$|Mixin$|Helper$")
ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb"})
READS_ENVIRONMENT = ("cluster/config/", "cluster/client/")
# Written in two parts, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE = re.compile(r"(?<![\w.])/(home|ro" r"ot|Us" r"ers|wo" r"rk)/\w")
REGISTRY = re.compile(r"(pypi\.|python" r"hosted|index-" r"url|find-" r"links)", re.IGNORECASE)


def offenders(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{said(path)}:{number}: {line.strip()}"
        for path, text in texts()
        if "_pb2" not in path.name
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def imported_roots(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def reads_environment(tree: ast.Module) -> bool:
    """Setting a variable for a library that only listens to those is not reading."""
    written = {id(node) for node in ast.walk(tree) for node in _written_to(node)}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and id(node) not in written)
        or (isinstance(node, ast.alias) and node.name in ENVIRONMENT)
        for node in ast.walk(tree)
    )


def _written_to(node: ast.AST) -> list[ast.expr]:
    """`x` of `x[...] = y` and of the statements `x.setdefault(...)` and `x.update(...)`."""
    match node:
        case ast.Subscript(value=target, ctx=ast.Store()):
            return [target]
        case ast.Expr(ast.Call(ast.Attribute(target, "setdefault" | "update"))):
            return [target]
    return []


def test_nothing_is_left_for_later() -> None:
    assert offenders(UNFINISHED) == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    assert offenders(MACHINE) == []


def test_no_file_names_a_registry() -> None:
    assert offenders(REGISTRY) == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        said(path)
        for path in modules(*WRITTEN)
        if path.read_text().strip() and ast.get_docstring(parsed(path)) is None
    ]
    assert silent == []


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        said(p): n for p in modules(*WRITTEN) if (n := len(p.read_text().splitlines())) > MOST_LINES
    }
    assert long == {}


def test_names_say_what_is_behind_them() -> None:
    assert [said(p) for p in modules(*WRITTEN) if EMPTY_NAMES.search(p.stem)] == []
    classes = [
        f"{module_name(path)}.{node.name}"
        for path in modules(*SHIPPED)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and EMPTY_CLASSES.search(node.name)
    ]
    assert classes == []


def test_the_environment_is_read_by_the_settings_and_the_sdk_alone() -> None:
    readers = [said(path) for path in modules(*SHIPPED) if reads_environment(parsed(path))]
    assert [path for path in readers if not path.startswith(READS_ENVIRONMENT)] == []


def test_a_reader_of_the_environment_is_recognised() -> None:
    assert reads_environment(ast.parse("import os\nos.environ['A']"))
    assert reads_environment(ast.parse("from os import getenv"))
    assert reads_environment(ast.parse("import os\nx = os.environ.setdefault('A', 'b')"))
    assert not reads_environment(ast.parse("import os\nos.environ['A'] = 'b'"))
    assert not reads_environment(ast.parse("import os\nos.environ.setdefault('A', 'b')"))


def test_every_library_that_is_imported_is_declared_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"].values()
    declared = {_bare(each) for each in project["project"]["dependencies"]}
    declared |= {_bare(each) for extra in optional for each in extra}
    development = {_bare(each) for each in project["dependency-groups"]["dev"]}
    pinned = {_bare(line) for line in constraints()}
    assert declared | development <= pinned
    homes = packages_distributions()
    ours = {*SHIPPED, "protos", "thoth_kernels", "tests", "benchmarks", "__future__"}
    for folders, allowed in ((SHIPPED, declared), (WRITTEN, declared | development)):
        used = {root: path for path in modules(*folders) for root in imported_roots(parsed(path))}
        for root, path in used.items():
            if root not in ours and root not in sys.stdlib_module_names:
                found = {_bare(name) for name in homes.get(root, [])}
                assert found & allowed, f"{said(path)} imports {root} of {found}"


def test_the_constraints_pin_exactly() -> None:
    for line in constraints():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line), line


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _bare(requirement: str) -> str:
    """`ray[serve]>=2.55` is `ray`."""
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


def test_the_readme_and_the_other_pages_are_there() -> None:
    wanted = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", ".ci/run")
    assert [name for name in wanted if not (ROOT / name).is_file()] == []
    assert Path(ROOT / ".ci" / "run").stat().st_mode & 0o111

"""The files that people of this project write by hand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ("actors", "cluster", "prover")
WRITTEN = (*SHIPPED, "benchmarks", "tests")
# Folders and files that are read as text: everything a contributor may touch.
READ = (*WRITTEN, ".ci", "deploy", "grafana", "protos")
TEXT_SUFFIXES = frozenset(
    {".py", ".pyi", ".md", ".toml", ".yaml", ".yml", ".json", ".proto", ".txt", ".sh", ".html", ""}
)


def modules(*folders: str) -> Iterator[Path]:
    """Every Python module below the folders, tests of this house included."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the project with its content; generated stubs are among them."""
    for path in sorted(
        [*ROOT.iterdir(), *(p for folder in READ for p in (ROOT / folder).rglob("*"))]
    ):
        is_text = path.is_file() and path.suffix in TEXT_SUFFIXES
        if is_text and path.parent.name != "__pycache__" and path.name not in {".git", "LICENSE"}:
            yield path, path.read_text(errors="replace")


def module_name(path: Path) -> str:
    """`cluster/blocks/__init__.py` is `cluster.blocks`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def said(path: Path) -> str:
    """The path as a reader of a failed test wants it."""
    return str(path.relative_to(ROOT))

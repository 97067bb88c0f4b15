"""Imports run downwards and brains know no framework: the linter and the interpreter say so."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from tests.house.source import ROOT, module_name, modules

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
BRAINS = "brains know no framework, no thread and no socket"
HANDS_OF_THE_MODEL = "what runs the model knows neither Ray, nor the index, nor the settings"
SDK = "the SDK stays light"

IMPORT_WITHOUT = """
import importlib, sys
blocked, names = sys.argv[1].split(","), sys.argv[2].split(",")
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")
for loaded in [m for m in sys.modules if m.split(".")[0] in blocked]:
    del sys.modules[loaded]
sys.meta_path.insert(0, Blocker())
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"{name}: {error}")
"""


def contract(name: str) -> dict[str, list[str]]:
    (found,) = (each for each in CONTRACTS if each["name"] == name)
    return dict(found)


def modules_of(packages: list[str]) -> list[str]:
    names = [module_name(path) for path in modules("cluster")]
    return [n for n in names if any(n == p or n.startswith(p + ".") for p in packages)]


def import_without(blocked: list[str], names: list[str]) -> str:
    """What went wrong when an interpreter without the blocked modules imports all the names."""
    command = [sys.executable, "-c", IMPORT_WITHOUT, ",".join(blocked), ",".join(names)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0 or done.stderr
    return done.stderr.strip()


def test_the_floors_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_every_brain_imports_where_frameworks_are_blocked() -> None:
    brains = contract(BRAINS)
    names = modules_of(brains["source_modules"])
    assert set(brains["source_modules"]) <= set(names)
    assert import_without(brains["forbidden_modules"], names) == ""


def test_what_runs_the_model_imports_where_ray_faiss_and_pydantic_are_blocked() -> None:
    hands = contract(HANDS_OF_THE_MODEL)
    names = modules_of(hands["source_modules"])
    assert set(hands["source_modules"]) <= set(names)
    assert import_without(hands["forbidden_modules"], names) == ""


def test_the_sdk_imports_where_everything_heavy_is_blocked() -> None:
    sdk = contract(SDK)
    assert import_without(sdk["forbidden_modules"], modules_of(sdk["source_modules"])) == ""


def test_a_blocked_module_is_noticed() -> None:
    assert import_without(["torch"], modules_of(["cluster.attention"]))
    assert import_without(["threading"], ["cluster.telemetry.metrics"])


def test_every_package_of_the_cluster_stands_on_a_floor() -> None:
    (floors,) = (c for c in CONTRACTS if c["name"] == "floors of the cluster")
    assert floors["exhaustive"]
    named = {n.strip("() ") for layer in floors["layers"] for n in layer.split("|")}
    there = {path.stem for path in (ROOT / "cluster").iterdir() if path.suffix == ".py"}
    there |= {path.parent.name for path in (ROOT / "cluster").glob("*/__init__.py")}
    assert there - {"__init__"} <= named

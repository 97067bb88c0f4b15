"""`thoth config validate|show|schema` and `thoth version`."""

from __future__ import annotations

import json
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer
import yaml

from actors.cli.options import AsJson, ConfigFile, Settings, settings_in_force
from cluster.config import ThothConfig, load_file

DISTRIBUTION = "thoth-cluster"

File = Annotated[Path, typer.Argument(help="Configuration file, or a Serve file with `args:`.")]


def build_app() -> typer.Typer:
    app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)
    app.command()(validate)
    app.command()(show)
    app.command()(schema)
    return app


def validate(file: File) -> None:
    """Check a file by itself, whatever the environment says."""
    load_file(file)
    print(f"{file}: valid")


def show(config: ConfigFile = None, settings: Settings = None, as_json: AsJson = False) -> None:
    """Print every setting in force: flags, then THOTH_* variables, then the file, then defaults."""
    values = settings_in_force(config, settings).model_dump(mode="json")
    print(json.dumps(values) if as_json else yaml.safe_dump(values, sort_keys=False), end="")


def schema() -> None:
    """Print the JSON schema of the configuration."""
    print(json.dumps(ThothConfig.model_json_schema(), indent=2))


def version() -> None:
    """Print the version."""
    print(version_of(DISTRIBUTION))

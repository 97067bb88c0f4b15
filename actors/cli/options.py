"""Options that several commands share, and the settings they amount to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.config import ThothConfig, load_config, parse_overrides

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Configuration file, or a Serve file with `args:`.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.SETTING=VALUE", help="One setting; may be repeated."),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        envvar="THOTH_ENDPOINT",
        help="host:port of the gateway's gRPC; by default the cluster that runs here.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
WithoutRay = Annotated[bool, typer.Option("--local", help="All parts in one process, no Ray.")]
Collections = Annotated[
    list[str] | None,
    typer.Option("--collection", "-k", help="Collection to look things up in; may be repeated."),
]


def settings_in_force(config: Path | None, settings: list[str] | None) -> ThothConfig:
    """Flags > `THOTH_*` > file > defaults."""
    return load_config(config, parse_overrides(settings or ()))

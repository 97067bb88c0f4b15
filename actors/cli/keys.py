"""`thoth keys new`: keys are shown once; only their hashes are kept."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.console import say
from actors.cli.options import ConfigFile, Settings, settings_in_force
from actors.gateway.auth import load_keyring
from cluster.config import ThothConfig
from cluster.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

Name = Annotated[str, typer.Argument(help="Who the key is for.")]
File = Annotated[
    Path | None, typer.Option("--file", help="By default gateway.api_keys_file, or HOME/keys.")
]


def build_app() -> typer.Typer:
    app = typer.Typer(help="API keys.", no_args_is_help=True)
    app.callback()(_group)
    app.command()(new)
    return app


def _group() -> None:
    """API keys."""


def new(
    name: Name, file: File = None, config: ConfigFile = None, settings: Settings = None
) -> None:
    """Make a key: it is printed this once, and its hash is appended to the keys file."""
    in_force = settings_in_force(config, settings)
    path = file or in_force.gateway.api_keys_file or in_force.home_dir / "keys"
    key = add_key(name, path.expanduser())
    print(key)
    if not _is_configured(in_force, path):
        say(f"the gateway reads {path} when gateway.api_keys_file says so")
    say("a running gateway knows the key after its next start")


def add_key(name: str, path: Path) -> str:
    """Returns the new key. Raises InvalidArgument for a name that is none, or is taken."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"NAME is {name!r}", field="NAME", limit="1 to 64 letters, digits, '.', '_' and '-'"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_free(name, path)
    key = f"thoth-{secrets.token_urlsafe(32)}"
    line = f"{name}:{hashlib.sha256(key.encode()).hexdigest()}\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(line)
    return key


def _check_free(name: str, path: Path) -> None:
    if not path.exists() or not path.stat().st_size:
        return
    load_keyring(path)
    names = {line.partition(":")[0].strip() for line in path.read_text().splitlines()}
    if name in names:
        raise InvalidArgument(f"{path} has a key for {name} already", field="NAME")


def _is_configured(config: ThothConfig, path: Path) -> bool:
    configured = config.gateway.api_keys_file
    return configured is not None and configured.expanduser() == path.expanduser()

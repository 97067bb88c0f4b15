"""The commands by their names."""

from __future__ import annotations

import typer

from actors.cli import (
    ask,
    cache,
    demo,
    doctor,
    ingest,
    keys,
    prove,
    settings,
    status,
    trace,
    up,
)


def build_app() -> typer.Typer:
    app = typer.Typer(
        help="Thoth: answers over your own documents, from your own model.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(demo.demo)
    app.command()(up.up)
    app.command()(up.down)
    app.command()(status.status)
    app.command()(trace.trace)
    app.command()(ingest.ingest)
    app.command()(ask.ask)
    app.command()(ask.chat)
    app.command()(prove.prove)
    app.command()(doctor.doctor)
    app.command()(settings.version)
    app.add_typer(settings.build_app(), name="config")
    app.add_typer(keys.build_app(), name="keys")
    app.add_typer(cache.build_app(), name="cache")
    return app

"""`thoth doctor`: what of this machine will stand in the way, and what to do about it."""

from __future__ import annotations

import typer

from actors.cli.checks import all_checks
from actors.cli.console import plain, results, table, write_json
from actors.cli.findings import Check, Level
from actors.cli.options import AsJson, ConfigFile, Settings, settings_in_force

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


def doctor(config: ConfigFile = None, settings: Settings = None, as_json: AsJson = False) -> None:
    """Check versions, machine, ports, model and home; exit status 1 when something is broken."""
    found = tuple(all_checks(settings_in_force(config, settings)))
    if as_json:
        write_json({"ok": not _is_broken(found), "checks": [_as_object(c) for c in found]})
    else:
        _show(found)
    if _is_broken(found):
        raise typer.Exit(1)


def _is_broken(found: tuple[Check, ...]) -> bool:
    return any(check.level is Level.FAIL for check in found)


def _as_object(check: Check) -> dict[str, str]:
    return {
        "name": check.name,
        "level": check.level.value,
        "found": check.found,
        "advice": check.advice,
    }


def _show(found: tuple[Check, ...]) -> None:
    rows = table("", "", "what", "found", "what to do")
    for check in found:
        colour = _COLOURS[check.level]
        rows.add_row(
            f"[{colour}]{check.level}[/]", check.name, plain(check.found), plain(check.advice)
        )
    results().print(rows)

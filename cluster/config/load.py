"""Where a setting comes from: flags > `THOTH_*` variables > the file > the schema's defaults.

Every value travels as a leaf with its source, so that an error can name who said it::

    file       {gateway: {http_port: 8001}}   -> gateway.http_port: 8001, said by "thoth.yaml"
    variable   THOTH_GATEWAY__HTTP_PORT=8002  -> gateway.http_port: "8002", said by its name
    flag       --set gateway.http_port=8003   -> gateway.http_port: "8003", said by the flag
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cluster.config.schema import ThothConfig
from cluster.config.section import Section
from cluster.errors import InvalidArgument, NotFound

PREFIX = "THOTH_"
# No settings of the cluster: the SDK's own, and where tests and benchmarks find data.
_OTHER_VARIABLES = frozenset({"THOTH_ENDPOINT", "THOTH_API_KEY", "THOTH_DATA"})
# Kubernetes describes every service of a namespace like this; one may well be called `thoth`.
_SERVICE_LINK = re.compile(r"THOTH(_\w+)?_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP))(_\w+)?")
_SERVICE_URL = ("tcp://", "udp://")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value and who said it."""

    value: object
    source: str


def load_config(
    file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> ThothConfig:
    """The configuration in force. `environ` is the process's unless given.

    Raises InvalidArgument naming the file, variable or flag and the dotted setting at fault, and
    NotFound for a file that is not there.
    """
    leaves: dict[str, Leaf] = {}
    if file is not None:
        leaves |= _from_file(file)
    leaves |= _from_environ(os.environ if environ is None else environ)
    leaves |= _from_overrides(overrides or {})
    return _validate(leaves)


def ray_auth_mode(environ: Mapping[str, str] | None = None) -> str:
    """Ray's own setting, which it reads when it starts; empty when it is not set."""
    return (os.environ if environ is None else environ).get("RAY_AUTH_MODE", "")


def load_file(file: Path) -> ThothConfig:
    """The configuration that `file` alone describes, whatever the environment says."""
    return _validate(_from_file(file))


def parse_overrides(settings: Sequence[str]) -> dict[str, str]:
    """`["gateway.http_port=8001"]` as a mapping. Raises InvalidArgument for one without `=`."""
    pairs: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise InvalidArgument(
                f"--set {setting}: not of the form section.setting=value", field="--set"
            )
        pairs[name.strip()] = value
    return pairs


def setting_names(section: type[Section] = ThothConfig, prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings."""
    for name, info in section.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from setting_names(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def _from_file(file: Path) -> dict[str, Leaf]:
    source = str(file)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"no such configuration file: {file}", field="--config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{file}: cannot be read: {error}", field="--config") from None
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise InvalidArgument(f"{file}: not YAML: {said}", field="--config") from None
    settings = _serve_arguments(content, source)
    return dict(_flatten(settings, source))


def _serve_arguments(content: object, source: str) -> object:
    """The `args:` of the one application of a Serve file; any other file is all settings."""
    if not isinstance(content, dict) or "applications" not in content:
        return content
    applications = content["applications"]
    found = [a["args"] for a in applications or () if isinstance(a, dict) and "args" in a]
    if len(found) > 1:
        raise InvalidArgument(
            f"{source}: applications: {len(found)} of them have args; 1 was expected",
            field="applications",
            limit="1 application with args",
        )
    return found[0] if found else None


def _flatten(content: object, source: str, prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    """Leaves of nested mappings. An empty section (`gateway:`) says nothing."""
    if content is None:
        return
    if not isinstance(content, Mapping):
        where = prefix.rstrip(".") or "the file"
        raise InvalidArgument(
            f"{source}: {where} must be a mapping of settings, not {content!r}",
            field=prefix.rstrip("."),
        )
    sections = {name.rpartition(".")[0] for name in setting_names()}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name in sections:
            yield from _flatten(value, source, f"{name}.")
        else:
            _check_known(name, source)
            yield name, Leaf(value, source)


def _from_environ(environ: Mapping[str, str]) -> Iterable[tuple[str, Leaf]]:
    names = {_variable(name): name for name in setting_names()}
    leaves: dict[str, Leaf] = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in _OTHER_VARIABLES:
            continue
        if variable in names:
            leaves[names[variable]] = Leaf(_scalar(value), variable)
        elif not _is_service_link(variable, value):
            close = difflib.get_close_matches(variable, names, n=1)
            raise InvalidArgument(
                f"{variable} is not a setting{_did_you_mean(close)}", field=variable
            )
    return leaves.items()


def _variable(name: str) -> str:
    return PREFIX + name.replace(".", "__").upper()


def _is_service_link(variable: str, value: str) -> bool:
    return value.startswith(_SERVICE_URL) or _SERVICE_LINK.fullmatch(variable) is not None


def _from_overrides(overrides: Mapping[str, str]) -> Iterator[tuple[str, Leaf]]:
    for name, value in overrides.items():
        source = f"--set {name}"
        _check_known(name, source)
        yield name, Leaf(_scalar(value), source)


def _scalar(text: str) -> str | None:
    """`null` is no value; all other text is converted by the field's type."""
    return None if text == "null" else text


def _check_known(name: str, source: str) -> None:
    known = list(setting_names())
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise InvalidArgument(
            f"{source}: {name} is not a setting{_did_you_mean(close)}", field=name
        )


def _did_you_mean(close: Sequence[str]) -> str:
    return f"; did you mean {close[0]}?" if close else ""


def _validate(leaves: Mapping[str, Leaf]) -> ThothConfig:
    nested: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *sections, last = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = leaf.value
    try:
        return ThothConfig.model_validate(nested)
    except ValidationError as error:
        raise _explain(error, leaves) from None


def _explain(error: ValidationError, leaves: Mapping[str, Leaf]) -> InvalidArgument:
    """The first thing wrong, with who said it, the value and the rule; the others are counted."""
    first, *others = error.errors(include_url=False)
    name = ".".join(map(str, first["loc"]))
    rule = first["msg"][:1].lower() + first["msg"][1:]
    source = leaves[name].source if name in leaves else "configuration"
    also = f" (and {len(others)} more)" if others else ""
    return InvalidArgument(
        f"{source}: {name} is {first['input']!r}: {rule}{also}", field=name, limit=rule
    )

"""Who is calling. With an API keys file: a bearer key. Without: only peers on this machine."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.errors import InvalidArgument, PermissionDenied, Unauthenticated

_FIELD = "gateway.api_keys_file"
_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64}):(?P<digest>[0-9a-f]{64})")
# The only principal there is without keys.
LOCAL = "local"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Whose key it is, and the SHA-256 of the key; the key itself is nowhere."""

    name: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Caller:
    """What a call shows of itself. `host` is the peer's address, empty for a unix socket.

    `origin` is set by browsers: the site whose script makes the call.
    """

    host: str
    authorization: str = ""
    origin: str = ""


class Keyring:
    """All keys that open the door; an empty one opens it to this machine alone."""

    def __init__(self, keys: tuple[ApiKey, ...] = ()) -> None:
        self._keys = keys

    @property
    def is_empty(self) -> bool:
        return not self._keys

    def authenticate(self, caller: Caller) -> str:
        """The caller's principal. Raises Unauthenticated or PermissionDenied."""
        if self.is_empty:
            return _local(caller)
        scheme, _, key = caller.authorization.partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated(
                "an API key is needed, as `Authorization: Bearer KEY`", field="authorization"
            )
        return self._owner(key.strip())

    def _owner(self, key: str) -> str:
        """Every entry is compared in full, so that time tells nothing about any of them."""
        digest = hashlib.sha256(key.encode()).digest()
        owner = ""
        for entry in self._keys:
            if hmac.compare_digest(entry.digest, digest):
                owner = entry.name
        if not owner:
            raise Unauthenticated("this API key is not known here", field="authorization")
        return owner


def load_keyring(path: Path | None) -> Keyring:
    """Reads lines `name:sha256-of-key` in hexadecimal; blank lines and `#` comments are skipped.

    Raises InvalidArgument with the number of the line at fault, and never shows the line.
    """
    if path is None:
        return Keyring()
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidArgument(f"cannot read the API keys in {path}: {why}", field=_FIELD) from None
    keys = tuple(
        _parse(path, number, line.strip())
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    if not keys:
        raise InvalidArgument(f"{path} holds no API key", field=_FIELD, limit="at least one key")
    return Keyring(keys)


def _parse(path: Path, number: int, line: str) -> ApiKey:
    match = _LINE.fullmatch(line)
    if match is None:
        raise InvalidArgument(
            f"{path}, line {number}: not `name:` and 64 lower-case hexadecimal digits",
            field=_FIELD,
            limit="lines `name:sha256-of-key`",
        )
    return ApiKey(match["name"], bytes.fromhex(match["digest"]))


def require_keys_in_public(http_host: str, keyring: Keyring) -> None:
    """Raises InvalidArgument for a bind address that others can reach without any key."""
    if keyring.is_empty and not is_loopback(http_host):
        raise InvalidArgument(
            f"gateway.http_host {http_host} can be reached from outside: set {_FIELD} "
            "or bind to 127.0.0.1",
            field="gateway.http_host",
            limit="a loopback address without API keys",
        )


def _local(caller: Caller) -> str:
    if caller.host and not is_loopback(caller.host):
        raise PermissionDenied(
            f"without API keys only this machine is served, and {caller.host} is not it: "
            f"set {_FIELD}"
        )
    if caller.origin and not is_loopback(urlsplit(caller.origin).hostname or "unknown"):
        raise PermissionDenied(
            f"without API keys scripts of {caller.origin} are not served: set {_FIELD}"
        )
    return LOCAL


def is_loopback(host: str) -> bool:
    """True for 127.0.0.0/8, ::1, the former mapped into IPv6, and `localhost`."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def host_of_grpc_peer(peer: str) -> str:
    """The address in `ipv4:127.0.0.1:4711` or `ipv6:%5B::1%5D:4711`; empty for a unix socket.

    A peer of any other kind is no loopback peer, whatever it says.
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind.startswith("unix"):
        return ""
    if kind not in ("ipv4", "ipv6"):
        return peer or "unknown"
    return rest.rpartition(":")[0].strip("[]")

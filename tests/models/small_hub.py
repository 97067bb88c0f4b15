"""A Hub on the loopback: the few endpoints that the library asks for, over real folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit


@dataclass
class SmallHub:
    """Repositories by id, each with its folder and the commits of its revisions.

    `asked` are the paths of all requests, `gated` the repositories whose files are not given out.
    """

    repositories: Mapping[str, Path]
    revisions: Mapping[str, str] = field(default_factory=lambda: {"main": "a" * 40})
    gated: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""


@contextmanager
def serving(hub: SmallHub) -> Iterator[SmallHub]:
    """The hub at `hub.endpoint`, until the block ends."""

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: SmallHub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.served.asked.append(path)
        match path.strip("/").split("/"):
            case ["api", "models", owner, name, "revision", revision]:
                self._describe(f"{owner}/{name}", revision)
            case ["api", "models", owner, name, "tree", revision]:
                self._list(f"{owner}/{name}", revision)
            case [owner, name, "resolve", revision, *file]:
                self._file(f"{owner}/{name}", revision, "/".join(file))
            case _:
                self._refuse("EntryNotFound")

    def _commit(self, repository: str, revision: str) -> str | None:
        """None when a refusal was sent."""
        revisions = self.served.revisions
        commit = revision if revision in revisions.values() else revisions.get(revision)
        if repository not in self.served.repositories:
            self._refuse("RepoNotFound")
        elif repository in self.served.gated:
            self._refuse("GatedRepo", 403)
        elif commit is None:
            self._refuse("RevisionNotFound")
        else:
            return commit
        return None

    def _describe(self, repository: str, revision: str) -> None:
        commit = self._commit(repository, revision)
        if commit is not None:
            siblings = [{"rfilename": name} for name in self._files(repository)]
            self._send_json({"id": repository, "sha": commit, "siblings": siblings})

    def _list(self, repository: str, revision: str) -> None:
        if self._commit(repository, revision) is not None:
            files = self._files(repository).items()
            self._send_json(
                [
                    {"type": "file", "path": name, "oid": _etag(file), "size": file.stat().st_size}
                    for name, file in files
                ]
            )

    def _file(self, repository: str, revision: str, name: str) -> None:
        commit = self._commit(repository, revision)
        if commit is None:
            return
        file = self._files(repository).get(name)
        if file is None:
            self._refuse("EntryNotFound")
            return
        self._send(
            file.read_bytes(),
            {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": commit, "Accept-Ranges": "none"},
        )

    def _files(self, repository: str) -> dict[str, Path]:
        folder = self.served.repositories[repository]
        return {file.name: file for file in sorted(folder.iterdir())}

    def _refuse(self, code: str, status: int = 404) -> None:
        self._send(b"{}", {"X-Error-Code": code}, status)

    def _send_json(self, content: object) -> None:
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, content: bytes, headers: Mapping[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()

"""`HOME/run/cluster.json`: which cluster runs out of this home.

claim -> starting (no endpoints) -> announce -> ready (endpoints) -> release
  |
  +-- a file whose process is gone is stale: it is replaced
  +-- a file whose process lives: refused, naming its pid
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from actors.cli.processes import ProcessId, family, identify, is_alive
from actors.roles import Endpoints
from cluster.config import ThothConfig
from cluster.errors import InvariantBroken, Refused


@dataclass(frozen=True, slots=True)
class Run:
    """A cluster that was started. `family` is whoever belonged to it when it became ready."""

    process: ProcessId
    config_digest: str
    endpoints: Endpoints | None = None
    family: tuple[ProcessId, ...] = ()

    @property
    def is_alive(self) -> bool:
        return is_alive(self.process)

    def everyone(self) -> tuple[ProcessId, ...]:
        """Every process of the cluster, known from before or found now."""
        return tuple(dict.fromkeys((*family(self.process), *self.family)))


class RunFile:
    """The file of one home."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "run"
        self.path = self.folder / "cluster.json"
        self.log = self.folder / "up.log"

    def read(self) -> Run | None:
        """None when there is no file, or one that no `up` has written."""
        try:
            said = json.loads(self.path.read_text(encoding="utf-8"))
            return Run(
                ProcessId(**said["process"]),
                said["config_digest"],
                Endpoints(**said["endpoints"]) if said["endpoints"] else None,
                tuple(ProcessId(**process) for process in said["family"]),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def claim(self, config: ThothConfig) -> Run:
        """This process is the cluster of this home. Raises Refused while another one is."""
        run = Run(myself(), config_digest(config))
        while not self._create(run):
            held = self.read()
            if held is not None and held.is_alive:
                raise Refused(
                    f"a cluster runs out of {self.folder.parent} already: pid {held.process.pid} "
                    "(`thoth down` stops it)",
                    field="home",
                    limit="one cluster per home",
                )
            self.path.unlink(missing_ok=True)
        return run

    def announce(self, run: Run, endpoints: Endpoints) -> Run:
        """The cluster answers here, and consists of these processes."""
        ready = replace(run, endpoints=endpoints, family=family(run.process))
        os.replace(self._written(ready), self.path)
        return ready

    def release(self, run: Run) -> None:
        """Removes the file, if it is still of this run."""
        held = self.read()
        if held is None or held.process == run.process:
            self.path.unlink(missing_ok=True)

    def _create(self, run: Run) -> bool:
        """Whether the file was not there: of two that try, one succeeds."""
        written = self._written(run)
        try:
            os.link(written, self.path)
        except FileExistsError:
            return False
        finally:
            written.unlink()
        return True

    def _written(self, run: Run) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".cluster-", suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(run), file)
        return Path(name)


def myself() -> ProcessId:
    found = identify(os.getpid())
    if found is None:
        raise InvariantBroken(f"pid {os.getpid()} does not see itself")
    return found


def config_digest(config: ThothConfig) -> str:
    """Tells configurations apart."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]

"""The thread an engine lives in, so that no event loop ever waits for a matrix product.

any thread --submit, cancel--> mailbox --> engine thread --EngineEvent--> deliver
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cluster.engine.engine import Engine, StepReport
from cluster.errors import ThothError
from cluster.ids import RequestId
from cluster.request import Request, WorkerLoad

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Submit:
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class Stop:
    pass


@dataclass(frozen=True, slots=True)
class Stepped:
    """A step ran; `load` is what is left to do."""

    report: StepReport
    load: WorkerLoad


@dataclass(frozen=True, slots=True)
class Turned:
    """A request was not taken in, and why."""

    request_id: RequestId
    error: ThothError


@dataclass(frozen=True, slots=True)
class Died:
    """The engine failed; nothing more comes from it."""

    error: Exception


EngineEvent = Stepped | Turned | Died
Deliver = Callable[[EngineEvent], None]


class EngineThread:
    """Owns an engine from `start` to `stop`; `deliver` is called on its thread."""

    def __init__(self, engine: Engine, deliver: Deliver) -> None:
        self._engine = engine
        self._deliver = deliver
        self._mailbox: queue.SimpleQueue[Submit | Cancel | Stop] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: Request) -> None:
        self._mailbox.put(Submit(request))

    def cancel(self, request_id: RequestId) -> None:
        self._mailbox.put(Cancel(request_id))

    def stop(self) -> None:
        """Returns when the step that runs has ended."""
        self._mailbox.put(Stop())
        self._thread.join()

    def _live(self) -> None:
        try:
            while self._read_mail():
                if self._engine.has_work:
                    report = self._engine.step()
                    self._deliver(Stepped(report, self._engine.load()))
        except Exception as error:
            log.critical("the engine died", exc_info=error)
            self._deliver(Died(error))

    def _read_mail(self) -> bool:
        """Handles all mail; waits for some when there is nothing else to do. False: stop."""
        wait = not self._engine.has_work
        while True:
            try:
                mail = self._mailbox.get(block=wait)
            except queue.Empty:
                return True
            wait = False
            if isinstance(mail, Stop):
                return False
            self._handle(mail)

    def _handle(self, mail: Submit | Cancel) -> None:
        match mail:
            case Submit(request):
                try:
                    self._engine.submit(request)
                except ThothError as error:
                    self._deliver(Turned(request.id, error))
            case Cancel(request_id):
                self._engine.cancel(request_id)

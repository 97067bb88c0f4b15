"""The thread an engine lives in, so that no event loop ever waits for a matrix product.

any thread --submit, cancel--> mailbox --> engine thread --EngineEvent--> deliver
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar, cast

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
class Between:
    """Work that the engine's thread does between two steps: a question, or a change."""

    work: Callable[[Engine], object]
    answer: Future[object]


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


Answer = TypeVar("Answer")
EngineEvent = Stepped | Turned | Died
Deliver = Callable[[EngineEvent], None]


class EngineThread:
    """Owns an engine from `start` to `stop`; `deliver`, and at the end `close`, are called on its
    thread."""

    def __init__(
        self, engine: Engine, deliver: Deliver, close: Callable[[], None] = lambda: None
    ) -> None:
        self._engine = engine
        self._deliver = deliver
        self._close = close
        self._has_ended = False
        self._mailbox: queue.SimpleQueue[Submit | Cancel | Between | Stop] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: Request) -> None:
        self._mailbox.put(Submit(request))

    def cancel(self, request_id: RequestId) -> None:
        self._mailbox.put(Cancel(request_id))

    def between_steps(self, work: Callable[[Engine], Answer]) -> Future[Answer]:
        """What comes of it on the engine's thread; cancelled when that ends before."""
        answer: Future[Answer] = Future()
        self._mailbox.put(Between(work, cast("Future[object]", answer)))
        if self._has_ended:
            self._end()
        return answer

    def stop(self) -> None:
        """Returns when the step that runs has ended, and all is closed."""
        self._mailbox.put(Stop())
        self._thread.join()

    def _live(self) -> None:
        try:
            while self._read_mail():
                if self._engine.has_work:
                    report = self._engine.step()
                    self._deliver(Stepped(report, self._engine.load()))
            self._close()
        except Exception as error:
            log.critical("the engine died", exc_info=error)
            self._deliver(Died(error))
            self._close_after_death()
        finally:
            self._end()

    def _answer(self, work: Callable[[Engine], object], answer: Future[object]) -> None:
        """Work that fails is the asker's to hear of; the engine goes on."""
        try:
            answer.set_result(work(self._engine))
        except Exception as error:
            answer.set_exception(error)

    def _end(self) -> None:
        """Nobody waits for an answer that will not come."""
        self._has_ended = True
        with suppress(queue.Empty):
            while True:
                mail = self._mailbox.get_nowait()
                if isinstance(mail, Between):
                    mail.answer.cancel()

    def _close_after_death(self) -> None:
        """What others wait for, as a folder's lock, is let go, though the engine is not whole."""
        try:
            self._close()
        except Exception as error:
            log.error("closing the engine failed: %s", error)

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

    def _handle(self, mail: Submit | Cancel | Between) -> None:
        match mail:
            case Between(work, answer):
                self._answer(work, answer)
            case Submit(request):
                try:
                    self._engine.submit(request)
                except ThothError as error:
                    self._deliver(Turned(request.id, error))
            case Cancel(request_id):
                self._engine.cancel(request_id)

"""One idea: requests are kept in order of arrival and every step serves that order.

Whoever came first gets blocks first, takes them from the youngest when the pool is empty, and is
therefore never starved. The older ones are the ones that decode, a row each; whatever they leave of
the step's token budget is a chunk of the next prompt. Documents that nobody uses make room before
anybody has to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cluster.blocks.segment import Home
from cluster.scheduling.draft import Draft
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload
from cluster.scheduling.requests import Requests
from cluster.scheduling.reuse import Walk, blocks_beyond, to_keep, walk
from cluster.scheduling.sequence import Sequence


class HostPolicy(Protocol):
    """What the host is used for when the device is full."""

    def home(self, head: Sequence, draft: Draft, /) -> Home | None:
        """Where the one that has waited longest may begin now; None: it waits."""
        ...

    def pages_out(self, victim: Sequence, draft: Draft, /) -> bool:
        """Whether its blocks have been moved to the host, instead of being given up."""
        ...


@dataclass(frozen=True, slots=True)
class NoHost:
    """Nothing: the plans of `gpu_only`."""

    requests: Requests

    def home(self, head: Sequence, draft: Draft, /) -> Home | None:
        return Home.DEVICE if fits_device(self.requests, head) else None

    def pages_out(self, victim: Sequence, draft: Draft, /) -> bool:
        return False


def fits_device(requests: Requests, head: Sequence, reserve: int = 0) -> bool:
    """Whether so many blocks stay free beside it."""
    needed, available = blocks_beyond(requests.cache, head)
    return needed + reserve <= available


def due_rows(requests: Requests, offload: Offload) -> int:
    """Rows to be kept for all that decode, once one of them has had none for long."""
    most = offload.progress_steps // 2
    if all(s.num_skipped < most for s in requests.running):
        return 0
    decoding = [s.num_skipped for s in requests.running if s.is_decoding]
    return len(decoding) if max(decoding, default=0) >= most else 0


@dataclass(frozen=True, slots=True)
class OldestFirst:
    requests: Requests
    limits: IterationLimits
    host: HostPolicy

    def fill(self, draft: Draft) -> None:
        """Everybody's rows, but those of the ones that decode on the host, which are parked. Once
        somebody has found no room on the device, nobody who comes later takes any."""
        is_full = False
        for sequence in list(self.requests.running):
            is_open = sequence.is_running and (not is_full or sequence.home is Home.HOST)
            if is_open and sequence.has_row and draft.budget > 0:
                draft.add(sequence, len(sequence.tokens))
            elif is_open and draft.room_for(sequence):
                is_full |= not self.serve(sequence, draft)
        while not is_full and (home := self._next_home(draft)) is not None:
            head = self.requests.admit(home)
            is_full = not self.serve(head, draft) or not head.is_running

    def _next_home(self, draft: Draft) -> Home | None:
        """Where the one that has waited longest begins; None: nobody does."""
        requests = self.requests
        has_seat = len(requests.running) < self.limits.max_running
        if not requests.waiting or not has_seat or not draft.room_for(requests.waiting[0]):
            return None
        return self.host.home(requests.waiting[0], draft)

    def serve(self, sequence: Sequence, draft: Draft) -> bool:
        """The draft has rows for it. False: the device has no room for those that come after it."""
        before = sequence.home
        sequence.come_nearer()
        ended = self._walk(sequence, draft)
        if ended is Walk.PREEMPTED:
            return self._again(sequence, before, draft)
        draft.claimed.update(to_keep(self.requests.cache, sequence))
        if ended is Walk.WAIT:
            return True
        end = min(sequence.num_computed + draft.room_for(sequence), len(sequence.tokens))
        if not self._fit(sequence, end, draft):
            return self._again(sequence, before, draft)
        draft.add(sequence, end)
        return True

    def _again(self, sequence: Sequence, before: Home, draft: Draft) -> bool:
        """Whoever has had to go to the host goes on there; whom the host has no room for says
        nothing of the device's."""
        return self.serve(sequence, draft) if sequence.is_running else before is Home.HOST

    def _walk(self, sequence: Sequence, draft: Draft) -> Walk:
        def free(count: int) -> bool:
            return self.make_room(sequence, count, draft)

        return walk(self.requests.cache, sequence, draft.claimed, free)

    def _fit(self, sequence: Sequence, end: int, draft: Draft) -> bool:
        """Whether the sequence has its blocks. False: it has had to give way."""
        while self.make_room(sequence, sequence.missing(end), draft):
            if self.requests.grow(sequence, end):
                return True
            victim = next(s for s in reversed(self.requests.running) if s.home is Home.HOST)
            self.preempt(victim, draft)
            if victim is sequence:
                return False
        return False

    def make_room(self, sequence: Sequence, count: int, draft: Draft) -> bool:
        """Frees so many blocks of the device: from documents that nobody uses, then from the
        youngest. False: that was the sequence itself.

        Who is planned is mostly older; but after the rows of the host, or in `neo`, which serves
        the device first, somebody younger may be: paged out it keeps its place in the step, and
        preempted it loses it.
        """
        while not self.requests.cache.make_room(count):
            victim = next(
                s for s in reversed(self.requests.running) if s is sequence or _is_on_device(s)
            )
            if not self.host.pages_out(victim, draft):
                self.preempt(victim, draft)
            if victim is sequence:
                return False
        return True

    def preempt(self, victim: Sequence, draft: Draft) -> None:
        """It waits again, to be computed anew; what was planned of it is not computed."""
        if victim in draft.parked:
            draft.parked.remove(victim)
        draft.drop(victim)
        self.requests.preempt(victim)


def _is_on_device(sequence: Sequence) -> bool:
    return bool(sequence.nodes) or sequence.num_own_blocks() > 0

"""`adaptive`: the plans of `gpu_only` as long as there is room, and beyond it what the costs say.

    the device is full   the head of the queue begins on the host, if rows per second grow by it
                         the youngest is paged out to the host, instead of being computed again
    every step           rows of the host join where the device hides them, the longest unserved
                         first; the last prompt's chunk is cut where that makes more rows a second
    there is room again  the oldest is paged in, if nobody waits or the host does not keep up

Nobody on the host goes without a row for more than `progress_steps` steps. What the costs say of
the host is doubted when it was not measured for long while requests wait: they fall until it is
tried again, and after a trial that did not pay the next comes after twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.blocks.segment import Home
from cluster.scheduling.balance import Balance, Split
from cluster.scheduling.draft import Draft, Entry, total, work_of
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload
from cluster.scheduling.oldest_first import OldestFirst, due_rows, fits_device
from cluster.scheduling.plan import PlanKind
from cluster.scheduling.requests import Requests
from cluster.scheduling.reuse import blocks_beyond, own_blocks
from cluster.scheduling.sequence import Sequence
from cluster.scheduling.stages import Work

# Another kind of plan, or another chunk, has to be better by this share.
HYSTERESIS = 0.02
# One more row has to bring this share of what a row brings on the average.
LEAST_GAIN = 0.2
# Whoever has come to the host stays for so many steps.
LEAST_STAY = 8
# Of the device's blocks, what stays free for those that grow when somebody is paged in.
GROWTH_SHARE = 0.05
# A chunk is cut to halves of itself, and to no less than this.
LEAST_CHUNK = 16


@dataclass(slots=True)
class Adaptive:
    requests: Requests
    limits: IterationLimits
    offload: Offload
    _oldest_first: OldestFirst = field(init=False)
    _last: PlanKind = field(init=False, default=PlanKind.GPU_ONLY)

    def __post_init__(self) -> None:
        self._oldest_first = OldestFirst(self.requests, self.limits, self)

    def fill(self, draft: Draft) -> None:
        self.offload.costs.doubt(bool(self.requests.waiting))
        self._page_in()
        draft.reserved = due_rows(self.requests, self.offload)
        self._oldest_first.fill(draft)
        if draft.parked:
            draft.parked.sort(key=lambda s: (-s.num_skipped, s.ordinal))
            self._join(draft)

    # What the host is used for when the device is full.

    def home(self, head: Sequence, draft: Draft, /) -> Home | None:
        if self._is_behind:
            return None
        if fits_device(self.requests, head):
            return Home.DEVICE
        return Home.HOST if self._fits_host(head) and self._pays(head, draft) else None

    def pages_out(self, victim: Sequence, draft: Draft, /) -> bool:
        is_there = victim.home is Home.HOST or not victim.pageable()
        return not is_there and self.requests.page_out(victim)

    @property
    def _is_behind(self) -> bool:
        """Whether the host does not keep up with those that decode there."""
        return any(s.num_skipped for s in self.requests.running if s.home is Home.HOST)

    def _fits_host(self, head: Sequence) -> bool:
        own = own_blocks(head)
        needed, available = blocks_beyond(self.requests.cache, head)
        return needed - own <= available and self.requests.host_room(own)

    def _pays(self, head: Sequence, draft: Draft) -> bool:
        """Whether there are more rows a second with it, once it decodes; what can never lie on the
        device has no choice."""
        needed, _ = blocks_beyond(self.requests.cache, head)
        if needed > self.requests.pool.num_blocks or not self.requests.running:
            return True
        on_device = [s for s in self.requests.running if s.home is Home.DEVICE]
        on_host = [s for s in self.requests.running if s.home is Home.HOST]
        device = Work(len(on_device), 0, sum(len(s.tokens) for s in on_device))
        parked = [Work(1, 0, 0, 1, len(s.tokens)) for s in (*on_host, head)]
        costs = self.offload.costs
        without = Balance(costs, device, parked[:-1]).best()
        having = Balance(costs, device, parked).best(num_forced=0)
        least = 1.0 + LEAST_GAIN / max(1, having.rows)
        is_paid = having.rate > without.rate * least
        draft.said = f"host {having.rate:.1f} rows/s with one more, {without.rate:.1f} without"
        return is_paid

    # Rows of the host.

    def _join(self, draft: Draft) -> None:
        """The parked rows that the step takes, and in which sub-batch."""
        works = [work_of(s, len(s.tokens)) for s in draft.parked]
        forced = sum(s.num_skipped >= self.offload.progress_steps - 1 for s in draft.parked)
        room = max(draft.budget, 0)
        split = self._best(draft, works, forced, room)
        for index in range(split.num_beside + split.num_apart):
            sequence = draft.parked[index]
            batch = draft.first if index < split.num_beside else draft.second
            batch.append(Entry(sequence, len(sequence.tokens)))
        draft.budget -= split.num_beside + split.num_apart
        self._last = split.kind

    def _best(self, draft: Draft, works: list[Work], forced: int, room: int) -> Split:
        """Over the sizes of the last prompt's chunk, which is cut if that is better."""
        chunk = next((e for e in reversed(draft.first) if e.rows > LEAST_CHUNK), None)
        whole = self._balance(total(draft.first), works).best(forced, room)
        best, end = whole, 0
        rows = chunk.rows // 2 if chunk is not None else 0
        while chunk is not None and rows >= LEAST_CHUNK:
            cut = Entry(chunk.sequence, chunk.sequence.num_computed + rows)
            first = total([cut if entry is chunk else entry for entry in draft.first])
            split = self._balance(first, works).best(forced, room + chunk.rows - rows)
            if split.rate > best.rate * (1.0 + HYSTERESIS):
                best, end = split, cut.end
            rows //= 2
        if chunk is not None and end:
            draft.budget += chunk.end - end
            draft.said = f"{draft.said}; chunk of {chunk.rows} rows cut at {end}".lstrip("; ")
            chunk.end = end
        return best

    def _balance(self, first: Work, works: list[Work]) -> Balance:
        return Balance(self.offload.costs, first, works, self._last, HYSTERESIS)

    # Back to the device.

    def _page_in(self) -> None:
        """The oldest: as many as there is room for while the host does not keep up, one if it does
        and nobody waits."""
        is_behind = self._is_behind
        if self.requests.waiting and not is_behind:
            return
        for sequence in [s for s in self.requests.running if s.home is Home.HOST]:
            if sequence.num_steps_there < LEAST_STAY or not self._bring(sequence):
                return
            if not is_behind:
                return

    def _bring(self, sequence: Sequence) -> bool:
        """False: there is no room beside what the others may grow by."""
        own = len(sequence.pageable())
        needed = own + 1 + int(GROWTH_SHARE * self.requests.pool.num_blocks)
        if self.requests.cache.num_available < needed:
            return False
        if not self.requests.cache.make_room(needed):
            return False
        self.requests.page_in(sequence)
        return True

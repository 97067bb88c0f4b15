"""`neo`: the scheduler that NEO published (arXiv 2411.01142, and its code of March 2025), retold.

    1  decodes on the device; the youngest are paged out while the pool or the budget is exceeded
    2  the oldest of the host are paged in while the pool stays below its mark; never both at once
    3  whole prompts, first come first served, to the device until one has gone to the host
    4  decodes on the host join the sub-batch with more slack, as long as the device hides them
    5  two sub-batches if that makes more rows a second, else the device alone

Otherwise than published it comes to an end: a prompt that exceeds the budget is computed in chunks,
one that exceeds the device lies on the host, the host's pool may be the smaller one, who fits
nowhere is preempted, and nobody on the host goes without a row for `progress_steps` steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.blocks.segment import Home
from cluster.scheduling.draft import Draft, Entry, total, work_of
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload
from cluster.scheduling.oldest_first import OldestFirst, due_rows, fits_device
from cluster.scheduling.requests import Requests
from cluster.scheduling.reuse import blocks_beyond, own_blocks
from cluster.scheduling.sequence import Sequence
from cluster.scheduling.stages import StageCosts, Work

# Of the device's pool: requests are paged in while it stays below.
PAGE_IN_BELOW = 0.95
# A prompt for the host is left out only while so many prompt tokens remain.
LEAST_PREFILL_TOKENS = 128


@dataclass(slots=True)
class Batches:
    """What the published rules reckon with: the work of both sub-batches."""

    costs: StageCosts
    first: Work
    second: Work = field(default_factory=Work)

    @property
    def slacks(self) -> tuple[float, float]:
        """Seconds that either sub-batch's host attention could take longer."""
        return self._slack(self.first, self.second), self._slack(self.second, self.first)

    def _slack(self, own: Work, other: Work) -> float:
        costs = self.costs
        hidden_s = costs.linear.at(other.rows) + costs.attention_s(own)
        exchange_s = costs.exchange.at(max(1, own.exchanged_rows))
        return hidden_s - costs.host_s(own.host_rows, own.host_tokens) - exchange_s

    @property
    def device_s(self) -> float:
        works = self.first, self.second
        return sum(self.costs.linear.at(w.rows) + self.costs.attention_s(w) for w in works)

    @property
    def rate(self) -> float:
        rows = self.first.rows + self.second.rows
        return rows / self.device_s if self.device_s > 0.0 else float(rows)


@dataclass(slots=True)
class Neo:
    requests: Requests
    limits: IterationLimits
    offload: Offload
    _oldest_first: OldestFirst = field(init=False)
    _has_paged_out: bool = field(init=False, default=False)
    _has_gone_to_host: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._oldest_first = OldestFirst(self.requests, self.limits, self)

    def fill(self, draft: Draft) -> None:
        self._has_paged_out = self._has_gone_to_host = False
        draft.reserved = due_rows(self.requests, self.offload)
        self._run(draft, [s for s in self.requests.running if s.home is Home.DEVICE])
        if not self._has_paged_out:
            self._page_in(draft)
        self._run(draft, [s for s in self.requests.running if s.home is Home.HOST])
        self._admit(draft)
        self._form(draft)

    def _run(self, draft: Draft, sequences: list[Sequence]) -> None:
        """Decodes, and what is left of prompts that were too long for a step."""
        if not sequences:
            return
        planned = {id(s) for s in (*(entry.sequence for entry in draft.entries), *draft.parked)}
        for sequence in sequences:
            is_open = sequence.is_running and id(sequence) not in planned
            if is_open and sequence.has_row and draft.budget > 0:
                draft.add(sequence, len(sequence.tokens))
            elif is_open and draft.room_for(sequence):
                self._oldest_first.serve(sequence, draft)

    def _page_in(self, draft: Draft) -> None:
        pool = self.requests.pool
        for sequence in [s for s in self.requests.running if s.home is Home.HOST]:
            own = len(sequence.pageable())
            held = pool.num_blocks - self.requests.cache.num_available
            is_below = held + own + 1 <= PAGE_IN_BELOW * pool.num_blocks
            if not is_below or not draft.room_for(sequence):
                return
            if not self.requests.cache.make_room(own + 1):
                return
            self.requests.page_in(sequence)
            self._oldest_first.serve(sequence, draft)

    def _admit(self, draft: Draft) -> None:
        """Whole prompts. One that no step has room for is begun in a step without another."""
        requests = self.requests
        has_prompt = any(entry.rows > 1 for entry in draft.first)
        while requests.waiting and len(requests.running) < self.limits.max_running:
            head = requests.waiting[0]
            is_long = head.num_remaining > self.limits.step_tokens - self.limits.max_running
            rows = draft.room_for(head)
            fits = head.num_remaining <= rows or (is_long and not has_prompt)
            home = self.home(head, draft) if fits and rows else None
            if home is None:
                return
            self._has_gone_to_host |= home is Home.HOST
            has_prompt = True
            if not self._oldest_first.serve(requests.admit(home), draft):
                return

    # What the host is used for when the device is full.

    def home(self, head: Sequence, draft: Draft, /) -> Home | None:
        requests = self.requests
        if not self._has_gone_to_host and fits_device(requests, head):
            return Home.DEVICE
        own = own_blocks(head)
        needed, available = blocks_beyond(requests.cache, head)
        limit = self._host_limit if requests.running else requests.host_limit
        has_room = requests.cache.host.num_lent + own <= limit
        return Home.HOST if needed - own <= available and has_room else None

    @property
    def _host_limit(self) -> int:
        """As published the host keeps as many blocks free as the device has, for all that may be
        paged out; all of them are used where it has no more than that."""
        limit = self.requests.host_limit
        beyond = limit - self.requests.pool.num_blocks
        return beyond if beyond > 0 else limit

    def pages_out(self, victim: Sequence, draft: Draft, /) -> bool:
        if victim.home is Home.HOST or not victim.pageable():
            return False
        has_moved = self.requests.page_out(victim)
        self._has_paged_out |= has_moved
        return has_moved

    # Two sub-batches, or the device alone.

    def _form(self, draft: Draft) -> None:
        costs = self.offload.costs
        alone = self._without_host_prompts(draft)
        batches = Batches(costs, total(draft.first))
        forced = [s for s in draft.parked if s.num_skipped >= self.offload.progress_steps - 1]
        alone_rate = batches.rate
        if len(alone) < len(draft.first):
            alone_rate = Batches(costs, total(alone)).rate
        joined = self._join(draft, batches)
        is_better = batches.second.rows > 0 and batches.rate > alone_rate
        if is_better:
            self._trim(draft, batches)
        elif draft.parked and not draft.first:
            # Nothing else is there: as published nothing would run.
            joined = [(s, 0) for s in draft.parked[: draft.budget]]
        else:
            draft.first = alone
            joined = [(s, 0) for s in forced[: draft.budget]]
        for sequence, index in joined:
            batch = draft.second if index and draft.first else draft.first
            batch.append(Entry(sequence, len(sequence.tokens)))
        draft.said = f"two sub-batches {batches.rate:.1f} rows/s" if is_better else draft.said

    def _without_host_prompts(self, draft: Draft) -> list[Entry]:
        """The device alone leaves out prompts for the host, the last first."""
        prompt_rows = sum(entry.rows for entry in draft.first if entry.rows > 1)
        left_out: set[int] = set()
        for entry in reversed(draft.first):
            is_for_host = entry.sequence.home is Home.HOST and entry.rows > 1
            if is_for_host and prompt_rows - entry.rows >= LEAST_PREFILL_TOKENS:
                left_out.add(id(entry))
                prompt_rows -= entry.rows
        return [entry for entry in draft.first if id(entry) not in left_out]

    def _join(self, draft: Draft, batches: Batches) -> list[tuple[Sequence, int]]:
        """The oldest first, each to the sub-batch whose turn it is, if all stays hidden."""
        joined: list[tuple[Sequence, int]] = []
        turn, shortest = 1, None
        for sequence in draft.parked[: draft.budget]:
            is_forced = sequence.num_skipped >= self.offload.progress_steps - 1
            length = len(sequence.tokens)
            if shortest is not None and length >= shortest and not is_forced:
                continue
            before = batches.first, batches.second
            work = work_of(sequence, length)
            if turn:
                batches.second += work
            else:
                batches.first += work
            slacks = batches.slacks
            if min(slacks) < 0.0 and not is_forced:
                batches.first, batches.second = before
                shortest = length
                continue
            joined.append((sequence, turn))
            turn = 0 if slacks[0] > slacks[1] else 1
        return joined

    def _trim(self, draft: Draft, batches: Batches) -> None:
        """Prompts for the host wait for another step as long as everything stays hidden."""
        for entry in list(reversed(draft.first)):
            prompt_rows = sum(e.rows for e in draft.first if e.rows > 1)
            if entry.sequence.home is not Home.HOST or entry.rows <= 1:
                continue
            if prompt_rows - entry.rows < LEAST_PREFILL_TOKENS:
                return
            less = [e for e in draft.first if e is not entry]
            rest = total(less)
            trial = Batches(batches.costs, rest, batches.second)
            if min(trial.slacks) < 0.0:
                return
            draft.first = less
            batches.first = rest

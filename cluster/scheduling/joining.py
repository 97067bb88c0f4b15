"""Which rows of the host a step takes, in which sub-batch, and how much of a prompt for their sake.

The last prompt's chunk is the balancing knob: cut, it leaves the device less to do beside the rows
that the host attends.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from cluster.scheduling.balance import Balance, Split
from cluster.scheduling.draft import Draft, Entry, total, work_of
from cluster.scheduling.offload import Offload
from cluster.scheduling.plan import PlanKind
from cluster.scheduling.stages import Work

# Another kind of plan has to be better by this share.
HYSTERESIS = 0.02
# A chunk is cut to halves of itself, to no less than this, if that is better by such a share: who
# waits for the prompt waits longer.
LEAST_CHUNK = 16
CUT_SHARE = 0.1
# Where no cut was better none is looked for in so many steps; and as many times the rows of a step
# are found from those of the step before, if it was like this one, before they are found from all.
LOOKED_AGAIN = 4


@dataclass(slots=True)
class Joining:
    offload: Offload
    _last: Split | None = field(init=False, default=None)
    _num_near: int = field(init=False, default=0)
    _had_prompts: bool = field(init=False, default=False)
    _rests: int = field(init=False, default=0)

    def join(self, draft: Draft) -> None:
        """The parked rows that the step takes, those first that have gone without for longest."""
        draft.parked.sort(key=lambda s: (-s.num_skipped, s.ordinal))
        works = [work_of(s, len(s.tokens)) for s in draft.parked]
        forced = sum(s.num_skipped >= self.offload.progress_steps - 1 for s in draft.parked)
        self._last = split = self._best(draft, works, forced)
        for index in range(split.num_beside + split.num_apart):
            sequence = draft.parked[index]
            batch = draft.first if index < split.num_beside else draft.second
            batch.append(Entry(sequence, len(sequence.tokens)))
        draft.budget -= split.num_beside + split.num_apart

    def _best(self, draft: Draft, works: Many[Work], forced: int) -> Split:
        """Rows that are spread are given, and what counts are those of answers beside them."""
        room = max(draft.budget, 0)
        given = 0
        if draft.prompt_rows is not None:
            given = sum(entry.rows for entry in draft.first if entry.rows > 1)
        around = self._like_this(draft)
        whole = self._balance(total(draft.first), works, given).best(forced, room, around)
        chunk = next((e for e in reversed(draft.first) if e.rows > LEAST_CHUNK), None)
        if given or chunk is None:
            return whole
        if self._rests:
            self._rests -= 1
            return whole
        return self._cut(draft, chunk, works, forced, whole)

    def _like_this(self, draft: Draft) -> Split | None:
        """The last plan, if it is one to go on from."""
        had_prompts, self._had_prompts = self._had_prompts, any(e.rows > 1 for e in draft.first)
        self._num_near = (self._num_near + 1) % LOOKED_AGAIN
        return self._last if self._num_near and had_prompts is self._had_prompts else None

    def _cut(
        self, draft: Draft, chunk: Entry, works: Many[Work], forced: int, whole: Split
    ) -> Split:
        """Over the sizes of the chunk."""
        room = max(draft.budget, 0)
        best, end, least = whole, chunk.end, whole.rate * (1.0 + CUT_SHARE)
        rows = chunk.rows // 2
        while rows >= LEAST_CHUNK:
            cut = Entry(chunk.sequence, chunk.sequence.num_computed + rows)
            first = total([cut if entry is chunk else entry for entry in draft.first])
            split = self._balance(first, works).best(forced, room + chunk.rows - rows)
            if split.rate > max(best.rate, least):
                best, end = split, cut.end
            rows //= 2
        if end == chunk.end:
            self._rests = LOOKED_AGAIN - 1
            return whole
        draft.budget += chunk.end - end
        draft.said = f"{draft.said}; chunk of {chunk.rows} rows cut at {end}".lstrip("; ")
        chunk.end = end
        return best

    def _balance(self, first: Work, works: Many[Work], num_given: int = 0) -> Balance:
        last = PlanKind.GPU_ONLY if self._last is None else self._last.kind
        return Balance(self.offload.costs, first, works, last, HYSTERESIS, num_given)

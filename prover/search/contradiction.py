"""Facts that no values meet together: a lemma that denies one of them closes the branch.

What such facts imply is anything, so the goal says nothing of why they cannot be. Of the smallest
set that tests find to be at odds, the largest fact is denied under the others.
"""

from __future__ import annotations

from prover.builtins import FALSE, TRUE
from prover.program import Equality
from prover.search.branch import Branch, is_truth
from prover.search.conjecture import Conjecture
from prover.search.trial import Trial

_MOST_FACTS = 4  # in a set that a lemma is made of


def denial(branch: Branch) -> Conjecture | None:
    """That one of the branch's facts is false where some others hold, as far as tests tell."""
    known = branch.conditions()
    trial = branch.tools.trial
    if not known or not _are_at_odds(trial, known):
        return None
    for fact in reversed(known):
        fewer = tuple(each for each in known if each is not fact)
        if _are_at_odds(trial, fewer):
            known = fewer
    truths = [each for each in known if is_truth(each.right)]
    if not truths or len(known) > _MOST_FACTS:
        return None
    denied = max(truths, key=lambda each: each.left.size)
    others = tuple(each for each in known if each is not denied)
    return Conjecture(denied.left, TRUE if denied.right is FALSE else FALSE, others)


def _are_at_odds(trial: Trial, facts: tuple[Equality, ...]) -> bool:
    return bool(facts) and trial.may_hold(Conjecture(TRUE, FALSE, facts))

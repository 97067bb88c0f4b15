"""How likely a token was, as it is reported.

Of the model's own distribution, as in the OpenAI API: before mask, bias, penalties, temperature and
filters. A sum of exponentials is a sum of whole numbers here, too (see `weights`), so what is
reported does not depend on the batch either.
"""

from __future__ import annotations

import math

import numpy as np

from cluster.engine.weights import PARTS, Floats, parts, weights_of
from cluster.request import TokenLogprobs


def logprobs_of(logits: Floats, token_id: int, num_top: int) -> TokenLogprobs:
    """Of one token and of the `num_top` likeliest, equals by id; `logits` [vocab] are the model's.

    log p(i) = logit(i) - best - log(sum of exp(logit - best)).
    """
    shift = float(logits.max()) + math.log(int(parts(weights_of(logits)).sum()) / PARTS)
    top = tuple((int(i), float(logits[i]) - shift) for i in _likeliest(logits, num_top))
    return TokenLogprobs(float(logits[token_id]) - shift, top)


def _likeliest(logits: Floats, count: int) -> list[np.int64]:
    if not count:
        return []
    count = min(count, len(logits))
    floor = np.partition(logits, len(logits) - count)[len(logits) - count]
    ids = np.flatnonzero(logits >= floor)
    return sorted(ids, key=lambda i: (-logits[i], i))[:count]

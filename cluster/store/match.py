"""Anything a person may type, as a question to FTS5 that is never a syntax error.

Any of the words will do, and any two that stand side by side are worth more together. Words that
every text has say something only beside another word: "with" alone nothing, "with statement" much.
"""

from __future__ import annotations

from itertools import pairwise
from unicodedata import category

# More words than this say nothing new and cost time.
MAX_WORDS = 256
_FUNCTION_WORDS = """
    a an and are as at be been but by can could did do does for from had has have he her his how i
    if in into is it its may no not of on or she so that the their them then there these they this
    to was we were what when where which who whom whose why will with would you your
"""
_EVERYWHERE = frozenset(_FUNCTION_WORDS.split())


def match_any(query: str) -> str:
    """An FTS5 expression for "any of these words"; empty when there are none.

    Only letters, digits and marks get through, in quotes: no operator, quote or NUL does.
    """
    cleaned = "".join(char if category(char)[0] in "LNM" else " " for char in query)
    words = cleaned.casefold().split()[:MAX_WORDS]
    telling = [word for word in words if word not in _EVERYWHERE]
    pairs = [f"{one} {two}" for one, two in pairwise(words) if {one, two}.intersection(telling)]
    terms = dict.fromkeys((telling or words) + pairs)
    return " OR ".join(f'"{term}"' for term in terms)

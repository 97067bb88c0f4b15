"""`python -m prover.library` replays the certificates of all laws and says what they prove."""

from __future__ import annotations

import sys

from prover.errors import Rejected
from prover.library import laws

try:
    for law in laws():
        print(law.name, law.verify(), sep=": ")
except Rejected as error:
    sys.exit(f"{law.name}: rejected: {error}")

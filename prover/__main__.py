"""`python -m prover FILE...`: `command` says what it does."""

from __future__ import annotations

import sys

from prover.command import main

if __name__ == "__main__":
    sys.exit(main())

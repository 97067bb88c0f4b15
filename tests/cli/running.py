"""The command in a process of its own, with nothing of this environment's settings."""

from __future__ import annotations

import os
import subprocess
import sys

SETTINGS_PREFIX = "THOTH_"


def thoth(
    *arguments: str, environ: dict[str, str] | None = None, stdin: str = "", timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs `thoth` to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "actors", *arguments],
        env=clean_environment() | (environ or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS_PREFIX)}
    return inherited | {"OMP_NUM_THREADS": "1"}

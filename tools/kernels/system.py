"""Running the system's tools, and telling the user what went wrong with them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Optional


class KernelsError(Exception):
    """A kernel cannot be fetched or booted; the message is for the user."""


def run(*command: str, attempts: int = 1, directory: Optional[Path] = None) -> str:
    """Run `command` and return its standard output; KernelsError says what the last attempt printed."""
    for _ in range(attempts):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
        if done.returncode == 0:
            return done.stdout
    said = (done.stderr or done.stdout).strip()[-2000:]
    raise KernelsError(f"`{' '.join(command)}` failed with code {done.returncode}: {said}")


def tell(message: str) -> None:
    """Show progress."""
    print(f"kernels: {message}", flush=True)

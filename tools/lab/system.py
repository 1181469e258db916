"""Running the system's tools, and telling the user what went wrong with them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

TOOLS = {
    "clang": "clang",
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "ethtool": "ethtool",
    "sysctl": "procps",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
"""Program -> the Debian package that has it."""


class LabError(Exception):
    """The lab cannot be made or removed; the message is for the user."""


def require_tools() -> None:
    """Raise `LabError` that names every missing program and its package."""
    missing = [f"{tool} (package {package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise LabError(f"missing programs: {', '.join(missing)}")


def run(*command: str, log: Optional[Path] = None, check: bool = True, stdin: Optional[str] = None) -> str:
    """Run `command` and return its standard output.

    With `log`, both outputs are appended to that file instead. Raises `LabError` with the end of what the
    command said when it fails and `check` is set.
    """
    result = subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)
    if log is not None:
        with log.open("a") as stream:
            stream.write(f"$ {' '.join(command)}\n{result.stdout}{result.stderr}")
    if check and result.returncode != 0:
        said = (result.stderr or result.stdout).strip()[-2000:]
        raise LabError(f"`{' '.join(command)}` failed with code {result.returncode}: {said}")
    return result.stdout


def run_json(*command: str) -> Any:
    """Run `command` and parse its standard output; no output is an empty list (as `ip -j` means it)."""
    return json.loads(run(*command) or "[]")


def tell(message: str) -> None:
    """Show progress; standard output is kept for the result."""
    print(f"lab: {message}", file=sys.stderr, flush=True)


def wait_until(condition: Callable[[], bool], seconds: float, interval: float = 0.1) -> bool:
    """Poll `condition` until it is true; False when `seconds` have passed first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def write_if_changed(path: Path, content: str, mode: int = 0o644) -> bool:
    """Make `path` hold `content` with `mode`; True when it did not already."""
    if path.is_file() and path.read_text() == content and path.stat().st_mode & 0o777 == mode:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.write_text(content)
    path.chmod(mode)
    return True


def in_namespace(name: str, command: Sequence[str]) -> str:
    """Run `command` in a network namespace."""
    return run("ip", "netns", "exec", name, *command)

"""Cgroup v2 directories: by path and by the id that a link tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from datapath.kernel.errors import RefusedError


def mounts() -> list[Path]:
    """Where cgroup2 is mounted."""
    return [Path(fields[4]) for fields in _mountinfo()]


def roots() -> list[Path]:
    """Those of `mounts` that show the whole hierarchy, and not one cgroup of it."""
    return [Path(fields[4]) for fields in _mountinfo() if fields[3] == "/"]


def _mountinfo() -> Iterator[list[str]]:
    """Fields of each line that is about cgroup2 (proc_pid_mountinfo(5))."""
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return (fields for fields in lines if fields[fields.index("-") + 1] == "cgroup2")


def canonical(path: str) -> str:
    """The one spelling of a cgroup's path.

    Raises:
        RefusedError: it is no cgroup v2 directory; the message says where cgroup2 is mounted.
    """
    resolved = Path(path).resolve()
    places = mounts()
    if not resolved.is_dir() or not any(place == resolved or place in resolved.parents for place in places):
        known = ", ".join(map(str, places)) or "nowhere (mount -t cgroup2 none DIRECTORY)"
        raise RefusedError(f"{path} is no cgroup v2 directory; cgroup2 is mounted at {known}", "attach.cgroup")
    return str(resolved)


def open_directory(path: str) -> int:
    """File descriptor of a cgroup, to attach to."""
    return os.open(canonical(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def path_of(number: int) -> Optional[str]:
    """Path of the cgroup with this id (the inode number of its directory), None where it is gone."""
    for mount in mounts():
        for directory, _, _ in os.walk(mount):
            if Path(directory).stat().st_ino == number:
                return directory
    return None

"""What compiling on the node takes, and what to do where it is missing."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

ROLE = "role ebpf.datapath.tracing installs what is missing"
MODULES = Path("/lib/modules")
TRACING = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
EMBEDDED_HEADERS = Path("/sys/kernel/kheaders.tar.xz")


class MissingError(Exception):
    """Something is missing on this node; `path` says what."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def bcc(*, unpack: bool = True) -> Any:
    """The module `bcc`, once everything that it needs is known to be there.

    Args:
        unpack: whether headers that the kernel itself holds will do; bcc unpacks them to /tmp.

    Raises:
        MissingError: with the remedy.
    """
    try:
        module = importlib.import_module("bcc")
    except ImportError as error:
        message = f"Debian's package python3-bpfcc is not installed; {ROLE}"
        raise MissingError("python3-bpfcc", message) from error
    if not hasattr(module, "BPF"):
        raise MissingError("python3-bpfcc", f"{module.__file__} is another package of the name bcc; {ROLE}")
    _require_headers(MODULES / os.uname().release, unpack)
    return module


def _require_headers(modules: Path, unpack: bool) -> None:
    if (modules / "build").is_dir() or (unpack and EMBEDDED_HEADERS.exists()):
        return
    package = f"linux-headers-{modules.name}"
    raise MissingError(package, f"the headers of the running kernel are not in {modules}/build; {ROLE}")


def events(wanted: Iterable[str], places: Iterable[Path] = TRACING) -> Path:
    """Directory that describes the kernel's tracepoints.

    Raises:
        MissingError: it is not mounted, or the kernel lacks a tracepoint.
    """
    found: Optional[Path] = next((place / "events" for place in places if (place / "events").is_dir()), None)
    if found is None:
        message = (
            "the kernel's tracepoints are not to be seen: `mount -t tracefs tracefs /sys/kernel/tracing`; where that"
            " fails, the kernel is built without them, and no package helps"
        )
        raise MissingError("tracefs", message)
    for name in wanted:
        if not found.joinpath(*name.split(":")).is_dir():
            raise MissingError(name, "this kernel has no such tracepoint")
    return found

"""Sysctl values as they were before the executor changed them, so that `reset` and a device that is no longer
ours get them back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from datapath.sources.store import sync_directory, write_atomic

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Originals:
    """Sysctl name -> value before our first change since boot.

    Tied to the boot: after one, the kernel holds the administrator's values again, and they may be new ones.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, str]:
        """What was recorded since boot."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if stored["boot_id"] != _boot_id():
                return {}
            return {str(name): str(value) for name, value in stored["sysctls"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("%s: %s; sysctls will stay as they are on reset", self.path, error)
            return {}

    def record(self, current: Mapping[str, str], changing: Iterable[str]) -> None:
        """Remember the current values of those that are about to change; the first value since boot counts."""
        known = self.load()
        new = {name: current[name] for name in changing if name not in known and name in current}
        if new:
            self._write({**known, **new})

    def forget(self, names: Iterable[str]) -> None:
        """Drop these: they have their original value again."""
        known = self.load()
        left = {name: value for name, value in known.items() if name not in set(names)}
        if left != known:
            self._write(left)

    def remove(self) -> None:
        """Forget everything."""
        if self.path.exists():
            self.path.unlink()
            sync_directory(self.path.parent)

    def _write(self, sysctls: Mapping[str, str]) -> None:
        write_atomic(
            self.path, json.dumps({"boot_id": _boot_id(), "sysctls": sysctls}, indent=1, sort_keys=True) + "\n"
        )


def _boot_id() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip()

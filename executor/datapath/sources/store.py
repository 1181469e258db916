"""Desired state on disk: one JSON document, replaced atomically and fsynced, so that a reboot converges alone."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

FORMAT = 1


class UnreadableError(Exception):
    """A stored document cannot be used: `path` is the file (still there), `reason` one sentence."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def write_atomic(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace `path` so that a reader, or a crash, finds the old contents or the new, never a part.

    `durable` waits for the disk, directory entry included; without it only a crash of the machine may lose
    the new contents (enough under /run).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames and removals in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Store:
    """The desired-state document of this node.

    An unreadable file stays where it is, so that every start reports it again, until the next `save` moves it
    aside; it is never taken for "nothing is desired".
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Optional[Mapping[str, Any]]:
        """The document as it was saved; None when nothing was ever saved. Raises UnreadableError."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableError(self.path, str(error)) from error
        try:
            stored = json.loads(text)
        except ValueError as error:
            raise UnreadableError(self.path, f"not JSON: {error}") from error
        if not isinstance(stored, dict) or not isinstance(stored.get("document"), dict):
            raise UnreadableError(self.path, "not a desired-state file")
        if stored.get("format") != FORMAT:
            raise UnreadableError(self.path, f"format {stored.get('format')!r}; this version reads format {FORMAT}")
        document: Mapping[str, Any] = stored["document"]
        return document

    def save(self, document: Mapping[str, Any]) -> Optional[Path]:
        """Store `document`; returns where an unreadable predecessor was moved to, if there was one."""
        kept = self._keep_unreadable()
        text = json.dumps({"format": FORMAT, "document": document}, indent=1, sort_keys=True)
        write_atomic(self.path, text + "\n")
        return kept

    def remove(self) -> None:
        """Forget the document, and what was kept aside."""
        with contextlib.suppress(FileNotFoundError):
            for path in (self.path, *self.path.parent.glob(f"{self.path.name}.unreadable-*")):
                path.unlink(missing_ok=True)
            sync_directory(self.path.parent)

    def _keep_unreadable(self) -> Optional[Path]:
        try:
            self.load()
        except UnreadableError:
            number = 1
            while (aside := self.path.with_name(f"{self.path.name}.unreadable-{number}")).exists():
                number += 1
            # A link, not a rename: until write_atomic replaces it, the unreadable file must stay in place.
            os.link(self.path, aside)
            return aside
        return None

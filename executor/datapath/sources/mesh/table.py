"""What is known of one kind that another cluster publishes."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Callable, Generic, NamedTuple, Optional

from datapath.sources.mesh.kinds import Kind, N, Origin, V
from datapath.sources.mesh.layout import key_text
from datapath.sources.mesh.values import QuarantineError

log = logging.getLogger(__name__)


class KindStatus(NamedTuple):
    """What is known of a kind, for people."""

    known: int
    """How many."""
    synced: bool
    """Whether all of it has been read, and what is not published any more is removed."""
    denied: Optional[str]
    """Why it may not be read."""
    quarantined: Mapping[str, str]
    """Key -> why its value is not used."""


class Table(Generic[N, V]):
    """Values by what they are about, also while there is no connection.

    `changed`, where there is one, is called with what is other now; None where something is gone.
    """

    def __init__(
        self,
        kind: Kind[N, V],
        known: Mapping[N, V],
        changed: Optional[Callable[[Mapping[N, Optional[V]]], None]] = None,
    ) -> None:
        self.kind = kind
        self.known = dict(known)
        self.synced = False
        self.denied: Optional[str] = None
        self.quarantined: dict[str, str] = {}
        self._changed = changed
        self._changes: dict[N, Optional[V]] = {}

    @property
    def status(self) -> KindStatus:
        """As it is now; may be asked for in another thread."""
        return KindStatus(len(self.known), self.synced, self.denied, self.quarantined.copy())

    def put(self, key: bytes, value: bytes, origin: Origin) -> Optional[N]:
        """Use a value, or put it into quarantine: then the last good one of its key stays. Returns what it is about."""
        name = None
        try:
            name = self.kind.name_of(key, origin)
            found = self.kind.parse(value, name, origin)
        except QuarantineError as error:
            if self.quarantined.get(key_text(key)) != str(error):
                log.warning("cluster %s: %s: %s", origin.cluster, key_text(key), error)
            self.quarantined[key_text(key)] = str(error)
            return name
        self.quarantined.pop(key_text(key), None)
        if self.known.get(name) != found:
            self.known[name] = found
            self._note(name, found)
        return name

    def delete(self, key: bytes, origin: Origin) -> None:
        """A key is gone."""
        self.quarantined.pop(key_text(key), None)
        try:
            name = self.kind.name_of(key, origin)
        except QuarantineError:
            return
        if name in self.known:
            self._remove(name)

    def keep(self, names: Collection[N]) -> None:
        """Give up all others."""
        for name in [each for each in self.known if each not in names]:
            self._remove(name)
        self.flush()

    def flush(self) -> None:
        """Tell what has changed."""
        if self._changed is not None and self._changes:
            changes, self._changes = self._changes, {}
            self._changed(changes)

    def _remove(self, name: N) -> None:
        del self.known[name]
        self._note(name, None)

    def _note(self, name: N, value: Optional[V]) -> None:
        if self._changed is not None:
            self._changes[name] = value

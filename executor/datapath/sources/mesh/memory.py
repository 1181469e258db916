"""What other clusters published last, kept on the node: a node that starts while a store is away serves with it.

A database and not a document, because one changed service of thousands must not cost writing them all. Only services
are kept: nothing forwards by nodes, identities and addresses so far, and those change with every container.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Optional

from datapath.sources.mesh.layout import dump_service, parse_service
from datapath.sources.mesh.values import QuarantineError
from datapath.state.remote import RemoteService, ServiceName

log = logging.getLogger(__name__)

Changes = Mapping[str, Mapping[ServiceName, Optional[RemoteService]]]
"""Cluster -> service -> what it is now; None where it is gone."""

_TABLE = """\
CREATE TABLE IF NOT EXISTS services (
    cluster TEXT, cluster_id INTEGER, namespace TEXT, name TEXT, value BLOB,
    PRIMARY KEY (cluster, namespace, name)
)"""


class MeshMemory:
    """Services of other clusters on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, dict[ServiceName, RemoteService]]:
        """What was saved; nothing where that cannot be read. Writes nothing."""
        found: dict[str, dict[ServiceName, RemoteService]] = {}
        if not self.path.exists():
            return found
        try:
            with self._open("ro") as database:
                rows = list(database.execute("SELECT cluster, cluster_id, namespace, name, value FROM services"))
            for cluster, cluster_id, namespace, name, value in rows:
                own = ServiceName(namespace, name)
                found.setdefault(cluster, {})[own] = parse_service(value, cluster, cluster_id, own)
        except (sqlite3.Error, QuarantineError) as error:
            log.warning("%s: %s; other clusters' services are unknown until their stores answer", self.path, error)
            return {}
        return found

    def save(self, changes: Changes) -> None:
        """Keep these. Raises sqlite3.Error, OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open("rwc") as database:
            database.execute(_TABLE)
            for cluster, services in changes.items():
                for name, service in services.items():
                    self._save(database, cluster, name, service)

    @staticmethod
    def _save(database: sqlite3.Connection, cluster: str, name: ServiceName, service: Optional[RemoteService]) -> None:
        if service is None:
            database.execute("DELETE FROM services WHERE (cluster, namespace, name) = (?, ?, ?)", (cluster, *name))
        else:
            row = (cluster, service.cluster_id, *name, dump_service(service))
            database.execute("INSERT OR REPLACE INTO services VALUES (?, ?, ?, ?, ?)", row)

    def keep(self, clusters: Container[str]) -> None:
        """Forget all other clusters. Raises sqlite3.Error."""
        if not self.path.exists():
            return
        with self._open("rw") as database:
            for (cluster,) in list(database.execute("SELECT DISTINCT cluster FROM services")):
                if cluster not in clusters:
                    database.execute("DELETE FROM services WHERE cluster = ?", (cluster,))

    def remove(self) -> None:
        """Forget everything."""
        for path in (self.path, self.path.with_name(f"{self.path.name}-journal")):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are one transaction."""
        with contextlib.closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True)) as database:
            # Without waiting for the disk: what a power cut takes, the stores have.
            database.execute("PRAGMA synchronous = OFF")
            with database:
                yield database

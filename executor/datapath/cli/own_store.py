"""The part of `datapath clustermesh` that is about this cluster's own store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Optional

from datapath.cli.errors import refused
from datapath.cli.tables import RED, count, duration, paint, table

if TYPE_CHECKING:
    from datapath.sources.mesh.troubleshoot import Step

Document = Mapping[str, Any]

_MIB = 1 << 20
_KINDS = ("services", "nodes", "identities", "ips")
_HEADER = ("STORE", "STATE", "FOR", "PUBLISHER", *map(str.upper, _KINDS), "LEASE", "SIZE", "ALARMS", "CERTIFICATE")


def sections(store: Optional[Document]) -> Iterator[str]:
    """A table, and what is wrong; nothing without a store."""
    if store is None:
        return
    row = (
        store["endpoint"] or "-",
        state(store),
        duration(max(time.time() - store["since"], 0)),
        _publisher(store),
        *(_number(store[kind]) for kind in _KINDS),
        _lease(store["lease"]),
        _size(store),
        ", ".join(store["alarms"]) or "none",
        days(store["certificate_expires"]),
    )
    yield table(_HEADER, [row], right=range(4, 8))
    troubles = list(_troubles(store))
    if troubles:
        yield "\n".join(troubles)


def state(each: Document) -> str:
    """How far a connection to a store is."""
    if each["ready"]:
        return "ready"
    return "connected" if each["connected"] else "not connected"


def ago(when: Optional[float]) -> str:
    """How long something is past."""
    return "-" if when is None else f"{duration(max(time.time() - when, 0))} ago"


def days(when: Optional[float]) -> str:
    """Days until something."""
    return "-" if when is None else f"{(when - time.time()) / 86400:.0f} days"


def _publisher(store: Document) -> str:
    if not store["publisher"]:
        return "-"
    return f"{store['publisher']} (this node)" if store["elected"] else str(store["publisher"])


def _number(value: Optional[int]) -> str:
    return "-" if value is None else count(value)


def _lease(lease: Document) -> str:
    return f"{duration(lease['ttl'])}, renewed {ago(lease['renewed'])}"


def _size(store: Document) -> str:
    if store["size"] is None:
        return "-"
    size = f"{store['size'] / _MIB:.1f}"
    return f"{size} of {store['quota'] / _MIB:.0f} MiB" if store["quota"] else f"{size} MiB"


def _troubles(store: Document) -> Iterator[str]:
    failure = store["failure"]
    if failure is not None:
        yield paint(f"store: {failure['stage']}: {failure['message']}", RED)
    for alarm in store["alarms"]:
        yield paint(f"store: alarm {alarm}", RED)
    for hint in store["hints"]:
        yield f"store: hint: {hint}"


def examined(document: Document) -> dict[str, Any]:
    """Every step of the connection to the own store, from this process."""
    from datapath.sources.mesh.published import Cluster
    from datapath.sources.mesh.troubleshoot_store import examine_store
    from datapath.spec.fields import Violations
    from datapath.spec.store import parse_store

    row = document["store"]
    item = {key: row[key] for key in ("endpoints", "ca", "certificate", "key", "node")}
    store = parse_store(Violations("clustermesh"), "clustermesh.store", item)
    if store is None:
        raise refused("clustermesh", "store", "the agent states a store that this version cannot read")
    options = document["options"]
    cluster = Cluster(document["name"], options["cluster-id"], options["max-connected-clusters"])
    return as_rows(document["name"], asyncio.run(examine_store(store, cluster)))


def as_rows(name: str, tried: Sequence[Step]) -> dict[str, Any]:
    """What was tried for one store."""
    return {"name": name, "passed": all(each.passed for each in tried), "steps": [asdict(each) for each in tried]}

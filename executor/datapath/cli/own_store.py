"""The part of `datapath clustermesh` that is about this cluster's own store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from datapath.cli.connections import as_rows, days, state, troubles
from datapath.cli.errors import refused
from datapath.cli.tables import RED, ago, count, duration, paint, since, table

Document = Mapping[str, Any]

_MIB = 1 << 20


def sections(store: Optional[Document]) -> Iterator[str]:
    """A table, and what is wrong; nothing without a store."""
    from datapath.sources.mesh.kinds import KINDS

    if store is None:
        return
    kinds = [kind.name for kind in KINDS]
    header = ("STORE", "STATE", "FOR", "PUBLISHER", *map(str.upper, kinds), "LEASE", "SIZE", "ALARMS", "CERTIFICATE")
    row = (
        store["endpoint"] or "-",
        state(store),
        since(store["since"]),
        _publisher(store),
        *(_number(store[kind]) for kind in kinds),
        _lease(store["lease"]),
        _size(store),
        ", ".join(store["alarms"]) or "none",
        days(store["certificate_expires"]),
    )
    yield table(header, [row], right=range(4, 4 + len(kinds)))
    alarms = (paint(f"store: alarm {alarm}", RED) for alarm in store["alarms"])
    wrong = "\n".join(troubles("store", store, alarms))
    if wrong:
        yield wrong


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

"""Answers about other clusters, as JSON documents."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from datapath.agent.connections import dump_connection, hints
from datapath.agent.core import Agent
from datapath.agent.own_store import own_store
from datapath.sources.mesh import layout
from datapath.sources.mesh.follower import FollowerStatus, PeerStatus
from datapath.sources.mesh.kinds import KINDS, SERVICES
from datapath.sources.mesh.table import KindStatus
from datapath.spec.clustermesh import dump_peer
from datapath.spec.options import effective
from datapath.state.model import DesiredState, Peer

SHOWN = 100
"""Quarantined keys that are listed for a cluster; `quarantined_count` tells all."""


def clusters(agent: Agent) -> dict[str, Any]:
    """This cluster, and what is known of every other one."""
    options = effective((agent.desired or DesiredState()).options)
    remarks = agent.merged().remarks
    rows, store = others(agent), own_store(agent)
    return {
        "name": options["cluster-name"],
        "id": options["cluster-id"],
        "options": {key: options[key] for key in ("cluster-id", "max-connected-clusters", "clustermesh-cache-ttl")}
        | {"datapath-cluster-networks": list(options["datapath-cluster-networks"])},
        "ready": all(row["ready"] for row in [*rows, *([store] if store else [])]),
        "store": store,
        "clusters": rows,
        "warnings": list(remarks),
    }


def others(agent: Agent) -> list[dict[str, Any]]:
    """What is known of every other cluster."""
    peers = (agent.desired or DesiredState()).peers
    known = {name: len(services) for name, services in agent.remote.items()}
    statuses = agent.mesh_statuses()
    rows = []
    for peer in peers:
        # Without a daemon around the agent, nobody follows.
        counts = {SERVICES.name: known.get(peer.name, 0)}
        kinds = {kind.name: KindStatus(counts.get(kind.name, 0), False, None, {}) for kind in KINDS}
        whole = FollowerStatus(PeerStatus(since=agent.started), kinds)
        rows.append(_row(peer, *statuses.get(peer.name, whole)))
    return rows


def _row(peer: Peer, status: PeerStatus, kinds: Mapping[str, KindStatus]) -> dict[str, Any]:
    quarantined = sorted(item for kind in kinds.values() for item in kind.quarantined.items())
    return {
        **dump_peer(peer),
        "id": status.cluster_id,
        **dump_connection(status),
        "ready": status.ready,
        **{name: kind.known for name, kind in kinds.items()},
        "synced": {name: kind.synced for name, kind in kinds.items()},
        "denied": {name: kind.denied for name, kind in kinds.items() if kind.denied is not None},
        "heartbeat": status.heartbeat,
        "revoked": status.revoked,
        "quarantined": [{"key": key, "reason": reason} for key, reason in quarantined[:SHOWN]],
        "quarantined_count": len(quarantined),
        "hints": list(hints(status, peer.certificate, "its store's", _hints(status, kinds))),
    }


def _hints(status: PeerStatus, kinds: Mapping[str, KindStatus]) -> Iterator[str]:
    if status.revoked:
        yield "its backends are given up (clustermesh-cache-ttl) until its store can be reached"
    waiting = ", ".join(name for name, kind in kinds.items() if not kind.synced and kind.denied is None)
    if status.connected and waiting:
        yield f"it has not told that all it has is published ({waiting}), so nothing of that is removed yet"
    for name, kind in kinds.items():
        if status.connected and kind.denied is not None:
            yield f"its {name} are not known, for {kind.denied}: the role of its user may not read them"
    if status.connected and (status.heartbeat is None or time.time() - status.heartbeat > layout.QUIET):
        yield "there is no heartbeat that is younger than two minutes: does it still publish?"

"""Answers about this cluster's own store, as a JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from datapath.agent.connections import dump_connection, hints
from datapath.agent.core import Agent
from datapath.sources.mesh.kinds import KINDS
from datapath.sources.mesh.publication import node_name
from datapath.sources.mesh.publisher import Publisher, PublisherStatus
from datapath.spec.options import effective
from datapath.spec.store import dump_store
from datapath.state.model import DesiredState, OwnStore

if TYPE_CHECKING:
    from datapath.etcd.writes import Condition

FULL = 0.8
"""Share of its quota from which on a store is nearly full."""
_ALARMS = {
    "NOSPACE": "the store is full and takes nothing more: compact and defragment it, or raise its quota, and disarm the"
    " alarm (etcdctl alarm disarm)",
    "CORRUPT": "members of the store disagree about what is in it: restore it from a backup",
}


def own_store(agent: Agent) -> Optional[dict[str, Any]]:
    """What is known of the store where this node publishes; None where it publishes nothing."""
    desired = agent.desired or DesiredState()
    store = desired.store
    if store is None:
        return None
    publication = agent.publication
    publisher = None if publication is None else publication.publisher
    if publisher is None or publisher.store != store:
        # Just applied, or without a daemon.
        publisher = None
        status = PublisherStatus(node=node_name(store), since=agent.started)
    else:
        status = publisher.status
    oversized = {} if publication is None else publication.oversized
    dumped = dump_store(store)
    return {
        **{key: dumped[key] for key in ("endpoints", "ca", "certificate", "key")},
        "node": {**dumped["node"], "name": status.node},
        "candidate": store.publisher,
        **_part(publisher, int(effective(desired.options)["kvstore-lease-ttl"])),
        **dump_connection(status),
        **{kind.name: status.counts.get(kind.name) for kind in KINDS},
        "foreign": status.foreign,
        "oversized": [{"service": name, "bytes": size} for name, size in sorted(oversized.items())],
        **_condition(status),
        "hints": list(_hints(store, publisher, status, oversized)),
    }


def _part(publisher: Optional[Publisher], ttl: int) -> dict[str, Any]:
    """Who publishes for the cluster, and the lease of what this node publishes of itself."""
    if publisher is None or not publisher.status.connected:
        return {"publisher": None, "elected": False, "ready": False, "lease": {"ttl": ttl, "id": None, "renewed": None}}
    keeper = publisher.of_node
    lease = {"ttl": ttl, "id": f"{keeper.keyspace.lease:016x}", "renewed": keeper.renewed}
    elected = publisher.elected
    return {"publisher": publisher.election.publisher, "elected": elected, "ready": publisher.ready, "lease": lease}


def _condition(status: PublisherStatus) -> dict[str, Any]:
    condition = status.condition
    return {
        "version": None if condition is None else condition.version,
        "size": None if condition is None else condition.size,
        "size_in_use": None if condition is None else condition.size_in_use,
        "quota": status.quota,
        "has_leader": None if condition is None else condition.has_leader,
        "alarms": [] if condition is None else list(condition.alarms),
    }


def _hints(
    store: OwnStore, publisher: Optional[Publisher], status: PublisherStatus, oversized: dict[str, int]
) -> Iterator[str]:
    return hints(status, store.certificate, "the store's", _about_publishing(publisher, status, oversized))


def _about_publishing(
    publisher: Optional[Publisher], status: PublisherStatus, oversized: dict[str, int]
) -> Iterator[str]:
    if status.condition is not None:
        yield from _about_condition(status.condition, status.quota)
    if status.connected and publisher is not None and publisher.election.publisher is None:
        yield "no node publishes for the cluster: is there one with publisher: true that reaches the store?"
    for keeper in () if publisher is None else (publisher.of_node, publisher.of_cluster):
        if keeper.contested:
            yield f"somebody else writes {keeper.contested} again and again: do two nodes have the same name?"
    if status.foreign:
        yield f"{status.foreign} keys among this cluster's services are somebody else's, and are left alone"
    for name, size in sorted(oversized.items()):
        yield f"service {name} is not published: {size} bytes are more than other clusters read"


def _about_condition(condition: Condition, quota: Optional[int]) -> Iterator[str]:
    for alarm in condition.alarms:
        yield f"{alarm}: {_ALARMS.get(alarm, 'an alarm of etcd')}"
    if quota and condition.size > FULL * quota:
        share = 100 * condition.size / quota
        yield f"the store has {share:.0f} % of what it may have: compact and defragment it, or raise its quota"
    if not condition.has_leader:
        yield "the store has no leader: are most of its members there?"

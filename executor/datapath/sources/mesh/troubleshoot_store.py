"""The connection to this cluster's own store, step by step, as far as it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

from datapath.etcd.client import prefix
from datapath.etcd.errors import Stage
from datapath.etcd.writes import Writer
from datapath.sources.mesh import layout, own_store
from datapath.sources.mesh.kinds import SERVICES
from datapath.sources.mesh.published import Cluster
from datapath.sources.mesh.session import check_authorisation
from datapath.sources.mesh.steps import Step, walk
from datapath.sources.mesh.values import QuarantineError
from datapath.state.model import OwnStore

if TYPE_CHECKING:
    from datapath.etcd.client import Client

Note = Callable[..., None]


async def examine_store(store: OwnStore, cluster: Cluster) -> list[Step]:
    """All endpoints' connections, then rights and data by the first that can be reached. Writes nothing."""
    return await walk(store, lambda client, steps: _read(client, cluster, steps.note))


async def _read(client: Client, cluster: Cluster, note: Note) -> None:
    condition = await Writer(client).condition()
    note(Stage.STORE, condition.has_leader, f"etcd {condition.version}, {condition.size} bytes")
    for alarm in condition.alarms:
        note(Stage.STORE, False, f"alarm {alarm}", "datapath clustermesh status tells what helps")
    await check_authorisation(client, f"the user agent-{cluster.name}")
    publisher = await _publisher(client, cluster.name)
    note(
        Stage.AUTHORISATION, True, f"{client.own.common_name} may use what nodes of {cluster.name} do, and not the rest"
    )
    if publisher is None:
        hint = "is there a node with publisher: true that reaches the store?"
        note(Stage.DATA, False, "no node publishes for the cluster", hint)
    else:
        note(Stage.DATA, True, f"{publisher} publishes for the cluster")
    await _read_config(client, cluster, note)
    services = await client.count(prefix(SERVICES.prefix(cluster.name, False)))
    note(Stage.DATA, True, f"{services} services are published")


async def _publisher(client: Client, cluster: str) -> Optional[str]:
    candidates = [
        each async for page in client.pages(prefix(own_store.candidates_prefix(cluster))) for each in page.entries
    ]
    first = own_store.elected(candidates)
    return None if first is None else own_store.parse_candidate(first.value or b"")


async def _read_config(client: Client, cluster: Cluster, note: Note) -> None:
    key = layout.config_key(cluster.name)
    raw = await client.get(key)
    if raw is None:
        note(Stage.DATA, False, f"there is no {key}")
        return
    try:
        found = layout.parse_config(raw).cluster_id
    except QuarantineError as error:
        note(Stage.DATA, False, f"{key}: {error}")
        return
    same = found == cluster.cluster_id
    detail = f"cluster {cluster.name} is published with id {found}"
    note(Stage.DATA, same, detail if same else f"{detail}, and has {cluster.cluster_id}")

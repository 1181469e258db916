"""Publishes security identities and addresses of this node's endpoints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Optional

from datapath.sources.mesh.allocator import Allocator, reference_key, references_prefix
from datapath.sources.mesh.identities import CLUSTER_LABEL, KUBERNETES, join_labels
from datapath.sources.mesh.ips import dump_ip
from datapath.sources.mesh.keeper import FULL_RETRY, Companion, Keeper
from datapath.sources.mesh.kinds import IPS
from datapath.sources.mesh.published import Changes, Cluster
from datapath.spec.clustermesh import DEFAULT_NAMESPACE
from datapath.state.model import Endpoint, IPAddress, MeshNode
from datapath.state.remote import Label, Prefix, RemoteIP

if TYPE_CHECKING:
    from datapath.etcd.client import Client
    from datapath.etcd.writes import Writer

log = logging.getLogger(__name__)

VERIFY = 300.0
"""Seconds between looks at whether numbers are still there: nobody but a person takes one that is in use."""
NAMESPACE_LABEL = "io.kubernetes.pod.namespace"


def labels_of(endpoint: Endpoint, cluster: str) -> str:
    """What the endpoint is for policies, of whatever cluster: its labels, as if Kubernetes had them."""
    labels = {NAMESPACE_LABEL: DEFAULT_NAMESPACE, **endpoint.labels, CLUSTER_LABEL: cluster}
    return join_labels(Label(KUBERNETES, key, value) for key, value in labels.items())


def has_identity(endpoint: Endpoint) -> bool:
    """Whether anybody could know it by an address. The host is what its node says of itself."""
    return bool(endpoint.addresses) and not endpoint.host


def ip_key(address: IPAddress, cluster: str) -> bytes:
    """Where it is told whose an address is."""
    return f"{IPS.prefix(cluster, False)}{address}".encode()


class OwnEndpoints(Companion):
    """Lasts longer than a connection. What it publishes has the lease of its node, and is kept by `keeper`."""

    def __init__(self, cluster: Cluster, node: MeshNode, keeper: Keeper) -> None:
        self.cluster = cluster
        self.numbers: Mapping[str, int] = {}
        """Labels -> number, of identities that this node refers to."""
        self._node = node
        self._keeper = keeper
        self._suffix = str(node.addresses[0])
        self._allocator = Allocator(cluster, self._suffix)
        self._endpoints: tuple[Endpoint, ...] = ()
        self._wanted: Changes = {}
        self._changed = asyncio.Event()

    @property
    def shared(self) -> tuple[bytes, ...]:
        """What the keys begin with; those of all nodes are there."""
        return (references_prefix(self.cluster).encode(), IPS.prefix(self.cluster.name, False).encode())

    def want(self, endpoints: Iterable[Endpoint]) -> None:
        """These are the endpoints from now on."""
        chosen = tuple(each for each in endpoints if has_identity(each))
        if chosen != self._endpoints:
            self._endpoints = chosen
            self._changed.set()

    def identity(self, endpoint: Endpoint) -> Optional[int]:
        """The endpoint's number; may be asked for in another thread."""
        if endpoint not in self._endpoints:
            return None
        return self.numbers.get(labels_of(endpoint, self.cluster.name))

    async def prepare(self, client: Client, writer: Writer) -> None:
        """Have numbers before anything is written: those of the last connection may be somebody else's by now."""
        self._changed.clear()
        endpoints, name = self._endpoints, self.cluster.name
        labels = [labels_of(each, name) for each in endpoints]
        numbers = await self._hold(client, writer, set(labels))
        wanted: Changes = {reference_key(self.cluster, text, self._suffix): str(number).encode()
                           for text, number in numbers.items()}  # fmt: skip
        for endpoint, text in zip(endpoints, labels):
            if text in numbers:
                wanted.update(self._addresses(endpoint, numbers[text]))
        gone = dict.fromkeys(self._wanted.keys() - wanted.keys())
        news = {key: value for key, value in wanted.items() if self._wanted.get(key) != value}
        self.numbers, self._wanted = numbers, wanted
        self._keeper.want({**gone, **news})

    async def run(self, client: Client, writer: Writer) -> None:
        """Follow what is wanted."""
        while True:
            timer = asyncio.get_running_loop().call_later(VERIFY, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                timer.cancel()
            await self.prepare(client, writer)

    async def _hold(self, client: Client, writer: Writer, labels: Collection[str]) -> Mapping[str, int]:
        from datapath.etcd.errors import FullError  # noqa: PLC0415 - gRPC is a dear import

        keyspace = self._keeper.keyspace
        numbers: dict[str, int] = {}
        try:
            async for text, number in self._allocator.hold(client, writer, labels, keyspace.lease, keyspace.own):
                if number:
                    numbers[text] = number
                else:
                    log.warning("no number is left for an identity: %s", text)
        except FullError as error:
            # What has numbers keeps them, if only the lease is renewed meanwhile.
            self._keeper.full = error
            asyncio.get_running_loop().call_later(FULL_RETRY, self._changed.set)
        return numbers

    def _addresses(self, endpoint: Endpoint, number: int) -> Changes:
        namespace = endpoint.labels.get(NAMESPACE_LABEL, DEFAULT_NAMESPACE)
        found: Changes = {}
        for address in endpoint.addresses:
            host = next((each for each in self._node.addresses if each.version == address.version), None)
            prefix = Prefix(address, address.max_prefixlen)
            ip = RemoteIP(prefix, number, host or self._node.addresses[0], namespace, endpoint.name)
            found[ip_key(address, self.cluster.name)] = dump_ip(ip)
        return found

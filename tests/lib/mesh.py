"""Clusters of a mesh as their stores show them: what Cilium's agents and its clustermesh-apiserver publish."""

import base64
import datetime
import ipaddress
import json
from contextlib import asynccontextmanager, contextmanager

from lib.etcd import Etcd, etcd

KINDS = ("services/v1", "nodes/v1", "identities/v1", "ip/v1")


class Cluster:
    """One cluster's store, and what is published in it."""

    place = "state"
    """Where; "cache" in a copy (kvstoremesh)."""

    def __init__(self, store: Etcd, number):
        self.store, self.name, self.number = store, store.cluster, number

    def publish_itself(self, *, synced=True, number=None, most=255):
        capabilities = {"syncedCanaries": True, "maxConnectedClusters": most, "serviceExportsEnabled": False}
        if self.place == "cache":
            capabilities["cached"] = True
        document = {"id": number or self.number, "capabilities": capabilities}
        self.store.put(f"cilium/cluster-config/{self.name}", json.dumps(document))
        self.beat()
        if synced:
            self.publish_synced()

    def publish_synced(self, kinds=KINDS):
        self._put_all((f"cilium/synced/{self.name}/cilium/{self.place}/{kind}", _now()) for kind in kinds)

    def beat(self):
        self.store.put("cilium/.heartbeat", _now())

    def service(self, backends, name="web", namespace="default", **fields):
        """The JSON document of a service whose backends are ADDRESS or (ADDRESS, PORT)."""
        places = [each if isinstance(each, tuple) else (each, 8080) for each in backends]
        ports = {address: {"http": {"Protocol": "TCP", "Port": port}} for address, port in places}
        frontends = {"10.96.0.10": {"http": {"Protocol": "TCP", "Port": 80}}}
        document = {"cluster": self.name, "namespace": namespace, "name": name, "frontends": frontends}
        document.update(backends=ports, hostnames={}, labels={}, selector={}, includeExternal=True, shared=True)
        document.update(clusterID=self.number, **fields)
        return document

    def key(self, name="web", namespace="default"):
        return f"cilium/{self.place}/services/v1/{self.name}/{namespace}/{name}"

    def publish(self, backends, name="web", **fields):
        self.store.put(self.key(name), json.dumps(self.service(backends, name, **fields)))

    def publish_many(self, documents):
        """Many services in few transactions."""
        self._put_all((self.key(each["name"]), json.dumps(each)) for each in documents)

    def _put_all(self, pairs):
        """Few transactions (etcd takes 128 operations in one)."""
        pairs = list(pairs)
        for first in range(0, len(pairs), 100):
            lines = [f"put {key} {json.dumps(value)}" for key, value in pairs[first : first + 100]]
            self.store.ctl("txn", data="\n".join(["", *lines, "", "", ""]).encode())

    def number_of(self, identity):
        """An identity's number in the cluster's range."""
        return (self.number << 16) + identity

    def publish_node(self, name="n1", cidr="10.2.0.0/24", **fields):
        network = ipaddress.ip_network(cidr)
        mask = base64.b64encode(network.netmask.packed).decode()
        document = {"Name": name, "Cluster": self.name, "IPAddresses": [{"Type": "InternalIP", "IP": "192.0.2.20"}]}
        document.update(IPv4AllocCIDR={"IP": str(network.network_address), "Mask": mask}, IPv6AllocCIDR=None)
        document.update(ClusterID=self.number, Source="custom-resource", **fields)
        self.store.put(f"cilium/{self.place}/nodes/v1/{self.name}/{name}", json.dumps(document))

    def publish_identity(self, identity, app="web", cluster=None):
        labels = f"k8s:app={app};k8s:io.cilium.k8s.policy.cluster={cluster or self.name};"
        below = f"{self.name}/id" if self.place == "cache" else "id"
        self.store.put(f"cilium/{self.place}/identities/v1/{below}/{self.number_of(identity)}", labels)

    def publish_ip(self, address, identity, **fields):
        document = {"IP": address, "Mask": None, "HostIP": "192.0.2.20", "ID": self.number_of(identity), "Key": 0}
        document.update(Metadata="", **fields)
        below = self.name if self.place == "cache" else "default"
        self.store.put(f"cilium/{self.place}/ip/v1/{below}/{address}", json.dumps(document))

    def peer(self, **fields):
        """The item of section clustermesh that follows this cluster."""
        certificate, key = self.store.remote
        files = {"ca": str(self.store.authority.path), "certificate": str(certificate), "key": str(key)}
        return {"name": self.name, "endpoints": [self.store.endpoint], **files, **fields}


def _now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def cluster(directory, authority, name, number, **options):
    """A cluster that has published itself, and nothing yet."""
    with etcd(directory, authority, name, **options) as store:
        made = Cluster(store, number)
        made.publish_itself()
        yield made


@asynccontextmanager
async def nodes(*made):
    """Nodes that publish in this process, and end with the block."""
    try:
        yield made
    finally:
        for each in made:
            await each.stop()

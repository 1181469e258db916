"""Clusters of a mesh as their stores show them: what Cilium's agents and its clustermesh-apiserver publish."""

import datetime
import json
from contextlib import contextmanager

from lib.etcd import Etcd, etcd


class Cluster:
    """One cluster's store, and what is published in it."""

    def __init__(self, store: Etcd, number):
        self.store, self.name, self.number = store, store.cluster, number

    def publish_itself(self, *, synced=True, number=None, most=255):
        capabilities = {"syncedCanaries": True, "maxConnectedClusters": most, "serviceExportsEnabled": False}
        document = {"id": number or self.number, "capabilities": capabilities}
        self.store.put(f"cilium/cluster-config/{self.name}", json.dumps(document))
        self.beat()
        if synced:
            self.publish_synced()

    def publish_synced(self):
        self.store.put(f"cilium/synced/{self.name}/cilium/state/services/v1", _now())

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
        return f"cilium/state/services/v1/{self.name}/{namespace}/{name}"

    def publish(self, backends, name="web", **fields):
        self.store.put(self.key(name), json.dumps(self.service(backends, name, **fields)))

    def publish_many(self, documents):
        """Many services in few transactions (etcd takes 128 operations in one)."""
        documents = list(documents)
        for first in range(0, len(documents), 100):
            part = documents[first : first + 100]
            lines = [f"put {self.key(each['name'])} {json.dumps(json.dumps(each))}" for each in part]
            self.store.ctl("txn", data="\n".join(["", *lines, "", "", ""]).encode())

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

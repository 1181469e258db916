"""What nodes of a cluster publish in a real store: several of them in one process, without a kernel.

Leases are short here, so that what takes minutes takes seconds.
"""

import asyncio
import contextlib
import datetime
import json
import shutil
import signal
import time

import pytest

from datapath.sources.mesh import election, publisher
from datapath.sources.mesh.publication import Publication
from datapath.spec import document
from datapath.state.merged import HealthKey
from datapath.state.model import DesiredState
from lib.etcd import Authority, etcd

SERVICES = "cilium/state/services/v1/c1/"
NODES = "cilium/state/nodes/v1/c1/"
SYNCED = "cilium/synced/c1/cilium/state/"
TTL = 3
CHECK = {"type": "tcp"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def shared(authority, tmp_path_factory):
    with etcd(tmp_path_factory.mktemp("etcd"), authority, "c1") as made:
        yield made


@pytest.fixture
def store(shared):
    """A store that is empty, but for its users."""
    shared.delete("--prefix", "cilium/")
    return shared


@pytest.fixture
def own(authority, tmp_path):
    """A store that the test may break."""
    with etcd(tmp_path, authority, "c1") as made:
        yield made


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(election, "LEASE_TTL", 2)
    monkeypatch.setattr(publisher, "LOOK", 0.5)
    monkeypatch.setattr(publisher, "SETTLE", 1.0)


def service(name="web", backends=(1, 2), **fields):
    number = sum(name.encode()) % 200
    places = [f"10.1.0.{n}:8080" if isinstance(n, int) else n for n in backends]
    frontends = [f"192.0.2.{number}:80"]
    return {"name": name, "frontends": frontends, "backends": places, "health_check": CHECK, "global": True, **fields}


def desired(store, *services, node="lb1", candidate=True, files=None, ttl=TTL, **config):
    certificate, key = files or store.agent
    place = {"endpoints": [store.endpoint], "ca": str(store.authority.path)}
    place.update(certificate=str(certificate), key=str(key), publisher=candidate)
    place["node"] = {"name": node, "addresses": ["192.0.2.1"]}
    state = document.merge(
        DesiredState(),
        {
            "options": {"config": {"cluster-name": "c1", "cluster-id": 1, **config}},
            "services": {"items": list(services)},
            "clustermesh": {"store": place},
        },
    )
    # Shorter than a user may have it.
    return document_with(state, ttl)


def document_with(state, ttl):
    from dataclasses import replace

    return replace(state, options={**state.options, "kvstore-lease-ttl": float(ttl)})


class Node:
    """One node of the cluster."""

    def __init__(self, state, health=()):
        self.publication = Publication()
        self.publication.update(state, dict(health))
        self._task = asyncio.ensure_future(self.publication.run())

    @property
    def publisher(self):
        return self.publication.publisher

    @property
    def ready(self):
        return self.publisher.ready

    @property
    def failure(self):
        found = self.publisher.status.last_failure
        return "" if found is None else f"{found.stage}: {found.message}"

    async def stop(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def vanish(self):
        """As if its machine were gone: no farewell."""

        async def nothing(_):
            pass

        self.publisher.election.resign = nothing
        await self.stop()


@contextlib.asynccontextmanager
async def nodes(*made):
    try:
        yield made
    finally:
        for each in made:
            await each.stop()


async def until(condition, seconds=15.0, what="the condition"):
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come"
        await asyncio.sleep(0.02)


def contents(store, prefix="cilium/", certificate=None):
    """Key -> value, as another client reads it."""
    done = store.ctl("get", "--prefix", prefix, "-w", "json", certificate=certificate)
    return {key: value for key, (value, _) in parsed(done.stdout).items()}


def parsed(text):
    import base64

    rows = json.loads(text).get("kvs", ())
    decode = base64.b64decode
    return {decode(each["key"]).decode(): (decode(each.get("value", "")), each.get("lease", 0)) for each in rows}


async def read(store, prefix="cilium/"):
    return await asyncio.to_thread(contents, store, prefix)


def backends(value):
    return sorted(json.loads(value)["backends"])


# --- what is published ---


def test_everything_that_a_cluster_publishes(store):
    async def main():
        async with nodes(Node(desired(store, service(), service("local", **{"global": False})))) as (node,):
            await until(lambda: node.ready, what="the publisher")
            first = await read(store)
            await until(lambda: node.publisher.of_cluster.keyspace.has(b"cilium/synced/c1/cilium/state/ip/v1"))
            await until(lambda: node.publisher.of_cluster.complete)
            return (
                first,
                await read(store),
                parsed((await asyncio.to_thread(store.ctl, "get", "--prefix", "cilium/", "-w", "json")).stdout),
            )

    first, last, leased = asyncio.run(main())
    visible = {key for key in last if not key.startswith("cilium/.datapath/")}
    assert visible == {
        "cilium/.heartbeat",
        "cilium/cluster-config/c1",
        f"{NODES}lb1",
        f"{SERVICES}default/web",
        *(SYNCED + kind for kind in ("services/v1", "nodes/v1", "identities/v1", "ip/v1")),
    }
    assert {key for key in first if key.startswith(SYNCED)} == {f"{SYNCED}services/v1"}, "nodes may come still"
    assert all(lease for _, lease in leased.values()), "everything has a lease"
    assert json.loads(last["cilium/cluster-config/c1"]) == {
        "id": 1,
        "capabilities": {"syncedCanaries": True, "maxConnectedClusters": 255, "serviceExportsEnabled": False},
    }
    assert json.loads(last[f"{SERVICES}default/web"])["backends"] == {
        f"10.1.0.{n}": {"": {"Protocol": "TCP", "Port": 8080}} for n in (1, 2)
    }
    beat = datetime.datetime.fromisoformat(last["cilium/.heartbeat"].decode().replace("Z", "+00:00"))
    assert abs(beat.timestamp() - time.time()) < 60


def test_health_and_documents_change_what_is_published(store):
    async def main():
        state = desired(store, service(), service("other"))
        async with nodes(Node(state)) as (node,):
            await until(lambda: node.ready)
            failing = {HealthKey("web", state.services[1].backends[0].address, 8080): False}
            revision = await asyncio.to_thread(store.revision)
            node.publication.health_changed(failing)
            await until(lambda: not node.publisher.of_cluster.keyspace.operations())
            await until(lambda: node.publisher.of_cluster.complete)
            assert backends((await read(store, SERVICES))[f"{SERVICES}default/web"]) == ["10.1.0.2"]
            assert await asyncio.to_thread(store.revision) == revision + 1, "one write for one change"
            node.publication.health_changed(dict.fromkeys(failing, True))
            node.publication.update(desired(store, service(backends=(1,)), service("new", shared=False)), {})
            await until(
                lambda: node.publisher.of_cluster.complete and not node.publisher.of_cluster.keyspace.operations()
            )
            return await read(store, SERVICES)

    found = asyncio.run(main())
    assert sorted(found) == [f"{SERVICES}default/new", f"{SERVICES}default/web"]
    assert backends(found[f"{SERVICES}default/web"]) == ["10.1.0.1"]
    assert json.loads(found[f"{SERVICES}default/new"])["shared"] is False

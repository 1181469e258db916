"""Identities and addresses of endpoints in a real store, by several nodes of a cluster in one process."""

import asyncio
import contextlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from datapath.etcd.client import connect
from datapath.etcd.dial import Credentials
from datapath.etcd.operations import Created
from datapath.etcd.writes import Writer
from datapath.sources.mesh import allocator, collector, election, own_endpoints, publisher
from datapath.sources.mesh.allocator import Allocator, read_identities
from datapath.sources.mesh.collector import collect_once
from datapath.sources.mesh.publication import Publication
from datapath.sources.mesh.published import Cluster
from datapath.sources.mesh.source import MeshSource
from datapath.spec import document
from datapath.state.model import DesiredState
from lib.etcd import etcd
from lib.mesh import nodes
from netns.topology import wait_for

IDS = "cilium/state/identities/v1/id/"
REFERENCES = "cilium/state/identities/v1/value/"
IPS = "cilium/state/ip/v1/default/"
C1 = Cluster("c1", 1, 255)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(election, "LEASE_TTL", 2)
    monkeypatch.setattr(publisher, "SETTLE", 0.5)


def labels(app):
    """As other clusters read it: sorted by key."""
    return f"k8s:app={app};k8s:io.cilium.k8s.policy.cluster=c1;k8s:io.kubernetes.pod.namespace=default;"


def endpoint(name, *addresses, app="web"):
    return {"name": name, "interface": f"ve-{name}", "labels": {"app": app}, "addresses": list(addresses)}


class Node:
    """One node of the cluster, with these endpoints."""

    def __init__(self, store, number, *endpoints, candidate=True):
        self.name, self.address = f"be{number}", f"192.0.2.{number}"
        certificate, key = store.agent
        files = {"ca": str(store.authority.path), "certificate": str(certificate), "key": str(key)}
        place = {"endpoints": [store.endpoint], **files, "publisher": candidate}
        place["node"] = {"name": self.name, "addresses": [self.address]}
        config = {"cluster-name": "c1", "cluster-id": 1}
        state = document.merge(DesiredState(), {"options": {"config": config}, "clustermesh": {"store": place}})
        self.publication = Publication()
        self.publication.update(replace(state, options={**state.options, "kvstore-lease-ttl": 30.0}), {})
        self.have(*endpoints)
        self._task = asyncio.ensure_future(self.publication.run())

    def have(self, *endpoints):
        self.endpoints = document.merge(DesiredState(), {"endpoints": {"items": list(endpoints)}}).endpoints
        self.publication.endpoints_changed(self.endpoints)

    @property
    def identities(self):
        return [self.publication.identity(each) for each in self.endpoints]

    @property
    def ready(self):
        found = self.publication.publisher
        settled = found.ready and not found.of_node.keyspace.operations()
        return settled and all(each for each in self.identities)

    async def stop(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def until(condition, seconds=15.0, what="the condition"):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come"
        await asyncio.sleep(0.02)
    return found


def contents(store, prefix):
    """Rest of the key -> value, as another client reads it."""
    lines = store.ctl("get", "--prefix", prefix).stdout.decode().splitlines()
    return {key.removeprefix(prefix): value for key, value in zip(lines[::2], lines[1::2])}


async def read(store, prefix):
    return await asyncio.to_thread(contents, store, prefix)


async def until_stored(store, prefix, condition, what):
    deadline = time.monotonic() + 15
    while not condition(found := await read(store, prefix)):
        assert time.monotonic() < deadline, f"{what}: {found}"
    return found


def test_what_is_published_of_an_endpoint(store):
    async def main():
        host = {"name": "host", "host": True, "labels": {"app": "web"}, "addresses": ["10.1.0.1"]}
        bare = {"name": "bare", "interface": "ve-bare", "labels": {"app": "bare"}}
        node = Node(store, 1, endpoint("web", "10.1.0.5", "fd00::5"))
        async with nodes(node):
            await until(lambda: node.ready, what="the publisher")
            node.have(endpoint("web", "10.1.0.5", "fd00::5"), host, bare)
            (number,) = await read(store, IDS)
            assert node.identities == [None, None, int(number)], "only what has addresses of its own"
            return number, await read(store, IDS), await read(store, REFERENCES), await read(store, IPS)

    number, ids, references, ips = asyncio.run(main())
    assert 65536 + 256 <= int(number) <= 131071
    assert ids == {number: labels("web")}
    assert references == {f"{labels('web')}/192.0.2.1": number}
    assert json.loads(ips.pop("10.1.0.5")) == {
        "IP": "10.1.0.5",
        "Mask": None,
        "HostIP": "192.0.2.1",
        "ID": int(number),
        "Key": 0,
        "Metadata": "",
        "K8sNamespace": "default",
        "K8sPodName": "web",
    }
    assert list(ips) == ["fd00::5"]


def test_the_same_labels_are_the_same_number_on_every_node(store):
    async def main():
        first = Node(store, 1, endpoint("a", "10.1.0.1"), endpoint("b", "10.1.0.2", app="db"))
        second = Node(store, 2, endpoint("c", "10.1.0.3"), endpoint("d", "10.1.0.4", app="db"))
        async with nodes(first, second):
            await until(lambda: first.ready and second.ready, what="both")
            assert first.identities == second.identities
            assert len(await read(store, IDS)) == 2
            assert len(await read(store, REFERENCES)) == 4
            assert sorted(await read(store, IPS)) == [f"10.1.0.{n}" for n in (1, 2, 3, 4)]
            return first.identities

    web, db = asyncio.run(main())
    assert web != db


def test_what_goes_is_withdrawn_and_what_changes_is_another(store):
    async def main():
        node = Node(store, 1, endpoint("a", "10.1.0.1"), endpoint("b", "10.1.0.2", app="db"))
        async with nodes(node):
            await until(lambda: node.ready, what="the publisher")
            web, db = node.identities
            node.have(endpoint("a", "10.1.0.1", "10.1.0.9"))
            await until_stored(store, IPS, lambda found: sorted(found) == ["10.1.0.1", "10.1.0.9"], "addresses")
            await until_stored(store, REFERENCES, lambda found: list(found) == [f"{labels('web')}/192.0.2.1"], "one")
            assert node.identities == [web]
            node.have(endpoint("a", "10.1.0.1", app="db"))
            await until(lambda: node.identities == [db], what="the number of the other labels")
            wanted = [f"{labels('db')}/192.0.2.1"]
            await until_stored(store, REFERENCES, lambda found: list(found) == wanted, "the other")
            (ip,) = (await until_stored(store, IPS, lambda found: len(found) == 1, "one address")).values()
            assert json.loads(ip)["ID"] == db
            node.publication.update(DesiredState(), {})
            await until_stored(store, "cilium/state/", lambda found: IPS not in str(found) and len(found) == 2, "all")
            assert (await read(store, REFERENCES), await read(store, IPS)) == ({}, {})
            assert len(await read(store, IDS)) == 2, "numbers stay until they are collected"

    asyncio.run(main())


def test_a_restart_keeps_numbers_and_forgets_what_has_gone_meanwhile(store):
    async def main():
        first = Node(store, 1, endpoint("a", "10.1.0.1"), endpoint("b", "10.1.0.2", app="db"))
        async with nodes(first):
            await until(lambda: first.ready, what="the publisher")
            before = first.identities
        revision = await asyncio.to_thread(store.revision)
        again = Node(store, 1, endpoint("a", "10.1.0.1"), endpoint("b", "10.1.0.2", app="db"))
        async with nodes(again):
            await until(lambda: again.ready, what="the publisher")
            assert again.identities == before
        # The references, and who is elected; nothing of the rest is written again.
        assert await asyncio.to_thread(store.revision) - revision < 10
        async with nodes(Node(store, 1, endpoint("a", "10.1.0.1"))) as (last,):
            await until_stored(store, IPS, lambda found: list(found) == ["10.1.0.1"], "what has gone")
            await until(lambda: last.identities == before[:1], what="the number")
            assert list(await read(store, REFERENCES)) == [f"{labels('web')}/192.0.2.1"]

    asyncio.run(main())


def test_a_store_that_begins_anew(authority, tmp_path):
    """What was known of numbers is worth nothing then: they are allocated before anything is written."""

    def begin_anew(store, number):
        store.stop()
        shutil.rmtree(store.directory / "etcd-c1")
        store.start()
        # Somebody else's by now; until it has users, nobody uses the store.
        store.put(f"{IDS}{number}", labels("other"))
        store._authenticate()

    async def main(store):
        async with nodes(Node(store, 1, endpoint("a", "10.1.0.1"))) as (node,):
            await until(lambda: node.ready, what="the publisher")
            (number,) = node.identities
            await asyncio.to_thread(begin_anew, store, number)
            await until(lambda: node.identities != [number], what="another number")
            await until(lambda: node.ready, what="the publisher")
            (ip,) = (await until_stored(store, IPS, lambda found: len(found) == 1, "the address")).values()
            return number, json.loads(ip)["ID"], await read(store, IDS)

    with etcd(tmp_path, authority, "c1") as own:
        number, other, ids = asyncio.run(main(own))
    assert ids == {str(number): labels("other"), str(other): labels("web")}


def test_a_full_store_keeps_what_it_has(authority, tmp_path):
    """New endpoints wait; those that have numbers keep them, over a restart too."""

    def fill(store):
        number = 0
        while store.ctl("put", f"x{number}", data=b"x" * 100_000, check=False).returncode == 0:
            number += 1

    async def main(store):
        async with nodes(Node(store, 1, endpoint("a", "10.1.0.1"))) as (node,):
            await until(lambda: node.ready, what="the publisher")
            before = node.identities
            await asyncio.to_thread(fill, store)
            node.have(endpoint("a", "10.1.0.1"), endpoint("b", "10.1.0.2", app="db"))
            await until(lambda: node.publication.publisher.of_node.full, what="the refusal")
            assert node.identities == [*before, None]
            assert node.publication.publisher.status.connected
        # Nobody can be a candidate there.
        again = Node(store, 1, endpoint("a", "10.1.0.1"), endpoint("b", "10.1.0.2", app="db"), candidate=False)
        async with nodes(again):
            await until(lambda: again.identities == [*before, None], what="the number")
            assert list(await read(store, IPS)) == ["10.1.0.1"]

    with etcd(tmp_path, authority, "c1", quota=1 << 20) as own:
        asyncio.run(main(own))


def test_a_number_that_somebody_takes_away(store, monkeypatch):
    monkeypatch.setattr(own_endpoints, "VERIFY", 0.3)

    async def main():
        async with nodes(Node(store, 1, endpoint("a", "10.1.0.1"))) as (node,):
            await until(lambda: node.ready, what="the publisher")
            await asyncio.to_thread(store.delete, "--prefix", IDS)
            (number,) = await until_stored(store, IDS, len, "another number")
            await until(lambda: node.identities == [int(number)], what="its use")
            wanted = f'"ID":{number},'
            await until_stored(store, IPS, lambda found: wanted in found["10.1.0.1"], "what is told of the address")

    asyncio.run(main())


def test_an_endpoint_that_moves_is_where_it_came_last(store):
    async def main():
        first = Node(store, 1, endpoint("a", "10.1.0.1"))
        second = Node(store, 2)
        async with nodes(first, second):
            await until(lambda: first.ready and second.ready, what="both")
            second.have(endpoint("a", "10.1.0.1"))
            await until_stored(store, IPS, lambda found: "192.0.2.2" in found["10.1.0.1"], "the move")
            revision = await asyncio.to_thread(store.revision)
            await asyncio.sleep(0.5)
            assert await asyncio.to_thread(store.revision) - revision <= 1, "they do not fight over it"
            first.have()
            await until_stored(store, REFERENCES, lambda found: len(found) == 1, "the farewell")
            assert "192.0.2.2" in (await read(store, IPS))["10.1.0.1"]
            # Whoever takes it away by hand takes it from somebody who has it.
            await asyncio.to_thread(store.delete, f"{IPS}10.1.0.1")
            await until_stored(store, IPS, lambda found: "192.0.2.2" in found.get("10.1.0.1", ""), "its return")

    asyncio.run(main())


# --- allocators ---


async def hold(number, client, writer, texts, lease):
    found = Allocator(C1, f"192.0.2.{number}").hold(client, writer, texts, lease)
    return {text: number async for text, number in found if number}


@contextlib.asynccontextmanager
async def connections(store, count):
    credentials = Credentials(store.authority.path, *map(Path, store.agent))
    peers = document.merge(
        DesiredState(),
        {
            "options": {"config": {"cluster-name": "c9", "cluster-id": 9}},
            "clustermesh": {"items": [{"name": "x", "endpoints": [store.endpoint], "ca": "/a", "certificate": "/a",
                                       "key": "/a"}]},
        },
    ).peers  # fmt: skip
    clients = [await connect(peers[0].endpoints, credentials) for _ in range(count)]
    try:
        yield [(client, Writer(client)) for client in clients]
    finally:
        for client in clients:
            client.close()


def test_a_race_of_allocators(store, monkeypatch):
    """All at once, for the same labels and for some of their own, among few numbers."""
    monkeypatch.setattr(allocator, "own_numbers", lambda _: range(65800, 65816))
    wanted = [{labels("web"), labels("db"), labels(f"own{n}")} for n in range(6)]

    async def main():
        async with connections(store, len(wanted)) as made:
            lease = await made[0][1].grant(60)
            held = await asyncio.gather(
                *(hold(n, client, writer, wanted[n], lease) for n, (client, writer) in enumerate(made))
            )
            return held, await read(store, IDS), await read(store, REFERENCES)

    held, ids, references = asyncio.run(main())
    assert len({each[labels("web")] for each in held}) == len({each[labels("db")] for each in held}) == 1
    assert len(ids) == len(set(ids.values())) == 2 + len(wanted), "no labels twice, no number twice"
    assert all(ids[str(number)] == text for each in held for text, number in each.items())
    assert len(references) == 3 * len(wanted)


def test_no_number_is_left(store, monkeypatch):
    monkeypatch.setattr(allocator, "own_numbers", lambda _: range(65800, 65802))

    async def main():
        async with connections(store, 1) as ((client, writer),):
            lease = await writer.grant(60)
            texts = [labels(f"app{n}") for n in range(3)]
            held = await hold(1, client, writer, texts, lease)
            assert len(held) == 2
            return await hold(2, client, writer, texts, lease), held

    again, held = asyncio.run(main())
    assert again == held


def test_numbers_without_references_are_collected(store):
    async def main():
        async with connections(store, 1) as ((client, writer),):
            lease, other = await writer.grant(60), await writer.grant(60)
            held = await hold(1, client, writer, [labels("used")], lease)
            await hold(1, client, writer, [labels("free"), labels("back")], other)
            await asyncio.to_thread(store.put, f"{IDS}131072", labels("web"))
            await asyncio.to_thread(store.put, "mandate", "x")
            mandate = Created(b"cilium/mandate", 0)
            assert await collect_once(client, writer, C1, mandate, {}) == {}
            await writer.revoke(other)
            unused = await collect_once(client, writer, C1, mandate, {})
            assert len(unused) == 2, "once is not enough"
            assert len(await read(store, IDS)) == 4
            # Referred to again in time, it stays.
            back = await hold(2, client, writer, [labels("back")], lease)
            # Whoever is not elected any more frees nothing.
            gone = Created(b"cilium/mandate", 1)
            assert len(await collect_once(client, writer, C1, gone, unused)) == 0
            assert len(await read(store, IDS)) == 4
            assert await collect_once(client, writer, C1, mandate, unused) == {}
            wanted = {str(number): text for each in (held, back) for text, number in each.items()}
            assert await read(store, IDS) == {**wanted, "131072": labels("web")}, "what is not the cluster's stays"
            assert (await read_identities(client, C1)).used == {*held.values(), *back.values()}

    asyncio.run(main())


def test_the_elected_node_collects(store, monkeypatch):
    monkeypatch.setattr(collector, "INTERVAL", 0.3)

    async def main():
        async with nodes(Node(store, 1, endpoint("a", "10.1.0.1"))) as (node,):
            await until(lambda: node.ready, what="the publisher")
            node.have(endpoint("a", "10.1.0.1", app="db"))
            found = await until_stored(store, IDS, lambda found: list(found.values()) == [labels("db")], "the rest")
            assert node.identities == [int(number) for number in found]

    asyncio.run(main())


# --- as another cluster sees it ---


def test_another_cluster_counts_them(store):
    certificate, key = store.remote
    files = {"ca": str(store.authority.path), "certificate": str(certificate), "key": str(key)}
    follow = {
        "options": {"config": {"cluster-name": "c2", "cluster-id": 2}},
        "clustermesh": {"items": [{"name": "c1", "endpoints": [store.endpoint], **files}]},
    }
    desired = document.merge(DesiredState(), follow)

    async def nothing(_):
        pass

    async def main():
        from datapath.spec.options import effective

        source = MeshSource()
        source.update(desired.peers, effective(desired.options), {})
        task = asyncio.ensure_future(source.run(nothing))

        def counts():
            status, kinds = source.statuses()["c1"]
            return status.ready and {name: kind.known for name, kind in kinds.items()}

        first = Node(store, 1, endpoint("a", "10.1.0.1", "fd00::1"), endpoint("b", "10.1.0.2", app="db"))
        second = Node(store, 2, endpoint("c", "10.1.0.3"))
        try:
            async with nodes(first, second):
                wanted = {"services": 0, "nodes": 2, "identities": 2, "ips": 4}
                await until(lambda: counts() == wanted, what="everything")
                assert not any(kind.quarantined for kind in source.statuses()["c1"].kinds.values())
                first.have(endpoint("a", "10.1.0.1", "fd00::1"))
                await until(lambda: counts() == {**wanted, "ips": 3}, what="the withdrawal")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


# --- a whole node ---


def test_an_agent_publishes_endpoints_as_their_devices_come_and_go(agent, authority, tmp_path):
    address = "203.0.113.51"
    agent.backend.run(f"ip address add {address}/24 dev eth0")
    with etcd(tmp_path, authority, "c1", address=address, namespace=agent.backend) as own:
        certificate, key = own.agent
        place = {"endpoints": [own.endpoint], "ca": str(authority.path), "certificate": str(certificate)}
        place.update(key=str(key), publisher=True, node={"name": "be1", "addresses": ["192.0.2.1"]})
        items = [endpoint("db", "10.1.0.5", app="db"), endpoint("web", "10.1.0.6")]
        config = {"cluster-name": "c1", "cluster-id": 1}
        agent.lb.run("ip link add ve-web type veth peer name ve-web-peer")
        agent.apply(
            {
                "options": {"config": config},
                "clustermesh": {"store": place},
                "endpoints": {"items": items, "purge": True},
            }
        )

        def identities():
            return {each["name"]: each["identity"] for each in agent.ask("endpoint", "list")["endpoints"]}

        wait_for(lambda: identities()["web"], 10, "the identity")
        assert identities()["db"] is None, "there is no device"
        assert list(contents(own, IPS)) == ["10.1.0.6"]
        agent.lb.run("ip link add ve-db type veth peer name ve-db-peer")
        wait_for(lambda: identities()["db"], what="the other identity")
        wait_for(lambda: list(contents(own, IPS)) == ["10.1.0.5", "10.1.0.6"], what="both addresses")
        found = identities()
        assert contents(own, IDS) == {str(found["db"]): labels("db"), str(found["web"]): labels("web")}
        assert str(found["web"]) in agent.run("endpoint", "list").stdout
        agent.stop()
        agent.start()
        wait_for(lambda: identities() == found, 10, "the same numbers after a restart")
        store = wait_for(lambda: agent.ask("clustermesh", "status")["store"], what="the store")
        assert {"identities", "ips"} <= store.keys()
        agent.lb.run("ip link del ve-web")
        wait_for(lambda: list(contents(own, IPS)) == ["10.1.0.5"], what="the withdrawal")
        assert identities() == {"db": found["db"], "web": None}

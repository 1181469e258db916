"""What nodes of a cluster publish in a real store: several of them in one process, without a kernel.

Leases are short here, so that what takes minutes takes seconds.
"""

import asyncio
import base64
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from datapath.etcd import writes
from datapath.sources.mesh import election, publisher
from datapath.sources.mesh.keeper import Keeper
from datapath.sources.mesh.publication import Publication
from datapath.spec import document
from datapath.state.merged import HealthKey
from datapath.state.model import DesiredState
from lib.etcd import etcd
from lib.mesh import nodes

SERVICES = "cilium/state/services/v1/c1/"
NODES = "cilium/state/nodes/v1/c1/"
SYNCED = "cilium/synced/c1/cilium/state/"
TTL = 3
CHECK = {"type": "tcp"}


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


def desired(store, *services, node="lb1", candidate=True, files=None, ttl=TTL, addresses=("192.0.2.1",), **config):
    certificate, key = files or store.agent
    place = {"endpoints": [store.endpoint], "ca": str(store.authority.path)}
    place.update(certificate=str(certificate), key=str(key), publisher=candidate)
    place["node"] = {"name": node, "addresses": list(addresses)}
    state = document.merge(
        DesiredState(),
        {
            "options": {"config": {"cluster-name": "c1", "cluster-id": 1, **config}},
            "services": {"items": list(services)},
            "clustermesh": {"store": place},
        },
    )
    # Shorter than a user may have it.
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
    rows = json.loads(text).get("kvs", ())
    decode = base64.b64decode
    return {decode(each["key"]).decode(): (decode(each.get("value", "")), each.get("lease", 0)) for each in rows}


def leases(store):
    """Of what others may see."""
    return {lease for _, lease in parsed(store.ctl("get", "--prefix", "cilium/state/", "-w", "json").stdout).values()}


async def read(store, prefix="cilium/"):
    return await asyncio.to_thread(contents, store, prefix)


def backends(value):
    return sorted(json.loads(value)["backends"])


@contextlib.contextmanager
def watched(store, prefix):
    """Events of a prefix meanwhile, by another client: PUT or DELETE, and key."""
    command = ["etcdctl", "--endpoints", store.endpoint, "--cacert", str(store.authority.path)]
    command += [
        "--cert",
        str(store._root[0]),
        "--key",
        str(store._root[1]),
        "watch",
        "--prefix",
        prefix,
        "-w",
        "fields",
    ]
    environment = {"PATH": os.environ["PATH"], "ETCDCTL_API": "3"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
    lines = []
    thread = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    thread.start()
    time.sleep(0.3)
    try:
        yield lambda: [line.split(":", 1)[1].strip() for line in lines if line.startswith('"Type"')]
    finally:
        process.terminate()
        process.wait()
        thread.join()


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


def test_a_hundred_writes_at_once_and_one_by_itself(store):
    """Transactions are as large as they may be, and work is for what changed."""
    many = [service(f"s{n:04}", backends=(n % 250 + 1,)) | {"frontends": [f"192.0.2.1:{n + 1}"]} for n in range(1000)]

    async def main():
        state = desired(store, *many)
        before = await asyncio.to_thread(store.revision)
        async with nodes(Node(state)) as (node,):
            await until(lambda: node.ready)
            writes = await asyncio.to_thread(store.revision) - before
            found = await read(store, SERVICES)
            keyspace = node.publisher.of_cluster.keyspace
            looked = []
            monitor = keyspace._operation
            keyspace._operation = lambda key: looked.append(key) or monitor(key)
            backend = state.services[500].backends[0]
            node.publication.health_changed({HealthKey("s0500", backend.address, backend.port): False})
            await until(lambda: keyspace._have[f"{SERVICES}default/s0500".encode()].value.count(b"10.1.0.") == 0)
            return writes, found, looked

    writes, found, looked = asyncio.run(main())
    assert len(found) == 1000
    assert writes < 20, "eight for the services, and few for all else"
    assert set(looked) == {f"{SERVICES}default/s0500".encode()}


# --- who publishes ---


def test_another_node_takes_over_without_a_gap(store, monkeypatch):
    # Longer than the test waits: it is not for the lease's end that the successor takes over.
    monkeypatch.setattr(election, "LEASE_TTL", 60)

    async def main():
        state = desired(store, service())
        first, second = (
            Node(state),
            Node(replace(state, store=replace(state.store, node=replace(state.store.node, name="lb2")))),
        )
        third = Node(desired(store, service("never"), node="be1", candidate=False))
        async with nodes(first, second, third):
            await until(lambda: all(each.ready for each in (first, second, third)))
            elected = [each for each in (first, second) if each.publisher.elected]
            assert len(elected) == 1
            assert {each.publisher.election.publisher for each in (first, second, third)} == {
                elected[0].publisher.status.node
            }
            other = second if elected[0] is first else first
            with watched(store, SERVICES) as events:
                await elected[0].stop()
                started = time.monotonic()
                await until(lambda: other.publisher.elected, 10, "the successor, at once")
                await until(lambda: other.publisher.of_cluster.complete)
                at_once = time.monotonic() - started
                quiet = list(events())
            return at_once, quiet, await read(store)

    at_once, quiet, found = asyncio.run(main())
    assert at_once < 5
    assert quiet == [], "nothing was written again, and nothing has gone"
    assert f"{SERVICES}default/web" in found


def test_a_publisher_that_vanishes_is_followed_by_another(store):
    """Its own key goes with its lease; the cluster's stay, as the successor renews their lease."""

    async def main():
        state = desired(store, service(), ttl=6)
        first = Node(state)
        async with nodes(first):
            await until(lambda: first.ready)
            second = Node(desired(store, service(), node="lb2", ttl=6))
            async with nodes(second):
                await until(lambda: second.ready)
                assert not second.publisher.elected
                with watched(store, "cilium/state/") as events:
                    await first.vanish()
                    started = time.monotonic()
                    await until(lambda: second.publisher.elected, 10, "the successor")
                    took = time.monotonic() - started
                    await until(lambda: events() == ["DELETE"], 10, "the end of the node's own key")
                    await asyncio.sleep(1)
                    return took, events(), await read(store, "cilium/state/")

    took, events, found = asyncio.run(main())
    assert took < 5
    assert events == ["DELETE"]
    assert sorted(found) == [f"{NODES}lb2", f"{SERVICES}default/web"]


def test_leases_are_renewed_for_a_day_and_end_with_the_last_publisher(store, monkeypatch):
    """As often as those of 15 minutes are in 24 hours; these would have ended many times meanwhile."""
    ttl, day = 2, 24 * 3600 // (900 // writes.RENEWALS)
    renewed, note = [], Keeper._note_renewal
    monkeypatch.setattr(writes, "RENEWALS", 40)
    monkeypatch.setattr(Keeper, "_note_renewal", lambda keeper: (renewed.append(keeper), note(keeper)))

    async def main():
        async with nodes(Node(desired(store, service(), ttl=ttl))) as (node,):
            await until(lambda: node.ready)
            keepers = node.publisher.of_node, node.publisher.of_cluster
            began = time.monotonic()
            with watched(store, "cilium/state/") as events:
                await until(lambda: min(map(renewed.count, keepers)) >= day, 120, "a day of renewals")
                assert events() == [], "keys last, and are not written for it"
            assert time.monotonic() - began > 5 * ttl
            await node.vanish()
            stays = await read(store, "cilium/state/")
            await asyncio.sleep(0.5)
            await until(lambda: not contents(store), 10, "the end of all leases")
            return stays

    assert len(asyncio.run(main())) == 2


# --- stores that lose something ---


def test_what_somebody_changes_is_written_again_and_what_is_theirs_left_alone(store):
    async def main():
        async with nodes(Node(desired(store, service()))) as (node,):
            await until(lambda: node.ready)
            wanted = await read(store, "cilium/state/")
            for words in (
                ("del", f"{SERVICES}default/web"),
                ("del", f"{NODES}lb1"),
                ("put", f"{SERVICES}default/web", "x"),
            ):
                await asyncio.to_thread(store.ctl, *words)
                await asyncio.sleep(0.05)
                await until(lambda: contents(store, "cilium/state/") == wanted, 5, f"what was there before {words}")
            await asyncio.to_thread(store.put, f"{SERVICES}default/theirs", "{}")
            await asyncio.to_thread(store.put, "cilium/state/services/v1/c2/default/web", "{}")
            await until(lambda: node.publisher.status.foreign == 1, what="somebody else's key")
            node.publication.update(desired(store), {})
            await until(lambda: f"{SERVICES}default/web" not in contents(store, "cilium/state/"), 5, "the removal")
            return sorted(await read(store, "cilium/state/"))

    assert asyncio.run(main()) == [
        f"{NODES}lb1",
        f"{SERVICES}default/theirs",
        "cilium/state/services/v1/c2/default/web",
    ]


def test_a_store_that_somebody_empties(store):
    async def main():
        async with nodes(Node(desired(store, service(), ttl=60))) as (node,):
            await until(lambda: node.ready)
            before = sorted(await read(store, "cilium/state/"))
            await asyncio.to_thread(store.delete, "--prefix", "cilium/")
            await until(lambda: node.publisher.elected is False, 5, "the loss of the mandate")
            await until(lambda: sorted(contents(store, "cilium/state/")) == before, 10, "everything again")
            await until(lambda: node.ready, 5, "the publisher")

    asyncio.run(main())


def test_a_node_that_was_killed_does_not_wait_for_itself(store, monkeypatch):
    monkeypatch.setattr(election, "LEASE_TTL", 60)

    async def main():
        async with nodes(first := Node(desired(store, service(), ttl=60))):
            await until(lambda: first.ready)
            await first.vanish()
        async with nodes(again := Node(desired(store, service(), ttl=60))):
            await until(lambda: again.ready, 5, "the node that came back")

    asyncio.run(main())


def test_two_nodes_of_one_name_do_not_keep_the_store_busy(store):
    async def main():
        first, second = Node(desired(store)), Node(desired(store, candidate=False, addresses=["192.0.2.2"]))
        async with nodes(first, second):
            key = f"{NODES}lb1"
            await until(lambda: first.publisher.of_node.contested == key, what="the contest")
            before = await asyncio.to_thread(store.revision)
            await asyncio.sleep(2)
            return await asyncio.to_thread(store.revision) - before

    assert asyncio.run(main()) < 20


def test_new_certificates_are_used_at_once(store, tmp_path):
    """Without a gap in what is published, and without another election."""
    files = [Path(shutil.copy2(each, tmp_path)) for each in store.agent]

    async def main():
        async with nodes(Node(desired(store, service(), files=files, ttl=60))) as (node,):
            await until(lambda: node.ready)
            expires, mandate = node.publisher.status.own_certificate_expires, node.publisher.election.mandate
            with watched(store, "cilium/state/") as events:
                renewed = store.authority.issue("agent-c1", lasting=datetime.timedelta(days=90))
                # One by one, as files are replaced: meanwhile they do not belong together.
                for new, old in zip(renewed, files):
                    shutil.copy2(new, old)
                    await asyncio.sleep(0.7)
                await until(lambda: node.publisher.status.own_certificate_expires > expires, 5, "the new certificate")
                await until(lambda: node.ready, 5, "the connection")
                return (
                    events(),
                    node.publisher.election.mandate == mandate,
                    node.publisher.status.failures,
                    node.failure,
                )

    assert asyncio.run(main()) == ([], True, 0, "")


def test_a_store_that_is_killed_and_comes_back(own):
    async def main():
        async with nodes(Node(desired(own, service(), ttl=60))) as (node,):
            await until(lambda: node.ready)
            before = await read(own, "cilium/state/")
            own.stop(signal.SIGKILL)
            await until(lambda: not node.publisher.status.connected, 10, "the loss")
            node.publication.update(desired(own, service(), service("new"), ttl=60), {})
            await until(lambda: "connection refused" in node.failure, 10, "why")
            await asyncio.to_thread(own.start)
            await until(lambda: node.ready, 10, "the return")
            return before, await read(own, "cilium/state/")

    before, after = asyncio.run(main())
    assert sorted(after) == sorted([*before, f"{SERVICES}default/new"])
    assert after.items() >= before.items()


def test_a_store_that_begins_anew_and_one_from_a_backup(own, tmp_path):
    async def main():
        data, backup = tmp_path / "etcd-c1", tmp_path / "snapshot.db"
        async with nodes(Node(desired(own, service(), service("later"), ttl=60))) as (node,):
            await until(lambda: node.ready)
            wanted = await read(own, "cilium/state/")
            await asyncio.to_thread(own.ctl, "snapshot", "save", str(backup))
            node.publication.update(desired(own, service(backends=(3,)), service("new"), ttl=60), {})
            await until(lambda: f"{SERVICES}default/new" in contents(own, "cilium/state/"))
            newest = await read(own, "cilium/state/")
            own.stop()
            shutil.rmtree(data)
            restored = ["etcdctl", "snapshot", "restore", str(backup), "--data-dir", str(data), "--name", "member"]
            peer = [
                "--initial-cluster",
                "member=http://127.0.0.1:1",
                "--initial-advertise-peer-urls",
                "http://127.0.0.1:1",
            ]
            await asyncio.to_thread(
                subprocess.run,
                [*restored, *peer],
                check=True,
                env={**os.environ, "ETCDCTL_API": "3"},
                capture_output=True,
            )
            await asyncio.to_thread(own.start)
            await until(lambda: contents(own, "cilium/state/") == newest, 15, "what the backup lacks")
            own.stop()
            shutil.rmtree(data)
            await asyncio.to_thread(own.start)
            await until(lambda: "without authentication" in str(node.publisher.status.last_failure), 15, "the refusal")
            assert contents(own) == {}, "nothing is written where everybody may"
            await asyncio.to_thread(own._authenticate)
            await until(lambda: node.ready, 15, "the return")
            synced = list(await read(own, SYNCED))
            assert synced == [f"{SYNCED}services/v1"], "what other nodes publish may be missing still"
            assert wanted != newest
            return newest, await read(own, "cilium/state/")

    newest, last = asyncio.run(main())
    assert last == newest


def test_a_full_store_says_so_and_keeps_what_it_has(authority, tmp_path):
    with etcd(tmp_path, authority, "c1", quota=1 << 20) as own:

        async def main():
            async with nodes(Node(desired(own, service(), ttl=2))) as (node,):
                await until(lambda: node.ready)
                assert node.publisher.status.quota == 1 << 20
                for number in range(40):
                    done = await asyncio.to_thread(own.ctl, "put", f"filler{number}", "x" * 60000, check=False)
                    if done.returncode:
                        break
                await until(lambda: node.publisher.status.condition.alarms == ("NOSPACE",), what="the alarm")
                node.publication.update(desired(own, service(backends=(5,)), ttl=2), {})
                await until(lambda: "the store is full (NOSPACE)" in node.failure, what="the refusal")
                assert "disarm" in node.publisher.status.last_failure.hint
                await asyncio.sleep(3)
                assert backends(contents(own, SERVICES)[f"{SERVICES}default/web"]) == ["10.1.0.1", "10.1.0.2"]
                await asyncio.to_thread(own.delete, "--prefix", "filler")
                await asyncio.to_thread(own.ctl, "compact", str(own.revision()))
                await asyncio.to_thread(own.ctl, "defrag")
                await asyncio.to_thread(own.ctl, "alarm", "disarm")
                await until(lambda: node.ready, 15, "the return")
                return contents(own, SERVICES)

        assert backends(asyncio.run(main())[f"{SERVICES}default/web"]) == ["10.1.0.5"]


# --- who may not ---


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("remote", "authorisation: reading cilium/.datapath/c1/"),
        ("reader", "authorisation: writing cilium/.datapath/c1/"),
        ("root", "authorisation: root may read the whole store"),
        ("stranger", "authorisation: "),
    ],
)
def test_users_that_may_not_publish(store, user, message):
    files = {"remote": store.remote, "root": store._root}.get(user) or store.authority.issue(user)
    if user == "reader":
        store.ctl("user", "add", user, "--no-password")
        store.ctl("role", "add", user)
        store.ctl("role", "grant-permission", user, "read", "cilium/", "--prefix")
        store.ctl("user", "grant-role", user, user)

    async def main():
        async with nodes(Node(desired(store, service(), files=files))) as (node,):
            await until(lambda: node.failure, what="the refusal")
            return node.failure, node.publisher.status.last_failure.hint

    failure, hint = asyncio.run(main())
    assert message in failure
    assert hint
    assert contents(store) == {}


# --- the end ---


def test_the_last_one_withdraws_everything_and_others_only_themselves(store):
    async def main():
        state = desired(store, service())
        first, second = Node(state), Node(desired(store, service(), node="lb2"))
        async with nodes(first, second):
            await until(lambda: first.ready and second.ready)
            with watched(store, SERVICES) as events:
                first.publication.update(DesiredState(), {})
                await until(lambda: f"{NODES}lb1" not in contents(store), 5, "the first one's end")
                await until(lambda: second.publisher.elected and second.ready, 5, "the successor")
                assert events() == []
            second.publication.update(DesiredState(), {})
            await until(lambda: not contents(store), 5, "the end of all")

    asyncio.run(main())


def test_a_node_that_is_renamed_and_one_that_ends(store):
    async def main():
        node = Node(desired(store, service(), ttl=60))
        await until(lambda: node.ready)
        node.publication.update(desired(store, service(), node="lb9", ttl=60), {})
        await until(lambda: node.ready and f"{NODES}lb1" not in contents(store), 5, "the new name")
        assert f"{SERVICES}default/web" in contents(store)
        before = leases(store)
        node.publication.update(desired(store, service(), node="lb9", ttl=90), {})
        await until(lambda: node.ready and not leases(store) & before, 5, "longer leases")
        await node.stop()
        return await read(store)

    found = asyncio.run(main())
    assert f"{NODES}lb9" in found, "an executor that stops takes nothing back"
    assert f"{SERVICES}default/web" in found
    assert not [key for key in found if "/publisher/" in key], "it makes room for another"

"""A real agent that follows real stores of other clusters.

Stores listen in the backends' namespace, at 203.0.113.52 (c2) and .53 (c3); 203.0.113.2N are backends of c2, .3N of c3.
"""

import datetime
import json
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack

import pytest

from integration.node import BACKENDS, VIP, answers, document, service, web_server, web_servers
from lib.mesh import cluster
from netns.topology import wait_for

CHECK = {"type": "http", "path": "/healthz", "interval": "200ms", "timeout": "200ms", "rise": 1, "fall": 2}
LOCAL = BACKENDS[:2]
REMOTE = ("203.0.113.21", "203.0.113.22")
OTHERS = ("203.0.113.31",)
STORES = {"c2": "203.0.113.52", "c3": "203.0.113.53"}


@pytest.fixture
def clusters(agent, authority, tmp_path):
    """Makes clusters by name; they end with the test."""
    for address in (*REMOTE, *OTHERS, *STORES.values()):
        agent.backend.run(f"ip address add {address}/24 dev eth0")
    with ExitStack() as stack:

        def make(name, **options):
            where = {"address": STORES[name], "namespace": agent.backend}
            return stack.enter_context(cluster(tmp_path, authority, name, int(name[1:]), **where, **options))

        yield make


@pytest.fixture
def c2(clusters):
    return clusters("c2")


def mesh(*peers, services=(), **values):
    """A document of cluster c1 with these peers and services."""
    own = {"cluster_name": "c1", "cluster_id": 1, **values}
    items = [each if isinstance(each, dict) else each.peer() for each in peers]
    return {**document(*services, **own), "clustermesh": {"items": items, "purge": True}}


def web(affinity="none", backends=LOCAL, **more):
    return service(backends=backends, health_check=CHECK, **{"global": True}, affinity=affinity, **more)


def in_table(node, name="web"):
    """Addresses of the backends that take new flows, as the kernel has them."""
    shares = node.ask("maglev", f"{VIP}:80")["shares"]
    return {each["backend"].partition(":")[0] for each in shares if each["slots"]}


def remote(node, name="web"):
    """Backends of other clusters, in a table or not."""
    rows = node.ask("service", "list", name)["services"][0]["backends"]
    return {row["backend"].partition(":")[0]: row["cluster"] for row in rows if row["cluster"]}


def peer_status(node, name="c2"):
    return next(each for each in node.ask("clustermesh", "status")["clusters"] if each["name"] == name)


def converged(node):
    """The kernel holds exactly what is known."""
    return node.ask("verify")["drift_count"] == 0


# --- whose backends are used ---


def test_affinity_failover_and_back(agent, c2):
    c2.publish(REMOTE)
    with web_servers(agent.backend, *LOCAL, *REMOTE) as servers:
        agent.apply(mesh(c2, services=[web()]))
        wait_for(lambda: in_table(agent) == {*LOCAL, *REMOTE}, what="backends of both clusters")
        wait_for(lambda: answers(agent.client, VIP, 40) == {*LOCAL, *REMOTE}, what="answers of both")
        agent.apply(mesh(c2, services=[web("local")]))
        assert in_table(agent) == set(LOCAL)
        assert remote(agent) == dict.fromkeys(REMOTE, "c2")
        for server in servers[:2]:
            server.status = 503
        started = time.monotonic()
        wait_for(lambda: in_table(agent) == set(REMOTE), what="failover")
        assert time.monotonic() - started < 3
        assert answers(agent.client, VIP) == set(REMOTE)
        servers[0].status = 200
        wait_for(lambda: in_table(agent) == {LOCAL[0]}, what="the way back")
        agent.apply(mesh(c2, services=[web("remote")]))
        assert in_table(agent) == set(REMOTE)
        c2.publish([])
        wait_for(lambda: in_table(agent) == {LOCAL[0]}, what="local backends without remote ones")
        c2.publish(REMOTE[:1])
        wait_for(lambda: in_table(agent) == {REMOTE[0]}, what="the remote backend")
    assert converged(agent)


def test_tables_are_those_of_the_same_backends_at_home(agent, c2):
    """The same on every node of every cluster, whoever the backends belong to."""
    agent.apply(document(service(backends=[*LOCAL, *REMOTE])))
    wanted = agent.ask("maglev", f"{VIP}:80", "--verbose")["slots"]
    c2.publish(REMOTE)
    agent.apply(mesh(c2, services=[service(backends=LOCAL, **{"global": True})]))
    wait_for(lambda: in_table(agent) == {*LOCAL, *REMOTE}, what="backends of both clusters")
    assert agent.ask("maglev", f"{VIP}:80", "--verbose")["slots"] == wanted


def test_what_is_not_shared_or_not_global_is_not_used(agent, c2):
    c2.publish(REMOTE, shared=False)
    c2.publish(REMOTE, name="private")
    items = [web(), service("private", port=8081) | {"frontends": [f"{VIP}:81/TCP"]}]
    agent.apply(mesh(c2, services=items))
    wait_for(lambda: peer_status(agent)["ready"], what="c2")
    assert peer_status(agent)["services"] == 2
    assert (remote(agent), remote(agent, "private")) == ({}, {})
    c2.publish(REMOTE)
    wait_for(lambda: set(remote(agent)) == set(REMOTE), what="shared backends")
    c2.publish(REMOTE, shared=False)
    wait_for(lambda: not remote(agent), what="backends that are not shared any more")


def test_several_clusters(agent, c2, clusters):
    c3 = clusters("c3")
    c2.publish(REMOTE)
    c3.publish(OTHERS)
    agent.apply(mesh(c2, c3, services=[web("remote")]))
    wait_for(lambda: in_table(agent) == {*REMOTE, *OTHERS}, what="backends of both")
    assert remote(agent) == {**dict.fromkeys(REMOTE, "c2"), **dict.fromkeys(OTHERS, "c3")}
    # Removed from the configuration: drained at once.
    agent.apply(mesh(c3, services=[web("remote")]))
    assert in_table(agent) == set(OTHERS)
    assert [each["name"] for each in agent.ask("clustermesh", "status")["clusters"]] == ["c3"]
    assert converged(agent)


def test_ports_are_those_of_the_service(agent, c2):
    """By the published frontend's port; of a service with several, the others are left alone."""
    ports = {"http": {"Protocol": "TCP", "Port": 8080}, "metrics": {"Protocol": "TCP", "Port": 9090}}
    both = {"10.96.0.10": {"http": {"Protocol": "TCP", "Port": 80}, "metrics": {"Protocol": "TCP", "Port": 90}}}
    c2.store.put(c2.key(), json.dumps({**c2.service([]), "backends": {REMOTE[0]: ports}, "frontends": both}))
    agent.apply(mesh(c2, services=[web()]))
    wait_for(lambda: remote(agent), what="c2's backend")
    rows = agent.ask("service", "list", "web")["services"][0]["backends"]
    assert [row["backend"] for row in rows if row["cluster"]] == [f"{REMOTE[0]}:8080"]
    c2.store.put(c2.key(), json.dumps({**c2.service([]), "backends": {REMOTE[0]: ports}, "frontends": {}}))
    wait_for(lambda: not remote(agent), what="nothing, where no port is the service's")
    assert any("none of its ports" in each for each in agent.ask("status")["problems"])


# --- changes ---


def test_a_change_is_written_by_itself(agent, c2):
    c2.publish(REMOTE[:1])
    others = [service(f"other{n}", port=9000) | {"frontends": [f"{VIP}:{1000 + n}/TCP"]} for n in range(20)]
    agent.apply(mesh(c2, services=[web(), *others]))
    wait_for(lambda: set(remote(agent)) == {REMOTE[0]}, what="the first")
    for backends in (REMOTE, REMOTE[1:], REMOTE):
        c2.publish(backends)
        wait_for(lambda wanted=set(backends): set(remote(agent)) == wanted, what="the change")
        done = agent.ask("status")["last_apply"]
        assert done["operations"] <= 5, "only this service's entries, table and neighbours"
        assert converged(agent)


def test_what_is_published_in_bulk_converges(agent, c2):
    names = [f"s{number:03}" for number in range(150)]
    items = [
        service(name, port=8080, **{"global": True}) | {"frontends": [f"{VIP}:{2000 + number}/TCP"]}
        for number, name in enumerate(names)
    ]
    agent.apply(mesh(c2, services=items))
    c2.publish_many(c2.service(REMOTE, name) for name in names)
    wait_for(lambda: all(set(remote(agent, name)) == set(REMOTE) for name in names[::37]), 30, "all")
    assert converged(agent)
    c2.store.delete("--prefix", c2.key("s0"))
    wait_for(lambda: not remote(agent, "s099") and not remote(agent, "s000"), 30, "the deletions")
    assert set(remote(agent, "s149")) == set(REMOTE)
    assert converged(agent)


# --- loss and return ---


def test_what_was_known_is_kept_without_the_store_and_over_restarts(agent, c2):
    c2.publish(REMOTE)
    c2.publish(OTHERS, name="stale")
    stale = service("stale", backends=(), **{"global": True}) | {"frontends": [f"{VIP}:81/TCP"]}
    with web_servers(agent.backend, *LOCAL, *REMOTE):
        agent.apply(mesh(c2, services=[web("remote"), stale]))
        wait_for(lambda: in_table(agent) == set(REMOTE) and remote(agent, "stale"), what="c2's backends")
        tables = agent.dump("luts_v1")
        c2.store.stop(signal.SIGKILL)
        wait_for(lambda: not peer_status(agent)["connected"], 10, "the loss")
        wait_for(lambda: "connection refused" in peer_status(agent)["failure"]["message"], what="why")
        for number in (signal.SIGTERM, signal.SIGKILL):
            agent.stop(number)
            assert agent.ask("plan")["changed"] is False
            agent.start()
            assert agent.dump("luts_v1") == tables
            assert agent.ask("status")["last_apply"] is None
        assert answers(agent.client, VIP) == set(REMOTE)
        c2.store.start()
        c2.store.delete(c2.key("stale"))
        c2.publish(REMOTE[:1])
        wait_for(lambda: in_table(agent) == {REMOTE[0]}, 15, "the return")
        wait_for(lambda: not remote(agent, "stale"), what="the removal of what is not published any more")
    assert converged(agent)


def test_nothing_is_pruned_before_all_is_published(agent, c2):
    """A store that begins anew is empty at first: that its services are not there yet tells nothing."""
    c2.publish(REMOTE)
    c2.publish(OTHERS, name="late")
    late = service("late", backends=(), **{"global": True}) | {"frontends": [f"{VIP}:81/TCP"]}
    agent.apply(mesh(c2, services=[web("remote"), late]))
    wait_for(lambda: in_table(agent) == set(REMOTE) and remote(agent, "late"), what="c2's backends")
    c2.store.stop()
    subprocess.run(["rm", "-r", str(c2.store.directory / "etcd-c2")], check=True)
    c2.store.start()
    c2.store._authenticate()
    c2.publish_itself(synced=False)
    wait_for(lambda: peer_status(agent)["connected"], 15, "the connection")
    c2.publish(REMOTE[1:])
    wait_for(lambda: in_table(agent) == {REMOTE[1]}, what="what is published already")
    assert not peer_status(agent)["ready"]
    assert set(remote(agent, "late")) == set(OTHERS)
    c2.publish_synced()
    wait_for(lambda: peer_status(agent)["ready"], what="everything")
    wait_for(lambda: not remote(agent, "late"), what="the removal of what is not published")


def test_compaction_while_the_store_was_away(agent, c2):
    c2.publish(REMOTE)
    agent.apply(mesh(c2, services=[web("remote")]))
    wait_for(lambda: in_table(agent) == set(REMOTE), what="c2's backends")
    c2.store.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: not peer_status(agent)["connected"], 15, "the loss of a store that hangs")
    c2.store.process.send_signal(signal.SIGCONT)
    c2.publish(REMOTE[:1])
    c2.store.ctl("compact", str(c2.store.revision()))
    wait_for(lambda: in_table(agent) == {REMOTE[0]}, 15, "what changed meanwhile")


def test_dropped_packets_are_noticed_and_nothing_is_lost(agent, c2):
    c2.publish(REMOTE)
    with web_servers(agent.backend, *LOCAL, *REMOTE):
        agent.apply(mesh(c2, services=[web("remote")]))
        wait_for(lambda: in_table(agent) == set(REMOTE), what="c2's backends")
        agent.lb.run(f"ip route add blackhole {STORES['c2']}/32")
        wait_for(lambda: not peer_status(agent)["connected"], 15, "the loss")
        assert answers(agent.client, VIP) == set(REMOTE)
        c2.publish(REMOTE[:1])
        agent.lb.run(f"ip route del blackhole {STORES['c2']}/32")
        wait_for(lambda: in_table(agent) == {REMOTE[0]}, 15, "the return")


def test_new_certificates_are_used_at_once(agent, c2, authority, tmp_path):
    c2.publish(REMOTE)
    files = [shutil.copy2(each, tmp_path) for each in c2.store.remote]
    peer = c2.peer(certificate=files[0], key=files[1])
    agent.apply(mesh(peer, services=[web("remote")]))
    wait_for(lambda: peer_status(agent)["ready"] and in_table(agent) == set(REMOTE), what="c2's backends")
    before = peer_status(agent)
    for new, old in zip(authority.issue("remote", lasting=datetime.timedelta(days=90)), files):
        shutil.copy2(new, old)
    after = wait_for(
        lambda: (row := peer_status(agent))["certificate_expires"] > before["certificate_expires"] and row, what="it"
    )
    assert (after["connected"], after["since"], after["failures"]) == (True, before["since"], 0)
    c2.publish(REMOTE[:1])
    wait_for(lambda: in_table(agent) == {REMOTE[0]}, what="the next change")


def test_the_cache_lives_as_long_as_it_may(agent, c2):
    c2.publish(REMOTE)
    item = service(backends=LOCAL, **{"global": True}, affinity="remote")
    agent.apply(mesh(c2, services=[item], clustermesh_cache_ttl="2s"))
    wait_for(lambda: in_table(agent) == set(REMOTE), what="c2's backends")
    time.sleep(3)
    assert in_table(agent) == set(REMOTE), "a connection keeps it"
    c2.store.stop(signal.SIGKILL)
    wait_for(lambda: not peer_status(agent)["connected"], 10, "the loss")
    lost = time.monotonic()
    wait_for(lambda: in_table(agent) == set(LOCAL), what="the end of the cache")
    assert 1 < time.monotonic() - lost < 4
    assert peer_status(agent)["revoked"]
    agent.stop()
    agent.start()
    assert in_table(agent) == set(LOCAL)
    c2.store.start()
    wait_for(lambda: in_table(agent) == set(REMOTE), 15, "the return")
    assert not peer_status(agent)["revoked"]


# --- hostile values, and clusters that are not what they should be ---


def test_hostile_values_never_reach_the_datapath(agent, c2):
    c2.publish(REMOTE)
    agent.apply(mesh(c2, services=[web()], cluster_networks=["203.0.113.8/29"]))
    wait_for(lambda: set(remote(agent)) == set(REMOTE), what="c2's backends")
    good = c2.service(OTHERS)
    hostile = {
        "not JSON": b"\xff\x00{",
        "cluster": json.dumps({**good, "cluster": "c1"}),
        "clusterID": json.dumps({**good, "clusterID": 1}),
        "name": json.dumps({**good, "name": "other"}),
        "127.0.0.1": json.dumps(c2.service(["127.0.0.1"])),
        "which is this cluster's own": json.dumps(c2.service([BACKENDS[2]])),
        "bytes are more than": json.dumps({**good, "labels": {"x": "y" * 1_100_000}}),
    }
    for reason, value in hostile.items():
        c2.store.put(c2.key(), value)
        row = wait_for(lambda: peer_status(agent)["quarantined"], what=reason)
        wait_for(lambda text=reason: text in peer_status(agent)["quarantined"][0]["reason"], what=reason)
        assert row[0]["key"] == c2.key()
        assert set(remote(agent)) == set(REMOTE), "the last good value stays"
    c2.store.put("cilium/state/services/v1/c2/nonsense", "{}")
    wait_for(lambda: peer_status(agent)["quarantined_count"] == 2, what="a key that is no service")
    assert converged(agent)
    c2.publish(REMOTE[:1])
    wait_for(lambda: set(remote(agent)) == {REMOTE[0]}, what="a good value")
    wait_for(lambda: peer_status(agent)["quarantined_count"] == 1, what="the quarantine's end")
    c2.store.delete("cilium/state/services/v1/c2/nonsense")
    wait_for(lambda: peer_status(agent)["quarantined_count"] == 0, what="the key's end")


def test_more_than_fits_is_left_out(agent, c2):
    """What another cluster publishes must not keep this node from anything."""
    many = [f"10.9.{number >> 8}.{number & 255}" for number in range(1, 400)]
    agent.apply(mesh(c2, services=[web()], maglev_table_size=251))
    c2.publish(many)
    wait_for(lambda: len(remote(agent)) == 251 - len(LOCAL), 15, "as many as a table has slots")
    assert any("of which 249 fit" in each for each in agent.ask("status")["problems"])
    # A full map of backends leaves room for this cluster's own.
    more = service("more", port=81) | {"frontends": [f"{VIP}:81/TCP"]}
    agent.apply(mesh(c2, services=[web(), more], maglev_table_size=251, service_backend_map_max=100))
    assert len(remote(agent)) == 100 - 2 * len(LOCAL)
    assert converged(agent)


def test_a_vip_of_this_node_is_no_backend(agent, c2):
    c2.publish([VIP, REMOTE[0]])
    agent.apply(mesh(c2, services=[web()]))
    wait_for(lambda: set(remote(agent)) == {REMOTE[0]}, what="the other backend")
    assert any("is a VIP of this node" in each for each in agent.ask("status")["problems"])


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"number": 1}, "id 1 is this cluster's own"),
        ({"most": 511}, "maxConnectedClusters is 511, and 255 in this cluster"),
    ],
)
def test_clusters_that_do_not_fit(agent, c2, published, message):
    c2.publish(REMOTE)
    c2.publish_itself(**published)
    agent.apply(mesh(c2, services=[web()]))
    failure = wait_for(lambda: peer_status(agent)["failure"], what="the refusal")
    assert failure["stage"] == "data"
    assert message in failure["message"]
    assert not remote(agent)
    c2.publish_itself()
    wait_for(lambda: set(remote(agent)) == set(REMOTE), 15, "the right words")
    # While it is connected, too.
    c2.publish_itself(**published)
    wait_for(lambda: message in (peer_status(agent)["failure"] or {}).get("message", ""), 15, "the refusal")
    assert set(remote(agent)) == set(REMOTE), "what was known is kept"


def test_two_clusters_with_one_id(agent, c2, clusters):
    c3 = clusters("c3")
    c3.publish_itself(number=2)
    agent.apply(mesh(c2, services=[web()]))
    wait_for(lambda: peer_status(agent)["ready"], what="c2")
    agent.apply(mesh(c2, c3, services=[web()]))
    failure = wait_for(lambda: peer_status(agent, "c3")["failure"], what="the refusal")
    assert "id 2 is that of c2 as well" in failure["message"]
    assert peer_status(agent)["ready"]


def test_a_store_without_authentication_is_not_followed(agent, clusters):
    c2 = clusters("c2", auth=False)
    c2.publish(REMOTE)
    agent.apply(mesh(c2, services=[web()]))
    failure = wait_for(lambda: peer_status(agent)["failure"], what="the refusal")
    assert failure["stage"] == "authorisation"
    assert "may read the whole store" in failure["message"]
    assert not remote(agent)


def test_forgotten_with_a_reset(agent, c2):
    c2.publish(REMOTE)
    agent.apply(mesh(c2, services=[web()]))
    wait_for(lambda: set(remote(agent)) == set(REMOTE), what="c2's backends")
    agent.ask("reset", "--yes")
    assert not (agent.root / "var/lib/datapath/clustermesh.db").exists()
    assert agent.ask("clustermesh", "status")["clusters"] == []


def test_bad_input(agent, c2):
    upper = mesh(c2.peer(name="C2"), services=[])
    for wanted, path, words in (
        (upper, "clustermesh.items[0].name", "lower case"),
        (mesh(c2.peer(name="c1")), "clustermesh.items[0].name", "is this cluster itself"),
        (mesh(c2, cluster_id=0), "clustermesh.items[0].name", "ClusterID 0 is reserved"),
        (mesh(c2, cluster_id=256), "options", "must be in range 0..255"),
    ):
        (error, *_) = agent.apply(wanted, code=2)["errors"]
        assert (error["path"], words in error["message"]) == (path, True), error


def test_established_connections_survive_failover(agent, c2):
    import http.client

    c2.publish(REMOTE[:1])
    with web_server(agent.backend, LOCAL[0]) as own, web_server(agent.backend, REMOTE[0]):
        agent.apply(mesh(c2, services=[web("local", LOCAL[:1])]))
        wait_for(lambda: remote(agent), what="c2's backend")
        own.status = 503
        wait_for(lambda: in_table(agent) == {REMOTE[0]}, what="failover")
        with agent.client:
            connection = http.client.HTTPConnection(VIP, 80, timeout=5)
            connection.connect()
        own.status = 200
        wait_for(lambda: in_table(agent) == {LOCAL[0]}, what="the way back")
        connection.request("GET", "/")
        assert connection.getresponse().read().decode() == REMOTE[0]
        connection.close()


# --- seeing it ---


def test_status_waits_and_tells(agent, c2, clusters):
    c3 = clusters("c3")
    c2.publish(REMOTE)
    agent.apply(mesh(c2, c3, services=[web()]))
    found = agent.ask("clustermesh", "status", "--wait", "--timeout", "20")
    assert (found["name"], found["id"], found["ready"]) == ("c1", 1, True)
    row = found["clusters"][0]
    assert (row["name"], row["id"], row["connected"], row["services"], row["failures"]) == ("c2", 2, True, 1, 0)
    assert row["endpoint"] == f"{STORES['c2']}:{c2.store.port}"
    assert abs(row["heartbeat"] - time.time()) < 60
    days = (row["certificate_expires"] - time.time()) / 86400
    assert 29 < days < 31
    assert any("expires in 30 days" in hint for hint in row["hints"])
    text = agent.run("clustermesh", "status").stdout
    assert "cluster c1, id 1" in text
    assert "ready" in text
    c3.store.stop(signal.SIGKILL)
    wait_for(lambda: not peer_status(agent, "c3")["connected"], 10, "the loss")
    started = time.monotonic()
    waited = agent.ask("clustermesh", "status", "--wait", "--timeout", "1", code=1)
    assert [each["ready"] for each in waited["clusters"]] == [True, False]
    assert time.monotonic() - started < 10
    text = agent.run("clustermesh", "status").stdout
    assert "c3: TCP: 203.0.113.53:" in text
    assert "is etcd running there" in text
    metrics = scraped(agent)
    assert [metrics[f'datapath_clustermesh_ready{{cluster="{name}"}}'] for name in ("c2", "c3")] == [1, 0]
    assert metrics['datapath_clustermesh_failures{cluster="c3"}'] >= 1
    assert metrics['datapath_clustermesh_certificate_expires{cluster="c2"}'] == pytest.approx(
        row["certificate_expires"]
    )


def scraped(node):
    """Metric with labels -> value."""
    import http.client
    import socket

    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(node.root / "run/datapath/datapathd.sock"))
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def steps(node, *words, code=0):
    found = node.ask("clustermesh", "troubleshoot", *words, code=code)
    return {each["name"]: [(step["stage"], step["passed"]) for step in each["steps"]] for each in found["clusters"]}


def test_troubleshoot(agent, c2, clusters):
    c3 = clusters("c3")
    c2.publish(REMOTE)
    agent.apply(mesh(c2, c3, services=[web()]))
    wait_for(lambda: agent.ask("clustermesh", "status")["ready"], what="both")
    whole = [(stage, True) for stage in ("DNS", "TCP", "TLS", "TLS", "store", "authorisation", "data", "data", "data")]
    assert steps(agent) == {"c2": whole, "c3": whole}
    assert steps(agent, "c3") == {"c3": whole}
    c2.store.put(c2.key("bad"), "{")
    c2.store.put("cilium/.heartbeat", "2026-01-01T00:00:00.123456789Z")
    c2.store.delete("cilium/synced/c2/cilium/state/services/v1")
    assert steps(agent, "c2", code=1) == {"c2": [*whole[:7], ("data", False), ("data", False), ("data", False)]}
    text = agent.run("clustermesh", "troubleshoot", "c2").stdout
    assert "✔ authorisation remote may read what a remote cluster may" in text
    assert "✘ data          cilium/state/services/v1/c2/default/bad: not JSON" in text
    c2.store.delete("cilium/cluster-config/c2")
    assert steps(agent, "c2", code=1) == {"c2": [*whole[:5], ("data", False)]}
    c3.store.stop()
    assert steps(agent, "c3", code=1) == {"c3": [("DNS", True), ("TCP", False)]}
    agent.stop()
    assert steps(agent, "c3", code=1) == {"c3": [("DNS", True), ("TCP", False)]}
    error = agent.ask("clustermesh", "troubleshoot", "c4", code=2)["errors"][0]
    assert (error["message"], error["allowed"]) == ("no such cluster", "c2, c3")


def test_services_show_whose_backends_are_whose(agent, c2):
    c2.publish(REMOTE[:1])
    agent.apply(mesh(c2, services=[web()]))
    wait_for(lambda: remote(agent), what="c2's backend")
    lines = agent.run("service", "list").stdout.splitlines()
    row = next(line.split() for line in lines if REMOTE[0] in line)
    assert row[:5] == [f"{REMOTE[0]}:8080", "c2", "100", "active", "published"]

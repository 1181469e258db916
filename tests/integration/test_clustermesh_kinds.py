"""A real agent that follows all that another cluster publishes: nodes, identities and addresses beside services.

The store of c2 listens in the backends' namespace, at 203.0.113.52.
"""

import json
import signal
import subprocess

import pytest

from integration.node import BACKENDS, document, service
from lib.mesh import KINDS, cluster
from netns.topology import wait_for

STORE = "203.0.113.52"
NAMES = ("services", "nodes", "identities", "ips")
ALL = dict.fromkeys(NAMES, True)
NONE = dict.fromkeys(NAMES, False)


@pytest.fixture
def c2(agent, authority, tmp_path):
    agent.backend.run(f"ip address add {STORE}/24 dev eth0")
    with cluster(tmp_path, authority, "c2", 2, address=STORE, namespace=agent.backend) as made:
        yield made


def follow(node, *clusters, **values):
    own = {"cluster_name": "c1", "cluster_id": 1, **values}
    web = service(backends=BACKENDS[:1], **{"global": True})
    items = [each.peer() for each in clusters]
    node.apply({**document(web, **own), "clustermesh": {"items": items, "purge": True}})


def row(node):
    (found,) = node.ask("clustermesh", "status")["clusters"]
    return found


def counts(node):
    found = row(node)
    return tuple(found[name] for name in NAMES)


def publish_some(c2):
    c2.publish(["203.0.113.21"])
    for number in (1, 2):
        c2.publish_node(f"n{number}", f"10.2.{number}.0/24")
    for number in (100, 101, 102):
        c2.publish_identity(number, f"app{number}")
        c2.publish_ip(f"10.2.1.{number}", number)
    c2.publish_ip("10.2.2.9", 100)


def test_every_kind_converges_is_told_and_pruned(agent, c2):
    publish_some(c2)
    # References and locks of its nodes are nobody else's.
    c2.store.put("cilium/state/identities/v1/value/k8s:app=web;/192.0.2.20", str(c2.number_of(100)))
    follow(agent, c2)
    agent.ask("clustermesh", "status", "--wait", "--timeout", "20")
    assert counts(agent) == (1, 2, 3, 4)
    assert (row(agent)["synced"], row(agent)["denied"], row(agent)["quarantined_count"]) == (ALL, {}, 0)
    c2.publish_node("n3", "10.2.3.0/24")
    c2.publish_identity(103)
    c2.publish_ip("10.2.3.1", 103)
    wait_for(lambda: counts(agent) == (1, 3, 4, 5), what="what came")
    c2.store.delete("--prefix", "cilium/state/ip/v1/default/10.2.1.")
    c2.store.delete(f"cilium/state/identities/v1/id/{c2.number_of(101)}")
    c2.store.delete("cilium/state/nodes/v1/c2/n2")
    wait_for(lambda: counts(agent) == (1, 2, 3, 2), what="what went")
    header, line = agent.run("clustermesh", "status").stdout.splitlines()[2:4]
    assert header.split()[5:9] == ["SERVICES", "NODES", "IDENTITIES", "IPS"]
    assert line.split()[5:9] == ["1", "2", "3", "2"], line
    # Without the store, what was known is kept; when it is back, it is compared.
    c2.store.stop(signal.SIGKILL)
    wait_for(lambda: not row(agent)["connected"], 10, "the loss")
    assert (counts(agent), row(agent)["synced"]) == ((1, 2, 3, 2), NONE)
    c2.store.start()
    c2.store.delete("cilium/state/nodes/v1/c2/n3")
    c2.store.delete(f"cilium/state/identities/v1/id/{c2.number_of(103)}")
    c2.store.delete("cilium/state/ip/v1/default/10.2.3.1")
    wait_for(lambda: counts(agent) == (1, 1, 2, 1), 15, "what is not published any more")
    wait_for(lambda: row(agent)["ready"], what="everything")
    # Taken out of the configuration, nothing is left; as known as ever where it is back.
    follow(agent)
    assert agent.ask("clustermesh", "status")["clusters"] == []
    follow(agent, c2)
    wait_for(lambda: counts(agent) == (1, 1, 2, 1), what="all of it")


def test_each_kind_has_a_canary_of_its_own(agent, c2):
    """Nothing of a kind is removed before the cluster has told that all of it is published."""
    publish_some(c2)
    follow(agent, c2)
    wait_for(lambda: row(agent)["ready"], what="everything")
    c2.store.stop(signal.SIGKILL)
    subprocess.run(["rm", "-r", str(c2.store.directory / "etcd-c2")], check=True)
    c2.store.start()
    c2.store._authenticate()
    c2.publish_itself(synced=False)
    wait_for(lambda: row(agent)["connected"], 15, "the connection")
    # What is new is used at once.
    c2.publish_node("n9", "10.2.9.0/24")
    wait_for(lambda: counts(agent) == (1, 3, 3, 4), what="what is new")
    known, synced = [1, 3, 3, 4], dict(NONE)
    for position, (path, name, left) in enumerate(zip(KINDS, NAMES, (0, 1, 0, 0))):
        assert row(agent)["synced"] == synced
        assert f"({', '.join(NAMES[position:])})" in str(row(agent)["hints"])
        assert not row(agent)["ready"]
        c2.publish_synced([path])
        known[position], synced[name] = left, True
        wait_for(lambda wanted=tuple(known): counts(agent) == wanted, what=name)
    wait_for(lambda: row(agent)["ready"], what="everything")
    assert row(agent)["synced"] == ALL


def test_hostile_values_are_quarantined(agent, c2):
    publish_some(c2)
    follow(agent, c2, cluster_networks=["10.1.0.0/16"])
    wait_for(lambda: row(agent)["ready"], what="everything")
    before = counts(agent)
    c2.publish_node("n1", "10.1.1.0/24")
    c2.publish_node("n2", "10.2.2.0/24", Name="n1")
    c2.publish_identity(100, cluster="c1")
    c2.store.put("cilium/state/identities/v1/id/65600", "k8s:io.cilium.k8s.policy.cluster=c2;")
    c2.publish_ip("10.1.0.7", 100)
    c2.publish_ip("10.2.1.100", 100, ID=65600)
    c2.publish_ip("10.2.1.101", 100, HostIP="10.1.0.1")
    c2.store.put("cilium/state/ip/v1/default/127.0.0.1", json.dumps({"IP": "127.0.0.1", "ID": 2}))
    wanted = {
        "cilium/state/nodes/v1/c2/n1": "10.1.1.0/24 overlaps 10.1.0.0/16, which is this cluster's own",
        "cilium/state/nodes/v1/c2/n2": "Name: 'n1' is not 'n2'",
        f"cilium/state/identities/v1/id/{c2.number_of(100)}": "k8s:io.cilium.k8s.policy.cluster=c1",
        "cilium/state/identities/v1/id/65600": "65600 is not one of this cluster's identities, 131072 to 196607",
        "cilium/state/ip/v1/default/10.1.0.7": "10.1.0.7 is in 10.1.0.0/16, which is this cluster's own",
        "cilium/state/ip/v1/default/10.2.1.100": "ID: 65600 is not one of this cluster's, 131072 to 196607",
        "cilium/state/ip/v1/default/10.2.1.101": "HostIP: 10.1.0.1 is in 10.1.0.0/16",
        "cilium/state/ip/v1/default/127.0.0.1": "127.0.0.1 cannot be used",
    }
    wait_for(lambda: row(agent)["quarantined_count"] == len(wanted), what="the quarantine")
    found = {each["key"]: each["reason"] for each in row(agent)["quarantined"]}
    assert found.keys() == wanted.keys()
    assert all(reason in found[key] for key, reason in wanted.items()), found
    assert counts(agent) == before, "the last good values stay"
    failed = agent.ask("clustermesh", "troubleshoot", code=1)["clusters"][0]["steps"]
    assert {key for key in wanted if any(key in step["detail"] for step in failed)} == wanted.keys()
    publish_some(c2)
    c2.store.delete("cilium/state/identities/v1/id/65600")
    c2.store.delete("cilium/state/ip/v1/default/10.1.0.7")
    c2.store.delete("cilium/state/ip/v1/default/127.0.0.1")
    wait_for(lambda: row(agent)["quarantined_count"] == 0, what="the quarantine's end")
    assert counts(agent) == before


def test_a_copy_is_read_where_copies_are(agent, c2):
    """As of a store that kvstoremesh fills: with what several clusters have, each below its name."""
    c2.place = "cache"
    c2.publish_itself()
    c2.store.ctl("role", "grant-permission", "remote", "read", "cilium/cache/", "--prefix")
    publish_some(c2)
    for key in ("nodes/v1/c3/n1", "identities/v1/c3/id/196708", "ip/v1/c3/10.3.0.1", "services/v1/c3/default/web"):
        c2.store.put(f"cilium/cache/{key}", "{}")
    follow(agent, c2)
    agent.ask("clustermesh", "status", "--wait", "--timeout", "20")
    assert counts(agent) == (1, 2, 3, 4)
    assert (row(agent)["synced"], row(agent)["quarantined_count"]) == (ALL, 0)
    c2.store.delete(f"cilium/cache/identities/v1/c2/id/{c2.number_of(101)}")
    wait_for(lambda: counts(agent) == (1, 2, 2, 4), what="what went")


def test_a_kind_that_may_not_be_read_breaks_nothing(agent, c2):
    publish_some(c2)
    c2.store.ctl("role", "revoke-permission", "remote", "cilium/state/", "--prefix")
    for path in ("services", "nodes", "ip"):
        c2.store.ctl("role", "grant-permission", "remote", "read", f"cilium/state/{path}/", "--prefix")
    follow(agent, c2)
    agent.ask("clustermesh", "status", "--wait", "--timeout", "20")
    assert counts(agent) == (1, 2, 0, 4)
    assert row(agent)["synced"] == {**ALL, "identities": False}
    assert list(row(agent)["denied"]) == ["identities"]
    assert any("its identities are not known" in each for each in row(agent)["hints"])
    c2.publish_node("n3", "10.2.3.0/24")
    wait_for(lambda: counts(agent) == (1, 3, 0, 4), what="what is watched all the same")
    steps = agent.ask("clustermesh", "troubleshoot", code=1)["clusters"][0]["steps"]
    assert [each["stage"] for each in steps if not each["passed"]] == ["authorisation"]

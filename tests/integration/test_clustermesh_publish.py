"""Real agents that publish in a real store of their own cluster.

The store of cluster c1 listens at 198.18.0.1, in a namespace that each node has a way to.
"""

import json
import signal
import sys
import time
from contextlib import ExitStack

import pytest

from integration.node import BACKENDS, VIP, Node, document, service, web_servers
from integration.node import node as make_node
from integration.test_clustermesh import CHECK, in_table, remote, scraped, steps
from lib.etcd import etcd
from netns.topology import NetNS, veth, wait_for

SERVICES = "cilium/state/services/v1/c1/default/"
NODES = "cilium/state/nodes/v1/c1/"
LOCAL = BACKENDS[:2]
# What a user may not have so short: a publisher is followed, and leases end, within seconds.
HURRIED = """
import sys
from datapath.sources.mesh import election, keeper, publisher
election.LEASE_TTL, publisher.LOOK, publisher.SETTLE = 2, 0.5, 1.0
make = keeper.Keeper.__init__
keeper.Keeper.__init__ = lambda self, registry, ttl, spans: make(self, registry, 6, spans)
from datapath.__main__ import main
sys.exit(main(sys.argv[4:]))
"""


class HurriedNode(Node):
    confinement = (sys.executable, "-c", HURRIED)


class World:
    """Nodes of cluster c1, and its store."""

    def __init__(self, stack, authority, directory):
        self._stack, self._directory = stack, directory
        self.namespace = NetNS()
        stack.callback(self.namespace.close)
        self.namespace.run("ip address add 198.18.0.1/32 dev lo")
        where = {"address": "198.18.0.1", "namespace": self.namespace}
        self.store = stack.enter_context(etcd(directory, authority, "c1", **where))
        self.nodes = []

    def node(self):
        number = len(self.nodes) + 1
        directory = self._directory / f"node{number}"
        directory.mkdir()
        made = self._stack.enter_context(make_node(directory, HurriedNode))
        veth(self.namespace, f"node{number}", made.lb, "store0")
        self.namespace.run(f"ip address add 198.18.{number}.1/24 dev node{number}")
        made.lb.run(f"ip address add 198.18.{number}.2/24 dev store0")
        made.lb.run(f"ip route add 198.18.0.1/32 via 198.18.{number}.1")
        made.start()
        self.nodes.append(made)
        return made

    def contents(self, prefix="cilium/state/"):
        text = self.store.ctl("get", "--prefix", prefix).stdout.decode()
        lines = text.splitlines()
        return dict(zip(lines[::2], lines[1::2]))

    def published(self, name="web"):
        """Addresses of the published backends of a service; None where it is not published."""
        value = self.contents().get(SERVICES + name)
        return None if value is None else set(json.loads(value)["backends"])

    def created(self, name):
        """Revision at which a service's key came to be: another one where it was gone meanwhile."""
        return json.loads(self.store.ctl("get", SERVICES + name, "-w", "json").stdout)["kvs"][0]["create_revision"]

    def own(self, name="lb1", publisher=True, files=None, **fields):
        certificate, key = files or self.store.agent
        files = {"ca": str(self.store.authority.path), "certificate": str(certificate), "key": str(key)}
        place = {"name": name, "addresses": ["198.18.1.2"], "pod_cidrs": ["10.1.0.0/24"]}
        return {"endpoints": [self.store.endpoint], **files, "publisher": publisher, "node": place, **fields}

    def document(self, *services, store=None, peers=(), **values):
        own = {"cluster_name": "c1", "cluster_id": 1, **values}
        section = {"store": store or self.own(), "items": list(peers), "purge": True}
        return {**document(*services, **own), "clustermesh": section}


@pytest.fixture
def world(authority, tmp_path):
    with ExitStack() as stack:
        yield World(stack, authority, tmp_path)


def web(backends=LOCAL, **more):
    return service(backends=backends, health_check=CHECK, **{"global": True}, **more)


def own_store(node):
    return node.ask("clustermesh", "status")["store"]


def test_what_a_node_publishes_follows_health_documents_and_its_end(world):
    node = world.node()
    with web_servers(node.backend, *LOCAL) as servers:
        checked = node.check(world.document(web()))
        rows = [row for row in checked["operations"] if row["target"] == "store"]
        assert [row["summary"] for row in rows] == ["create store clustermesh"]
        assert world.contents("") == {}
        assert node.apply(world.document(web()))["changed"]
        assert not node.apply(world.document(web()))["changed"]
        assert node.ask("clustermesh", "status", "--wait", "--timeout", "20")["ready"]
        assert world.published() == set(LOCAL)
        assert json.loads(world.contents()[f"{NODES}lb1"])["IPAddresses"] == [
            {"Type": "InternalIP", "IP": "198.18.1.2"}
        ]
        servers[0].status = 503
        started = time.monotonic()
        wait_for(lambda: world.published() == {LOCAL[1]}, what="the backend that fails")
        assert time.monotonic() - started < 5
        for server in servers:
            server.status = 503
        wait_for(lambda: world.published() == set(), what="a service without backends")
        servers[0].status = 200
        wait_for(lambda: world.published() == {LOCAL[0]}, what="the way back")
        # A restart, whichever, takes nothing back, and knows who fails.
        for number in (signal.SIGTERM, signal.SIGKILL):
            node.stop(number)
            assert world.published() == {LOCAL[0]}
            node.start()
            wait_for(lambda: own_store(node)["ready"], 20, "the publisher")
            assert world.published() == {LOCAL[0]}
    changed = node.check(world.document(web(), store=world.own(publisher=False)))
    assert "update store clustermesh: publisher" in [row["summary"] for row in changed["operations"]]
    node.apply({"clustermesh": {"store": {"state": "absent"}}})
    wait_for(lambda: world.contents("") == {}, what="the withdrawal")
    assert own_store(node) is None
    node.apply(world.document(web()))
    wait_for(lambda: world.published() is not None, what="the publisher")
    node.ask("reset", "--yes")
    wait_for(lambda: world.contents("") == {}, what="the withdrawal")
    node.apply(world.document(web()))
    wait_for(lambda: world.published() is not None, what="the publisher")
    node.stop()
    node.ask("reset", "--yes")
    assert world.contents("") == {}


def test_status_metrics_and_troubleshooting(world):
    node = world.node()
    node.apply(world.document(web()))
    assert node.ask("clustermesh", "status", "--wait", "--timeout", "20")["ready"]
    wait_for(lambda: own_store(node)["services"], what="the count")
    found = own_store(node)
    assert (found["publisher"], found["elected"], found["candidate"]) == ("lb1", True, True)
    assert (found["services"], found["nodes"], found["alarms"], found["has_leader"]) == (1, 1, [], True)
    assert found["quota"] > found["size"] > 0
    assert abs(found["lease"]["renewed"] - time.time()) < 10
    assert any("expires in 30 days" in hint for hint in found["hints"])
    text = node.run("clustermesh", "status").stdout
    assert "lb1 (this node)" in text
    assert "no other cluster is configured" in text
    metrics = scraped(node)
    for name, value in (("connected", 1), ("ready", 1), ("elected", 1), ("services", 1), ("nodes", 1), ("failures", 0)):
        assert metrics[f"datapath_clustermesh_store_{name}"] == value
    assert metrics['datapath_clustermesh_store_alarm{alarm="NOSPACE"}'] == 0
    whole = [(stage, True) for stage in ("DNS", "TCP", "TLS", "TLS", "store", "authorisation", "data", "data", "data")]
    assert steps(node) == {"c1": whole}
    assert "✔ data          lb1 publishes for the cluster" in node.run("clustermesh", "troubleshoot", "c1").stdout
    # Nobody publishes for the cluster.
    node.apply(world.document(web(), store=world.own(publisher=False)))
    wait_for(lambda: own_store(node)["connected"] and own_store(node)["publisher"] is None, what="nobody")
    assert any("no node publishes for the cluster" in hint for hint in own_store(node)["hints"])
    assert steps(node, code=1)["c1"][6] == ("data", False)
    # Who may only read.
    node.apply(world.document(web(), store=world.own(files=world.store.remote)))
    failure = wait_for(lambda: own_store(node)["failure"], what="the refusal")
    assert failure["stage"] == "authorisation"
    assert "is denied" in failure["message"]
    assert "store: authorisation: " in node.run("clustermesh", "status").stdout


def test_another_load_balancer_takes_over_from_one_that_is_killed(world):
    first, second = world.node(), world.node()
    with web_servers(first.backend, *LOCAL), web_servers(second.backend, *LOCAL):
        first.apply(world.document(web()))
        wait_for(lambda: own_store(first)["ready"], 20, "the publisher")
        second.apply(world.document(web(), store=world.own("lb2")))
        wait_for(lambda: own_store(second)["ready"], 20, "the second node")
        assert (own_store(second)["publisher"], own_store(second)["elected"]) == ("lb1", False)
        created = world.created("web")
        first.stop(signal.SIGKILL)
        wait_for(lambda: own_store(second)["elected"], 15, "the successor")
        wait_for(lambda: f"{NODES}lb1" not in world.contents(), 15, "the end of the node's own key")
        time.sleep(2)
        assert world.published() == set(LOCAL), "nobody saw it go"
        assert world.created("web") == created


def test_one_cluster_publishes_and_the_other_follows(world, authority, tmp_path):
    """Health here decides about the tables there."""
    ours, theirs = world.node(), world.node()
    with web_servers(ours.backend, *LOCAL) as servers:
        private = web(name="private", shared=False) | {"frontends": [f"{VIP}:81/TCP"]}
        ours.apply(world.document(web(port_name="http"), private))
        certificate, key = world.store.remote
        peer = {"name": "c1", "endpoints": [world.store.endpoint], "ca": str(authority.path)}
        peer.update(certificate=str(certificate), key=str(key))
        items = [service(name, backends=(), **{"global": True}) for name in ("web", "private")]
        items[1]["frontends"] = [f"{VIP}:81/TCP"]
        wanted = {**document(*items, cluster_name="c2", cluster_id=2), "clustermesh": {"items": [peer], "purge": True}}
        theirs.apply(wanted)
        assert theirs.ask("clustermesh", "status", "--wait", "--timeout", "30")["ready"]
        wait_for(lambda: in_table(theirs) == set(LOCAL), what="their table")
        assert remote(theirs) == dict.fromkeys(LOCAL, "c1")
        assert remote(theirs, "private") == {}
        servers[0].status = 503
        started = time.monotonic()
        wait_for(lambda: in_table(theirs) == {LOCAL[1]}, what="failover there")
        assert time.monotonic() - started < 5
        ours.stop()
        assert in_table(theirs) == {LOCAL[1]}

"""The three clusters of inventories/lab_mesh, as tests use them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from datapath.etcd.errors import Stage
from lib import lab

CLUSTERS = ("berlin", "paris", "tokyo")
INVENTORY = "inventories/lab_mesh"
WEB, NEAR, FAR, API = 80, 81, 82, 83
"""Ports of the services: of all backends, preferably one's own, preferably others', and from a manifest."""
CHECK = {"type": "http", "path": "/healthz", "interval": "500ms", "timeout": "300ms", "rise": 2, "fall": 2}
CONTROL_NODE = "198.51.100.1"
"""This machine, as the lab's nodes reach it."""
_EVENT = re.compile(r"^(\d+\.\d+) .*?(cluster \w+|own store): (.+)$", re.MULTILINE)
"""Time, store, and what became of the connection to it, as the executor's journal has them."""
_STAGES = {stage.value for stage in Stage}
_STORE = "/etc/datapath/etcd"
_PEERS = "/etc/datapath/clustermesh"


def playbook(name: str, *arguments: str) -> None:
    """Run a playbook over all clusters."""
    result = lab.playbook(name, *arguments, inventory=INVENTORY)
    assert result.returncode == 0, result.stdout + result.stderr


def balancer(cluster: str) -> str:
    """The cluster's load balancer."""
    return f"{cluster}-lb"


def store(cluster: str) -> str:
    """The node that its etcd runs on."""
    return f"{cluster}-etcd"


def backends(*clusters: str) -> set[str]:
    """Names of the backends of clusters."""
    return {f"{cluster}-be{number}" for cluster in clusters for number in (1, 2)}


def address(node: str) -> str:
    """A node's address, as `hosts.yml` gives it."""
    cluster, _, name = node.partition("-")
    return f"198.18.{CLUSTERS.index(cluster) + 1}{('', 'lb', 'etcd', 'be1', 'be2').index(name)}.10"


def vip(cluster: str) -> str:
    """The cluster's virtual address."""
    return f"192.0.2.{CLUSTERS.index(cluster) + 1}"


def target(cluster: str, port: int = WEB) -> str:
    """A service as load.py names it."""
    return f"tcp:{vip(cluster)}:{port}"


def answers(cluster: str, port: int = WEB, count: int = 60) -> set[str]:
    """Who answers requests to a service of a cluster, none of which may fail."""
    report = lab.load("--count", count, "--workers", 4, target(cluster, port), node="router")
    assert lab.failures(report) == {}
    return set(report[target(cluster, port)]["backends"])


def slots(cluster: str, port: int = WEB) -> list[str]:
    """The table of a service, slot by slot, as the kernel of the cluster's load balancer has it."""
    found: list[str] = lab.datapath(balancer(cluster), "maglev", f"{vip(cluster)}:{port}", "--verbose")["slots"]
    return found


def in_table(cluster: str, port: int = WEB) -> set[str]:
    """Addresses of the backends that take new connections."""
    shares = lab.datapath(balancer(cluster), "maglev", f"{vip(cluster)}:{port}")["shares"]
    return {row["backend"].rpartition(":")[0] for row in shares if row["slots"]}


def addresses(*clusters: str) -> set[str]:
    """Addresses of the backends of clusters."""
    return {address(name) for name in backends(*clusters)}


def mesh(cluster: str) -> Mapping[str, Mapping[str, Any]]:
    """What a cluster's load balancer says of the others, by name."""
    rows = lab.datapath(balancer(cluster), "clustermesh", "status")["clusters"]
    return {row["name"]: row for row in rows}


def outages(cluster: str, since: float) -> list[float]:
    """Seconds that a load balancer was without each store that it lost since then, its own included, by its journal."""
    text = lab.shell(balancer(cluster), f"journalctl -u datapathd --since=@{since} -o short-unix --no-pager --quiet")
    lost: dict[str, float] = {}
    found = []
    for when, what, event in _EVENT.findall(text):
        if event.startswith("connected to "):
            found += [float(when) - lost.pop(what)] if what in lost else []
        elif event.split(":")[0] in _STAGES:
            lost.setdefault(what, float(when))
    assert not lost
    return found


def others(cluster: str) -> list[str]:
    """All clusters but this one."""
    return [each for each in CLUSTERS if each != cluster]


def wait_until_ready(seconds: float = 30) -> None:
    """Until every cluster follows every other one, and has all that it publishes."""
    for cluster in CLUSTERS:
        lab.wait_until(lambda c=cluster: all(row["ready"] for row in mesh(c).values()), seconds)


def wait_until_cut_off(cluster: str, seconds: float = 30) -> None:
    """Until all others have noticed that this one's store does not answer."""
    for other in others(cluster):
        lab.wait_until(lambda o=other: not mesh(o)[cluster]["connected"], seconds)


def etcdctl(node: str, *words: str, store: str = "https://127.0.0.1:2379", user: str = f"{_STORE}/root", check=True):
    """Run etcdctl on a node; `user` is the path of certificate and key without what they end with."""
    ca = f"{user.rpartition('/')[0]}/ca.pem"
    where = ("--endpoints", store, "--cacert", ca, "--cert", f"{user}.pem", "--key", f"{user}.key")
    return lab.run(node, "env", "ETCDCTL_API=3", "etcdctl", *where, "--command-timeout=5s", *words, check=check)


def as_remote(cluster: str, of: str, *words: str) -> Any:
    """Run etcdctl on a cluster's load balancer, with its certificate for the store of another one."""
    place = f"https://{address(store(of))}:2379"
    return etcdctl(balancer(cluster), *words, store=place, user=f"{_PEERS}/{of}/remote", check=False)


def offer(cluster: str, *nodes: str) -> None:
    """Have the cluster's service `shop/near` be served by these of its backends, otherwise as the inventory has it."""
    service = {
        "name": "shop/near",
        "frontends": [f"{vip(cluster)}:{NEAR}/TCP"],
        "backends": [f"{address(node)}:8080" for node in sorted(nodes)],
        "health_check": CHECK,
        "global": True,
        "affinity": "local",
    }
    lab.datapath(balancer(cluster), "apply", "-", stdin=json.dumps({"services": {"items": [service]}}))


def published(cluster: str, by: str) -> set[str]:
    """The backends of another cluster's `shop/near` as a cluster's load balancer knows them, in its table or not."""
    (service,) = lab.datapath(balancer(cluster), "service", "list", "shop/near")["services"]
    return {row["backend"].rpartition(":")[0] for row in service["backends"] if row["cluster"] == by}


@contextmanager
def packets_dropped(cluster: str) -> Iterator[None]:
    """The cluster's store receives nothing while the block runs, and nobody is told."""
    rules = "add table inet cut; add chain inet cut input { type filter hook input priority 0; }; "
    lab.run(store(cluster), "nft", rules + "add rule inet cut input tcp dport 2379 drop")
    try:
        yield
    finally:
        lab.run(store(cluster), "nft", "delete table inet cut")

"""Where each kind is in a store, and what is known of it: one table for all."""

import ipaddress
import json

import pytest

from datapath.sources.mesh.kinds import KINDS, Origin
from datapath.sources.mesh.layout import ClusterConfig
from datapath.sources.mesh.table import Table
from datapath.sources.mesh.values import QuarantineError
from datapath.state.remote import Prefix

KIND = {kind.name: kind for kind in KINDS}
LABELS = b"k8s:app=web;k8s:io.cilium.k8s.policy.cluster=c2;"
SERVICE = {"cluster": "c2", "namespace": "default", "name": "web", "clusterID": 2}
NODE = {"Cluster": "c2", "Name": "n1", "ClusterID": 2}
# The end of a key, a good value, and a bad one with the reason.
PUBLISHED = {
    "services": (b"default/web", json.dumps(SERVICE).encode(), b"{}", "cluster: None is not 'c2'"),
    "nodes": (b"n1", json.dumps(NODE).encode(), b"[]", "not a JSON object"),
    "identities": (b"131100", LABELS, b"k8s:app=web;", "the label of its cluster"),
    "ips": (b"10.2.0.1", b'{"IP":"10.2.0.1","ID":131100}', b'{"IP":"10.2.0.1","ID":65536}', "ID: 65536 is not one"),
}


def origin(cached=False, own=()):
    return Origin("c2", ClusterConfig(2, True, 255, cached), own)


def key(kind, rest, cached=False):
    return KIND[kind].prefix("c2", cached).encode() + rest


@pytest.mark.parametrize(
    ("kind", "cached", "prefix", "synced"),
    [
        ("services", False, "cilium/state/services/v1/c2/", "cilium/synced/c2/cilium/state/services/v1"),
        ("nodes", False, "cilium/state/nodes/v1/c2/", "cilium/synced/c2/cilium/state/nodes/v1"),
        ("identities", False, "cilium/state/identities/v1/id/", "cilium/synced/c2/cilium/state/identities/v1"),
        ("ips", False, "cilium/state/ip/v1/default/", "cilium/synced/c2/cilium/state/ip/v1"),
        ("services", True, "cilium/cache/services/v1/c2/", "cilium/synced/c2/cilium/cache/services/v1"),
        ("nodes", True, "cilium/cache/nodes/v1/c2/", "cilium/synced/c2/cilium/cache/nodes/v1"),
        ("identities", True, "cilium/cache/identities/v1/c2/id/", "cilium/synced/c2/cilium/cache/identities/v1"),
        ("ips", True, "cilium/cache/ip/v1/c2/", "cilium/synced/c2/cilium/cache/ip/v1"),
    ],
)
def test_keys(kind, cached, prefix, synced):
    """The reference's table (4.1)."""
    assert (KIND[kind].prefix("c2", cached), KIND[kind].synced("c2", cached)) == (prefix, synced)


@pytest.mark.parametrize("kind", KIND)
@pytest.mark.parametrize("cached", [False, True])
def test_a_table(kind, cached):
    rest, good, bad, reason = PUBLISHED[kind]
    told = []
    table = Table(KIND[kind], {}, told.append)
    where, whose = key(kind, rest, cached), origin(cached)
    name = table.put(where, good, whose)
    value = table.known[name]
    assert table.put(where, good, whose) == name
    table.flush()
    assert told == [{name: value}], "once"
    # A bad value: the last good one stays.
    assert table.put(where, bad, whose) == name
    assert table.known == {name: value}
    assert reason in table.quarantined[where.decode()]
    assert (table.status.known, list(table.status.quarantined)) == (1, [where.decode()])
    table.delete(where, whose)
    assert (table.known, table.quarantined) == ({}, {})
    table.flush()
    assert told[1:] == [{name: None}]


@pytest.mark.parametrize("kind", KIND)
@pytest.mark.parametrize("rest", [b"", b"\xff", b"a b", b"default/../x", b"/"])
def test_keys_that_name_nothing(kind, rest):
    table = Table(KIND[kind], {})
    assert table.put(key(kind, rest), PUBLISHED[kind][1], origin()) is None
    assert len(table.quarantined) == 1
    with pytest.raises(QuarantineError):
        KIND[kind].name_of(key(kind, rest), origin())
    table.delete(key(kind, rest), origin())
    assert table.quarantined == {}


def test_what_is_not_kept():
    told = []
    table = Table(KIND["ips"], {}, told.append)
    one, two = (Prefix(ipaddress.ip_address(f"10.2.0.{n}"), 32) for n in (1, 2))
    for each in (one, two):
        table.put(key("ips", str(each).encode()), json.dumps({"IP": str(each), "ID": 131100}).encode(), origin())
    table.flush()
    table.keep({two})
    assert (list(table.known), told[-1]) == ([two], {one: None})


def test_networks_of_this_cluster():
    own = (ipaddress.ip_network("10.2.0.0/16"),)
    for kind, value in (("ips", PUBLISHED["ips"][1]), ("nodes", json.dumps({**NODE, "IPv4AllocCIDR": "10.2.1.0/24"}))):
        table = Table(KIND[kind], {})
        raw = value if isinstance(value, bytes) else value.encode()
        table.put(key(kind, PUBLISHED[kind][0]), raw, origin(own=own))
        (reason,) = table.quarantined.values()
        assert "which is this cluster's own" in reason

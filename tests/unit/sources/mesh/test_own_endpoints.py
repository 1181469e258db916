"""What endpoints are to other clusters, which keys are whose, and which numbers are free."""

import ipaddress

import pytest

from datapath.etcd.operations import Change, Delete, Put
from datapath.sources.mesh.allocator import Known, own_numbers, reference_key, references_prefix
from datapath.sources.mesh.identities import parse_identity
from datapath.sources.mesh.keyspace import Keyspace
from datapath.sources.mesh.own_endpoints import has_identity, labels_of
from datapath.sources.mesh.published import Cluster
from datapath.state.model import Endpoint

C1 = Cluster("c1", 1, 255)
ADDRESS = (ipaddress.ip_address("10.1.0.5"),)
OWN, OTHER = 7, 8
KEY = b"shared/key"


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({}, "k8s:io.cilium.k8s.policy.cluster=c1;k8s:io.kubernetes.pod.namespace=default;"),
        (
            {"zone": "a", "app": "web"},
            "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=c1;k8s:io.kubernetes.pod.namespace=default;k8s:zone=a;",
        ),
        (
            {"io.cilium.k8s.policy.cluster": "c2", "io.kubernetes.pod.namespace": "shop"},
            "k8s:io.cilium.k8s.policy.cluster=c1;k8s:io.kubernetes.pod.namespace=shop;",
        ),
    ],
)
def test_labels(labels, wanted):
    found = labels_of(Endpoint("a", interface="ve-a", labels=labels, addresses=ADDRESS), "c1")
    assert found == wanted
    assert parse_identity(found.encode(), "c1", 65800).labels == wanted


def test_who_has_an_identity():
    assert has_identity(Endpoint("a", interface="ve-a", addresses=ADDRESS))
    assert not has_identity(Endpoint("a", interface="ve-a"))
    assert not has_identity(Endpoint("host", host=True, addresses=ADDRESS))


def test_numbers_that_are_given_out():
    """Cilium keeps the first 256 of cluster 0 for itself; nobody takes one for those of another."""
    assert (own_numbers(C1)[0], own_numbers(C1)[-1]) == (65536 + 256, 131071)
    assert own_numbers(Cluster("c2", 2, 511))[0] == 65536 + 256


def test_free_numbers():
    known = Known()
    for number in (1, 2, 3):
        assert known.free(range(1, 4)) not in {*known.used, None}
        known.note(number, Change(b"id", b"labels %d" % number, 1))
    assert known.free(range(1, 4)) is None
    assert known.free(range(1, 5)) == 4
    known.note(9, Change(b"9", b"labels 1", 1))
    assert known.by_labels["labels 1"][0] == 1, "every node takes the same one"


def test_references():
    assert references_prefix(C1) == "cilium/state/identities/v1/value/"
    assert reference_key(C1, "k8s:a=b;", "192.0.2.1") == b"cilium/state/identities/v1/value/k8s:a=b;/192.0.2.1"


# --- keys that all owners have side by side ---


@pytest.fixture
def keyspace():
    made = Keyspace()
    made.shared, made.lease = (b"shared/",), OWN
    made.begin([Change(b"shared/other", b"x", 1, OTHER), Change(b"shared/old", b"x", 1, OWN)], [OWN])
    return made


def test_only_own_keys_are_remembered(keyspace):
    assert not keyspace.has(b"shared/other")
    assert keyspace.own(b"shared/old") == b"x"
    assert keyspace.operations() == [Delete(b"shared/old")]
    keyspace.take([Change(b"shared/another", b"x", 2, OTHER)])
    assert not keyspace.has(b"shared/another")


def test_who_came_last_has_a_key(keyspace):
    keyspace.want({KEY: b"ours", b"shared/other": b"ours", b"shared/old": b"x"})
    wanted = [Put(KEY, b"ours", OWN), Put(b"shared/other", b"ours", OWN)]
    assert keyspace.operations() == wanted
    keyspace.written(wanted, 5)
    keyspace.settle()
    assert keyspace.own(KEY) == b"ours"
    # An older word of somebody else's is no news.
    assert not keyspace.take([Change(KEY, b"theirs", 4, OTHER)])
    assert not keyspace.take([Change(KEY, b"theirs", 6, OTHER)])
    assert (keyspace.own(KEY), keyspace.operations()) == (None, [])
    keyspace.want({KEY: None})
    assert keyspace.operations() == [], "it is theirs"
    keyspace.want({KEY: b"ours"})
    assert keyspace.operations() == []
    assert keyspace.take([Change(KEY, None, 7)])
    assert keyspace.operations() == [Put(KEY, b"ours", OWN)]


def test_a_new_session_comes_last(keyspace):
    keyspace.want({KEY: b"ours"})
    keyspace.take([Change(KEY, b"theirs", 6, OTHER)])
    keyspace.begin([Change(KEY, b"theirs", 6, OTHER)], [OWN])
    assert keyspace.operations() == [Put(KEY, b"ours", OWN)]

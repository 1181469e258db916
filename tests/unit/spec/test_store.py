"""This cluster's own store as documents say it."""

import ipaddress

import pytest

from datapath.spec.document import dump, load, merge
from datapath.spec.errors import SpecErrors
from datapath.state.model import DesiredState, MeshNode, OwnStore, StoreEndpoint

NOTHING = DesiredState()
FILES = {"ca": "/etc/c1/ca.pem", "certificate": "/etc/c1/agent.pem", "key": "/etc/c1/agent.key"}
STORE = {"endpoints": ["https://192.0.2.21:2379"], **FILES, "node": {"addresses": ["192.0.2.11"]}}


def document(store=STORE, **fields):
    options = {"config": {"cluster-name": "c1", "cluster-id": 1}}
    return {"options": options, "clustermesh": {"store": store, **fields}}


def errors(wanted, current=NOTHING):
    with pytest.raises(SpecErrors) as refused:
        merge(current, wanted)
    return refused.value.errors


def test_everything_that_a_store_can_say():
    node = {"name": "lb1", "addresses": ["192.0.2.11", "2001:db8::11"], "pod_cidrs": ["10.1.0.0/24", "fd00::/64"]}
    state = merge(NOTHING, document({**STORE, "publisher": "yes", "node": node}))
    addresses = tuple(map(ipaddress.ip_address, node["addresses"]))
    networks = tuple(map(ipaddress.ip_network, node["pod_cidrs"]))
    assert state.store == OwnStore(
        (StoreEndpoint("192.0.2.21", 2379),),
        *FILES.values(),
        MeshNode("lb1", addresses, networks),
        publisher=True,
    )
    assert load(dump(state)) == state


def test_what_counts_without_a_word():
    state = merge(NOTHING, document())
    assert (state.store.publisher, state.store.node.name, state.store.node.pod_cidrs) == (False, "", ())
    assert load(dump(state)) == state
    assert dump(NOTHING)["clustermesh"]["store"] is None


def test_a_store_stays_until_it_is_absent_or_all_is_replaced():
    state = merge(NOTHING, document())
    for stays in ({"clustermesh": {"items": []}}, {"services": {"items": []}}, {"clustermesh": None}):
        assert merge(state, stays).store == state.store
    gone = ({"store": None}, {"store": {"state": "absent"}}, {"items": [], "purge": True})
    assert [merge(state, {"clustermesh": each}).store for each in gone] == [None] * 3
    assert merge(state, {"clustermesh": {"store": STORE, "purge": True}}).store == state.store


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"endpoints": []}, "endpoints", "a store needs an endpoint"),
        ({"endpoints": ["http://a:1"]}, "endpoints[0]", "without TLS"),
        ({"ca": None}, "ca", "missing"),
        ({"key": "agent.key"}, "key", "not an absolute path"),
        ({"publisher": "perhaps"}, "publisher", "not a boolean"),
        ({"purge": True}, "purge", "unknown key"),
        ({"node": None}, "node", "missing"),
        ({"node": []}, "node", "not a mapping"),
        ({"node": {}}, "node.addresses", "a node needs an address"),
        ({"node": {"addresses": ["192.0.2.300"]}}, "node.addresses[0]", "not an"),
        ({"node": {"addresses": ["127.0.0.1"]}}, "node.addresses[0]", "cannot be used"),
        ({"node": {"addresses": ["192.0.2.1", "192.0.2.1"]}}, "node.addresses[1]", "192.0.2.1 is there twice"),
        ({"node": {"addresses": ["192.0.2.1"], "pod_cidrs": ["10.0.0.1/24"]}}, "node.pod_cidrs[0]", "is not a network"),
        ({"node": {"addresses": ["192.0.2.1"], "name": "a/b"}}, "node.name", "not the name of a node"),
        ({"node": {"addresses": ["192.0.2.1"], "names": "a"}}, "node.names", "unknown key"),
    ],
)
def test_refusals_tell_the_place(fields, path, message):
    (error,) = errors(document({**STORE, **fields}))
    assert error.path == f"clustermesh.store.{path}"
    assert message in error.message


def test_a_name_that_was_meant():
    (error,) = errors(document({**STORE, "node": {"addresses": ["192.0.2.1"], "name": "LB1"}}))
    assert error.nearest == "lb1"


def test_a_store_needs_a_cluster_with_an_id():
    wanted = {"clustermesh": {"store": STORE}}
    (error,) = errors(wanted)
    assert (error.path, "ClusterID 0 is reserved" in error.message) == ("clustermesh.store", True)
    (error,) = errors({"options": {"config": {}}}, merge(NOTHING, document()))
    assert error.path == "clustermesh.store"
    (error,) = errors({"options": {"config": {}}, "clustermesh": {"store": 7}})
    assert error.message == "not a mapping"

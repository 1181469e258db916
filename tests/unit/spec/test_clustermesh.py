"""The cluster mesh as documents say it."""

import pytest

from datapath.spec.clustermesh import dump_peer, service_name
from datapath.spec.document import dump, load, located, merge
from datapath.spec.errors import SpecErrors
from datapath.state.model import DesiredState, Peer, StoreEndpoint
from datapath.state.remote import ServiceName

NOTHING = DesiredState()
FILES = {"ca": "/etc/c2/ca.pem", "certificate": "/etc/c2/remote.pem", "key": "/etc/c2/remote.key"}
C2 = {"name": "c2", "endpoints": ["https://192.0.2.31:2379"], **FILES}


def document(*peers, services=(), **config):
    own = {"cluster-name": "c1", "cluster-id": 1, **config}
    return {
        "options": {"config": {key: value for key, value in own.items() if value is not None}},
        "services": {"items": list(services)},
        "clustermesh": {"items": list(peers)},
    }


def errors(wanted, current=NOTHING):
    with pytest.raises(SpecErrors) as refused:
        merge(current, wanted)
    return refused.value.errors


def refusal(wanted, current=NOTHING):
    (error,) = errors(wanted, current)
    return error


def test_everything_that_a_peer_can_say():
    endpoints = ["https://192.0.2.31:2379/", "https://[2001:db8::31]:2379", "https://Store.C2.example.:2380"]
    state = merge(NOTHING, document({**C2, "endpoints": endpoints}))
    wanted = (StoreEndpoint("192.0.2.31", 2379), StoreEndpoint("2001:db8::31", 2379))
    assert state.peers == (Peer("c2", (*wanted, StoreEndpoint("store.c2.example", 2380)), *FILES.values()),)
    assert load(dump(state)) == state
    assert dump_peer(state.peers[0])["endpoints"][1] == "https://[2001:db8::31]:2379"


def test_peers_merge_by_name_and_replace_all_with_purge():
    one = merge(NOTHING, document(C2, {**C2, "name": "c3"}))
    assert [each.name for each in one.peers] == ["c2", "c3"]
    absent = {"clustermesh": {"items": [{"name": "c2", "state": "absent"}]}}
    assert [each.name for each in merge(one, absent).peers] == ["c3"]
    assert merge(one, {"clustermesh": {"items": [], "purge": True}}).peers == ()
    assert merge(one, {"services": {"items": []}}).peers == one.peers


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"name": ""}, "name", "must not be empty"),
        ({"name": "C2"}, "name", "must consist of lower case"),
        ({"name": "a" * 33}, "name", "must not be more than 32 characters"),
        ({"name": "-c2"}, "name", "must consist of lower case"),
        ({"name": "c2-"}, "name", "must consist of lower case"),
        ({"name": "c_2"}, "name", "must consist of lower case"),
        ({"name": "c1"}, "name", "is this cluster itself"),
        ({"endpoints": []}, "endpoints", "a peer needs an endpoint"),
        ({"endpoints": None}, "endpoints", "a peer needs an endpoint"),
        ({"endpoints": "https://a:1"}, "endpoints", "not a list"),
        ({"endpoints": ["http://192.0.2.31:2379"]}, "endpoints[0]", "without TLS"),
        ({"endpoints": ["192.0.2.31:2379"]}, "endpoints[0]", "not the URL"),
        ({"endpoints": ["https://192.0.2.31"]}, "endpoints[0]", "an endpoint needs a port"),
        ({"endpoints": ["https://192.0.2.31:0"]}, "endpoints[0]", "out of range"),
        ({"endpoints": ["https://192.0.2.31:65536"]}, "endpoints[0]", "not a URL"),
        ({"endpoints": ["https://192.0.2.300:2379"]}, "endpoints[0]", "not an address"),
        ({"endpoints": ["https://224.0.0.1:2379"]}, "endpoints[0]", "cannot be used"),
        ({"endpoints": ["https://[fe80::1]:2379"]}, "endpoints[0]", "cannot be used"),
        ({"endpoints": ["https://[2001:db8::31:2379"]}, "endpoints[0]", "not a URL"),
        ({"endpoints": ["https://user@c2:2379"]}, "endpoints[0]", "not the URL"),
        ({"endpoints": ["https://c2:2379/v3"]}, "endpoints[0]", "not the URL"),
        ({"endpoints": ["https://c 2:2379"]}, "endpoints[0]", "not a host name"),
        ({"endpoints": ["https://:2379"]}, "endpoints[0]", "not a host name"),
        ({"endpoints": ["https://c2:1", "https://C2:1"]}, "endpoints[1]", "is the same endpoint as"),
        ({"ca": None}, "ca", "missing"),
        ({"certificate": "remote.pem"}, "certificate", "not an absolute path"),
        ({"key": "/a\nb"}, "key", "control characters"),
        ({"password": "x"}, "password", "unknown key"),
    ],
)
def test_refusals_tell_the_place(fields, path, message):
    error = refusal(document({**C2, **fields}))
    assert (error.document, error.path) == ("clustermesh", f"clustermesh.items[0].{path}")
    assert message in error.message


def test_two_of_one_name():
    assert "has the same name" in refusal(document(C2, C2)).message


def test_a_name_that_was_meant():
    assert refusal(document({**C2, "name": "Berlin"})).nearest == "berlin"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cluster-name": ""}, "must not be empty"),
        ({"cluster-name": "Berlin"}, "must consist of lower case"),
        ({"cluster-name": "a" * 33}, "must not be more than 32 characters"),
        ({"cluster-id": 256}, "must be in range 0..255"),
        ({"cluster-id": 512, "max-connected-clusters": 511}, "out of range"),
        ({"cluster-id": -1}, "out of range"),
        ({"max-connected-clusters": 256}, "--max-connected-clusters=256 is invalid; supported values are [255, 511]"),
        ({"cluster-name": None}, "cannot use default cluster name (default) with option cluster-id"),
        ({"clustermesh-cache-ttl": "-1s"}, "not a duration"),
        ({"datapath-cluster-networks": "10.0.0.1/8"}, "'10.0.0.1/8' is not a network"),
        ({"clustermesh-config": "/var/lib/cilium/clustermesh"}, "not implemented here"),
        ({"clustermesh-sync-timeout": "1m"}, "not implemented here"),
    ],
)
def test_options_that_are_refused(config, message):
    assert message in errors(document(**config))[0].message


def test_ids_of_the_larger_mesh():
    state = merge(NOTHING, document(**{"cluster-id": 511, "max-connected-clusters": 511}))
    assert state.options["cluster-id"] == 511


def test_peers_need_an_id():
    error = refusal(document(C2, **{"cluster-id": 0}))
    assert "ClusterID 0 is reserved" in error.message
    # The same where only the options change.
    state = merge(NOTHING, document(C2))
    error = refusal({"options": {"config": {}}}, state)
    assert (error.path, "ClusterID 0 is reserved" in error.message) == ("clustermesh.c2.name", True)


def test_more_peers_than_a_mesh_has():
    peers = [{**C2, "name": f"p{number}"} for number in range(255)]
    error = refusal(document(*peers))
    assert (error.path, error.message) == ("clustermesh.items[254].name", "is cluster number 256 of the mesh")


def test_places_of_later_errors():
    from dataclasses import replace

    error = replace(refusal(document({**C2, "name": "c1"})), path="clustermesh.c2.endpoints")
    assert located([error], document(C2))[0].path == "clustermesh.items[0].endpoints"


# --- services ---


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("web", ServiceName("default", "web")),
        ("shop/web", ServiceName("shop", "web")),
        ("a/b/c", None),
        ("Shop/web", None),
        ("n" * 64 + "/web", None),
    ],
)
def test_what_services_are_called_in_the_mesh(name, wanted):
    assert service_name(name) == wanted

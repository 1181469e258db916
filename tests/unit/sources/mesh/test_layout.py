import ipaddress
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.sources.mesh import layout
from datapath.sources.mesh.layout import parse_config, parse_service, parse_service_name
from datapath.sources.mesh.values import LARGEST_VALUE, QuarantineError
from datapath.state.remote import Port, RemoteService, ServiceName
from unit.sources.mesh.generated import unicast, values

WEB = ServiceName("default", "web")
# As Cilium writes it (reference, 4.2).
PUBLISHED = (
    b'{"cluster":"c1","namespace":"default","name":"web",'
    b'"frontends":{"10.96.0.10":{"http":{"Protocol":"TCP","Port":80}}},'
    b'"backends":{"10.0.1.5":{"http":{"Protocol":"TCP","Port":8080}}},"hostnames":{},'
    b'"zones":{"10.0.1.5":{"zone":"a","forZones":[{"name":"a"}]}},'
    b'"labels":{},"selector":{"app":"web"},"includeExternal":true,"shared":true,"clusterID":1}'
)


def changed(**fields):
    return json.dumps({**json.loads(PUBLISHED), **fields}).encode()


def backends(address="10.0.1.5", name="http", protocol="TCP", port=8080):
    return {address: {name: {"Protocol": protocol, "Port": port}}}


def read(raw, own=()):
    return parse_service(raw, "c1", 1, WEB, own)


def test_keys():
    assert layout.config_key("c1") == "cilium/cluster-config/c1"


def test_a_service_as_cilium_writes_it():
    service = read(PUBLISHED)
    assert service == RemoteService(
        cluster="c1",
        cluster_id=1,
        name=WEB,
        frontends={ipaddress.ip_address("10.96.0.10"): {"http": Port("TCP", 80)}},
        backends={ipaddress.ip_address("10.0.1.5"): {"http": Port("TCP", 8080)}},
        shared=True,
    )


def test_what_go_leaves_out_or_writes_as_null():
    raw = b'{"cluster":"c1","namespace":"default","name":"web","frontends":null,"backends":null,"clusterID":1}'
    service = read(raw)
    assert (service.frontends, service.backends, service.shared) == ({}, {}, False)


def test_fields_of_later_versions_are_no_reason():
    assert read(changed(brandNew=[1, {"x": None}])) == read(PUBLISHED)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (changed(cluster="c2"), "cluster: 'c2' is not 'c1'"),
        (changed(cluster=None), "cluster: None"),
        (changed(namespace="kube-system"), "namespace: 'kube-system' is not 'default'"),
        (changed(name="other"), "name: 'other' is not 'web'"),
        (changed(clusterID=2), "clusterID: 2 is not 1"),
        (changed(clusterID=True), "clusterID: True is not 1"),
        (changed(clusterID="1"), "clusterID: '1' is not 1"),
        (changed(shared="yes"), "shared: 'yes' is not a boolean"),
        (changed(backends=[]), "backends: [] is not an object"),
        (changed(backends={"10.0.1.5": None}), "backends.10.0.1.5: None is not an object"),
        (changed(backends=backends("ten")), "backends: 'ten' is not an address"),
        (changed(backends=backends("10.0.1.5/32")), "is not an address"),
        (changed(backends=backends("127.0.0.1")), "backends: 127.0.0.1 cannot be used"),
        (changed(backends=backends("0.0.0.0")), "backends: 0.0.0.0 cannot be used"),
        (changed(backends=backends("224.0.0.1")), "backends: 224.0.0.1 cannot be used"),
        (changed(backends=backends("255.255.255.255")), "cannot be used"),
        (changed(backends=backends("fe80::1")), "backends: fe80::1 cannot be used"),
        (changed(backends=backends("::ffff:10.0.1.5")), "cannot be used"),
        (changed(backends={**backends("fd00::1"), **backends("fd00:0::1")}), "backends: fd00::1 is there twice"),
        (changed(backends=backends(port=0)), "0 is not a port"),
        (changed(backends=backends(port=65536)), "65536 is not a port"),
        (changed(backends=backends(port=True)), "True is not a port"),
        (changed(backends=backends(port=80.0)), "80.0 is not a port"),
        (changed(backends=backends(protocol="ICMP")), "no protocol"),
        (changed(backends=backends(protocol=["TCP"])), "no protocol"),
        (changed(backends=backends(name="http\n")), "not the name of a port"),
        (changed(frontends=backends("ten")), "frontends: 'ten' is not an address"),
        (changed(labels={"x": "y" * LARGEST_VALUE}), "bytes are more than 1048576"),
    ],
)
def test_quarantine(raw, reason):
    with pytest.raises(QuarantineError) as caught:
        read(raw)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


def test_backends_in_networks_of_this_cluster():
    own = [ipaddress.ip_network("fd00::/8"), ipaddress.ip_network("10.0.0.0/16")]
    with pytest.raises(QuarantineError, match=r"10\.0\.1\.5 is in 10\.0\.0\.0/16, which is this cluster's own"):
        read(PUBLISHED, own)
    assert read(PUBLISHED, own[:1]) == read(PUBLISHED)


@pytest.mark.parametrize(
    ("rest", "name"), [("default/web", WEB), ("kube-system/a.b-c_D", ServiceName("kube-system", "a.b-c_D"))]
)
def test_names_of_services(rest, name):
    assert parse_service_name(rest) == name


@pytest.mark.parametrize(
    "rest", ["", "web", "/web", "default/", "default/a/b", "Default/web", "default/web ", "dä/web", "a\n/b"]
)
def test_names_that_are_no_services(rest):
    with pytest.raises(QuarantineError):
        parse_service_name(rest)


def test_what_a_cluster_says_of_itself():
    raw = b'{"id":1,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255,"serviceExportsEnabled":false}}'
    assert parse_config(raw) == layout.ClusterConfig(1, True, 255, False)
    raw = b'{"id":300,"capabilities":{"maxConnectedClusters":511,"cached":true}}'
    assert parse_config(raw) == layout.ClusterConfig(300, False, 511, True)
    assert parse_config(b'{"id":7}') == layout.ClusterConfig(7, False, 255, False)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{}", "id: 0 is not the id"),
        (b'{"id":0}', "id: 0 is not the id"),
        (b'{"id":256}', "id: 256 is more than maxConnectedClusters, which is 255"),
        (b'{"id":512,"capabilities":{"maxConnectedClusters":511}}', "id: 512 is not 0 to 511"),
        (b'{"id":-1}', "id: -1 is not"),
        (b'{"id":"1"}', "id: '1' is not"),
        (b'{"id":true}', "id: True is not"),
        (b'{"id":1,"capabilities":{"maxConnectedClusters":256}}', "256 is not 255 or 511"),
        (b'{"id":1,"capabilities":[]}', "capabilities: [] is not an object"),
        (b'{"id":1,"capabilities":{"syncedCanaries":"true"}}', "syncedCanaries: 'true' is not a boolean"),
    ],
)
def test_what_a_cluster_cannot_be(raw, reason):
    with pytest.raises(QuarantineError) as caught:
        parse_config(raw)
    assert reason in str(caught.value)


# --- properties ---

ports = st.dictionaries(
    st.sampled_from(["", "http", "metrics", "a.b-c_D"]),
    st.builds(Port, st.sampled_from(layout.PROTOCOLS), st.integers(1, 65535)),
    max_size=2,
)
places = st.dictionaries(unicast, ports, max_size=3)
services = st.builds(RemoteService, st.just("c1"), st.just(1), st.just(WEB), places, places, st.booleans())


@given(services)
def test_what_is_written_is_read(service):
    assert read(layout.dump_service(service)) == service


@pytest.mark.parametrize("parse", [read, parse_config])
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_read_or_quarantined(parse, raw):
    with suppress(QuarantineError):
        parse(raw)


@given(services, st.sampled_from(sorted(json.loads(PUBLISHED))), values)
def test_any_field_may_be_anything(service, field, value):
    raw = json.dumps({**json.loads(layout.dump_service(service)), field: value}).encode()
    try:
        found = read(raw)
    except QuarantineError:
        return
    assert (found.cluster, found.cluster_id, found.name) == ("c1", 1, WEB)
    for address, named in found.backends.items():
        assert not any((address.is_loopback, address.is_multicast, address.is_unspecified))
        assert all(port.protocol in layout.PROTOCOLS and 0 < port.number < 65536 for port in named.values())

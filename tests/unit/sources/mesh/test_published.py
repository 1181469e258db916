"""What a cluster publishes, and when it is worked out."""

import datetime
import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.sources.mesh import layout, published
from datapath.sources.mesh.layout import ClusterConfig, dump_config, dump_service, parse_config, parse_service
from datapath.sources.mesh.nodes import parse_node
from datapath.sources.mesh.published import Cluster, PublishedServices, config_value, node_key, node_value, timestamp
from datapath.sources.mesh.session import heartbeat_time
from datapath.spec import document
from datapath.state.merged import HealthKey
from datapath.state.model import DesiredState, MeshNode
from datapath.state.remote import Port, RemoteService, ServiceName

IP = ipaddress.ip_address
C1 = Cluster("c1", 1, 255)
WEB = b"cilium/state/services/v1/c1/default/web"


def services(*items):
    return document.merge(DesiredState(), {"services": {"items": list(items)}}).services


def web(*backends, name="web", frontends=("192.0.2.1:80",), **fields):
    item = {
        "name": name,
        "frontends": list(frontends),
        "backends": list(backends) or ["10.1.0.1:8080", "10.1.0.2:8080"],
    }
    return {**item, "health_check": {"type": "tcp"}, "global": True, **fields}


def failed(*numbers, service="web"):
    return {HealthKey(service, IP(f"10.1.0.{n}"), 8080): False for n in numbers}


def found(value):
    """Backends of a value: address -> port name -> PROTOCOL/PORT."""
    backends = json.loads(value)["backends"]
    return {
        address: {name: f"{port['Protocol']}/{port['Port']}" for name, port in ports.items()}
        for address, ports in backends.items()
    }


def values(*items, health=()):
    changes = PublishedServices(C1).update(services(*items), dict(health))
    return {key.decode().rpartition("/c1/")[2]: value for key, value in changes.items()}


def test_bytes_are_those_of_cilium():
    (value,) = values(web("10.1.0.1:8080", port_name="http")).values()
    assert value == (
        b'{"cluster":"c1","namespace":"default","name":"web",'
        b'"frontends":{"192.0.2.1":{"http":{"Protocol":"TCP","Port":80}}},'
        b'"backends":{"10.1.0.1":{"http":{"Protocol":"TCP","Port":8080}}},'
        b'"hostnames":{},"labels":{},"selector":{},"includeExternal":true,"shared":true,"clusterID":1}'
    )
    assert config_value(C1) == (
        b'{"id":1,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255,"serviceExportsEnabled":false}}'
    )


def test_only_global_services_are_published():
    assert list(values(web(), web(name="other", frontends=["192.0.2.2:80"], **{"global": False}))) == ["default/web"]


@pytest.mark.parametrize(
    ("backend", "health", "wanted"),
    [
        ({}, {}, True),
        ({"weight": 1}, {}, True),
        ({"weight": 0}, {}, False),
        ({"state": "maintenance"}, {}, False),
        ({"state": "terminating"}, {}, False),
        ({"state": "quarantined"}, {}, False),
        ({}, failed(1), False),
        ({}, {**failed(1), **dict.fromkeys(failed(1), True)}, True),
    ],
)
def test_backends_that_others_may_use(backend, health, wanted):
    (value,) = values(web({"address": "10.1.0.1:8080", **backend}), health=health).values()
    assert bool(found(value)) is wanted


def test_without_a_healthy_backend_there_is_none_even_where_all_serve_at_home():
    item = web(health_check={"type": "tcp", "all_failed": "open"})
    (value,) = values(item, health=failed(1, 2)).values()
    assert found(value) == {}


def test_services_that_are_one_in_the_mesh():
    http = {"mesh_name": "shop/web", "shared": False, "port_name": "http"}
    items = [
        web("10.1.0.1:8080", **http),
        web("10.1.0.1:9090", name="metrics", frontends=["192.0.2.1:9090"], **{**http, "port_name": "metrics"}),
        web("[fd00::1]:8080", name="web6", frontends=["[2001:db8::1]:80"], **http),
        web(
            "10.1.0.3:53",
            name="dns",
            frontends=["192.0.2.1:53/UDP", "192.0.2.1:53/TCP"],
            **{**http, "port_name": "dns"},
        ),
    ]
    ((name, value),) = values(*items).items()
    assert name == "shop/web"
    assert found(value) == {
        "10.1.0.1": {"http": "TCP/8080", "metrics": "TCP/9090"},
        "10.1.0.3": {"dns-tcp": "TCP/53", "dns-udp": "UDP/53"},
        "fd00::1": {"http": "TCP/8080"},
    }
    document = json.loads(value)
    assert document["shared"] is False
    assert document["frontends"]["192.0.2.1"]["dns-udp"] == {"Protocol": "UDP", "Port": 53}


def test_what_is_published_is_what_others_read():
    for name, value in values(web(mesh_name="shop/web"), health=failed(2)).items():
        service = parse_service(value, "c1", 1, ServiceName(*name.split("/")))
        assert dict(service.backends) == {IP("10.1.0.1"): {"": Port("TCP", 8080)}}
        assert service.shared


def test_only_what_changed_is_worked_out(monkeypatch):
    counted = []
    monkeypatch.setattr(
        published, "dump_service", lambda service: counted.append(str(service.name)) or dump_service(service)
    )
    items = [web(name=f"s{n}", frontends=[f"192.0.2.1:{n}"]) for n in range(1, 6)]
    publishing = PublishedServices(C1)
    assert len(publishing.update(services(*items), {})) == 5
    counted.clear()
    assert publishing.update(services(*items), {}) == {}
    assert publishing.health_changed(dict.fromkeys(failed(1, service="s2"), True)) == {}
    assert publishing.health_changed(failed(1, service="nobody's")) == {}
    (key,) = publishing.health_changed(failed(1, service="s2"))
    assert key.endswith(b"/s2")
    assert publishing.update(services(*items), failed(1, service="s2")) == {}
    changes = publishing.update(services(*items[1:], web(name="new", frontends=["192.0.2.1:99"])), {})
    assert {key.decode().rpartition("/")[2]: value is None for key, value in changes.items()} == {
        "s1": True,
        "s2": False,
        "new": False,
    }
    assert counted == ["default/s2", "default/new", "default/s2"]


def test_health_of_backends_that_are_gone_is_forgotten():
    publishing = PublishedServices(C1)
    for number in range(1, 100):
        publishing.update(services(web(f"10.1.0.{number}:8080")), failed(number))
    assert len(publishing._health) == 1


def test_a_service_that_is_too_large_is_not_published(monkeypatch):
    monkeypatch.setattr(published, "LARGEST_VALUE", 280)
    publishing = PublishedServices(C1)
    assert list(publishing.update(services(web()), {}).values()) == [None]
    assert list(publishing.oversized) == [ServiceName("default", "web")]
    (value,) = publishing.update(services(web("10.1.0.1:8080")), {}).values()
    assert value is not None
    assert publishing.oversized == {}


def test_nodes():
    networks = tuple(map(ipaddress.ip_network, ("fd00:1::/64", "10.1.0.0/24", "10.9.0.0/24")))
    node = MeshNode("lb1", (IP("192.0.2.1"), IP("2001:db8::1")), networks)
    assert node_key(C1, "lb1") == b"cilium/state/nodes/v1/c1/lb1"
    value = node_value(C1, "lb1", node)
    read = parse_node(value, "c1", 1, "lb1")
    assert [(each.type, str(each.address)) for each in read.addresses] == [
        ("InternalIP", "192.0.2.1"),
        ("InternalIP", "2001:db8::1"),
    ]
    assert [str(each) for each in read.pod_cidrs] == ["10.1.0.0/24", "10.9.0.0/24", "fd00:1::/64"]
    assert json.loads(value)["IPv4AllocCIDR"] == {"IP": "10.1.0.0", "Mask": "////AA=="}
    assert json.loads(value)["IPv4SecondaryAllocCIDRs"] == [{"IP": "10.9.0.0", "Mask": "////AA=="}]


def test_times_are_those_of_go():
    when = datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=datetime.timezone.utc)
    assert timestamp(when) == b"2026-01-02T03:04:05Z"
    assert heartbeat_time(timestamp(when)) == when.replace(microsecond=0).timestamp()


ports = st.dictionaries(
    st.from_regex(r"[a-z]{0,5}", fullmatch=True),
    st.builds(Port, st.sampled_from(layout.PROTOCOLS), st.integers(1, 65535)),
    max_size=3,
)
addresses = st.integers(0x0A000001, 0x0AFFFFFE).map(IP) | st.integers(1, 1 << 32).map(lambda n: IP((0xFD << 120) + n))
places = st.dictionaries(addresses, ports, max_size=4)
names = st.builds(
    ServiceName, st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.from_regex(r"[a-z]{1,9}", fullmatch=True)
)


@given(st.builds(RemoteService, st.just("c1"), st.integers(1, 511), names, places, places, st.booleans()))
def test_services_are_read_as_they_are_written(service):
    assert parse_service(dump_service(service), "c1", service.cluster_id, service.name) == service


@given(st.builds(ClusterConfig, st.integers(1, 255), st.booleans(), st.sampled_from((255, 511)), st.booleans()))
def test_clusters_are_read_as_they_are_written(config):
    assert parse_config(dump_config(config)) == config

"""Which of another cluster's backends serve a service of this node."""

import ipaddress
from dataclasses import replace

import pytest

from datapath.sources.merge import Known, Merger, merge
from datapath.spec import document
from datapath.state.merged import HealthKey
from datapath.state.model import DesiredState
from datapath.state.remote import Port, RemoteService, ServiceName

IP = ipaddress.ip_address
FILES = {"ca": "/ca", "certificate": "/certificate", "key": "/key"}
HTTP = {"http": Port("TCP", 8080)}
LOCAL, REMOTE, BOTH = {1, 2}, {101, 102}, {1, 2, 101, 102}


def published(*addresses, cluster="c2", name="web", frontends=None, shared=True, ports=HTTP):
    places = {IP(each) if isinstance(each, str) else IP(f"10.0.1.{each}"): ports for each in addresses}
    frontends = {IP("10.96.0.1"): {"http": Port("TCP", 80)}} if frontends is None else frontends
    return RemoteService(cluster, 2, ServiceName("default", name), frontends, places, shared)


def known(*services, failed=()):
    remote = {}
    for each in services:
        remote.setdefault(each.cluster, {})[each.name] = each
    return Known({HealthKey("web", IP(f"10.0.0.{n}"), 8080): False for n in failed}, remote)


def desired(affinity="none", backends=(1, 2), frontends=("192.0.2.1:80",), peers=("c2", "c3"), states=(), **config):
    items = [
        {"address": f"10.0.0.{n}:8080", "state": dict(states).get(n, "active")} if isinstance(n, int) else n
        for n in backends
    ]
    web = {"name": "web", "frontends": list(frontends), "backends": items, "health_check": {"type": "tcp"}}
    web.update({"global": True, "affinity": affinity})
    stores = [{"name": name, "endpoints": [f"https://{name}:2379"], **FILES} for name in peers]
    return document.merge(
        DesiredState(),
        {
            "options": {"config": {"cluster-name": "c1", "cluster-id": 1, **config}},
            "services": {"items": [web]},
            "clustermesh": {"items": stores},
        },
    )


def table(state, what):
    """Numbers of the backends in the table: N of 10.0.0.N, 100 + N of 10.0.1.N."""
    merger = Merger(state, what)
    (whole,) = merger.merge().services
    assert merger.merge_service(state.services[0]) == whole
    assert tuple(each.backend for each in whole.backends) == whole.service.backends
    numbers = {each.backend: each.backend.address.packed for each in whole.backends if each.in_table}
    return {packed[3] + 100 * packed[2] for packed in numbers.values()}


# The rows of the reference: affinity, what fails locally, what is published -> who serves.
@pytest.mark.parametrize(
    ("affinity", "failed", "remote", "wanted"),
    [
        ("none", (), (1, 2), BOTH),
        ("none", (1,), (1, 2), BOTH - {1}),
        ("none", (1, 2), (1, 2), REMOTE),
        ("none", (), (), LOCAL),
        ("none", (1, 2), (), set()),
        ("local", (), (1, 2), LOCAL),
        ("local", (1,), (1, 2), {2}),
        ("local", (1, 2), (1, 2), REMOTE),
        ("local", (1, 2), (), set()),
        ("local", (), (), LOCAL),
        ("remote", (), (1, 2), REMOTE),
        ("remote", (1, 2), (1, 2), REMOTE),
        ("remote", (), (), LOCAL),
        ("remote", (1,), (), {2}),
        ("remote", (1, 2), (), set()),
    ],
)
def test_selection(affinity, failed, remote, wanted):
    assert table(desired(affinity), known(published(*remote), failed=failed)) == wanted


def test_without_local_backends_the_remote_ones_serve():
    for affinity in ("none", "local", "remote"):
        assert table(desired(affinity, backends=()), known(published(1, 2))) == REMOTE


def test_local_terminating_ones_give_way_to_remote_ones():
    """Only active ones count for affinity local (reference, 4.4); alone they serve."""
    state = desired("local", states={1: "terminating", 2: "maintenance"}.items())
    assert table(state, known(published(1, 2))) == REMOTE
    assert table(state, known()) == {1}
    assert table(desired("remote", states={1: "terminating", 2: "maintenance"}.items()), known()) == {1}


def test_what_is_not_selected_is_known_still():
    """Flows that a failover has brought there stay."""
    (whole,) = merge(desired("local"), known(published(1, 2))).services
    assert [(each.cluster, each.state.name, each.in_table) for each in whole.backends] == [
        ("", "ACTIVE", True),
        ("", "ACTIVE", True),
        ("c2", "ACTIVE", False),
        ("c2", "ACTIVE", False),
    ]


def test_what_is_not_used():
    assert table(desired(), known(published(1, shared=False))) == LOCAL
    assert table(desired(), known(published(1, name="other"))) == LOCAL
    assert table(desired(peers=["c3"]), known(published(1))) == LOCAL
    assert table(desired(), known(published("2001:db8::1"))) == LOCAL
    plain = {"services": {"items": [{"name": "web", "frontends": ["192.0.2.1:80"], "backends": ["10.0.0.1:8080"]}]}}
    assert table(document.merge(desired(), plain), known(published(1))) == {1}


def test_a_backend_of_several_clusters_is_one():
    (whole,) = merge(desired(), known(published(1, 2), published(2, 3, cluster="c3"))).services
    assert [each.cluster for each in whole.backends] == ["", "", "c2", "c2", "c3"]
    same = known(published("10.0.0.1", "10.0.1.1"))
    (whole,) = merge(desired(), same).services
    assert [each.cluster for each in whole.backends] == ["", "", "c2"]


def ports_of(service, frontends=("192.0.2.1:80",)):
    merged = merge(desired(backends=(), frontends=frontends), known(service))
    return [str(each.backend) for each in merged.services[0].backends], merged.remarks


TWO = {"http": Port("TCP", 8080), "metrics": Port("TCP", 9090)}
DNS = {"dns": Port("UDP", 5353), "dns-tcp": Port("TCP", 5353)}
DNS_FRONTENDS = {IP("10.96.0.1"): {"dns": Port("UDP", 53), "dns-tcp": Port("TCP", 53)}}


@pytest.mark.parametrize(
    ("service", "frontends", "wanted"),
    [
        # by the frontend's port
        (published(1, ports=TWO, frontends={IP("10.96.0.1"): {"http": Port("TCP", 80)}}), ["192.0.2.1:80"], 8080),
        (published(1, ports=TWO, frontends={IP("10.96.0.1"): {"metrics": Port("TCP", 80)}}), ["192.0.2.1:80"], 9090),
        # as the only one, whatever its name and the frontend
        (published(1, ports={"": Port("TCP", 8080)}, frontends={}), ["192.0.2.1:80"], 8080),
        (published(1, frontends={IP("10.96.0.1"): {"http": Port("TCP", 81)}}), ["192.0.2.1:80"], 8080),
        # both protocols
        (published(1, ports=DNS, frontends=DNS_FRONTENDS), ["192.0.2.1:53/UDP", "192.0.2.1:53/TCP"], 5353),
        (published(1, ports=DNS, frontends=DNS_FRONTENDS), ["192.0.2.1:53/UDP"], 5353),
    ],
)
def test_ports(service, frontends, wanted):
    assert ports_of(service, frontends) == ([f"10.0.1.1:{wanted}"], ())


@pytest.mark.parametrize(
    ("service", "frontends"),
    [
        (published(1, ports=TWO, frontends={}), ["192.0.2.1:80"]),
        (published(1, ports=TWO, frontends={IP("10.96.0.1"): TWO}), ["192.0.2.1:80"]),
        (published(1, ports={"dns": Port("UDP", 53)}, frontends={}), ["192.0.2.1:53/TCP"]),
        (published(1, ports={"dns": Port("UDP", 53)}, frontends={}), ["192.0.2.1:53/TCP", "192.0.2.1:53/UDP"]),
    ],
)
def test_ports_that_are_not_the_services(service, frontends):
    backends, (remark,) = ports_of(service, frontends)
    assert backends == []
    assert remark.startswith("cluster c2: service default/web: none of its ports is one that this node's service has")


def test_a_backend_without_the_port_of_one_protocol():
    uneven = {"dns": Port("UDP", 53), "dns-tcp": Port("TCP", 5353)}
    service = published(1, ports=uneven, frontends=DNS_FRONTENDS)
    assert ports_of(service, ["192.0.2.1:53/UDP", "192.0.2.1:53/TCP"]) == ([], ())


def test_a_vip_of_this_node():
    merged = merge(desired(), known(published("192.0.2.1", 1)))
    assert len(merged.services[0].backends) == 3
    assert merged.remarks == ("cluster c2: service default/web: backend 192.0.2.1:8080 is a VIP of this node",)


@pytest.mark.parametrize(
    "config", [{"bpf-lb-maglev-table-size": 251}, {"bpf-lb-service-backend-map-max": 251, "bpf-lb-map-max": 65536}]
)
def test_as_many_as_fit(config):
    many = published(*(f"10.1.{n // 200}.{1 + n % 200}" for n in range(600)))
    merged = merge(desired(**config), known(many))
    assert len(merged.services[0].backends) == 251
    assert merged.crowded
    assert "600 backends of other clusters, of which 249 fit" in merged.remarks[0]


def test_local_backends_come_first_even_where_they_are_too_many():
    local = [f"10.2.{n // 200}.{1 + n % 200}:80" for n in range(300)]
    merged = merge(desired(backends=local, **{"bpf-lb-service-backend-map-max": 251}), known(published(1)))
    assert len(merged.services[0].backends) == 300


def test_all_failed_open_is_for_when_nobody_is_left():
    state = desired("local")
    check = {"type": "tcp", "all_failed": "open"}
    item = {"name": "web", "frontends": ["192.0.2.1:80"], "backends": ["10.0.0.1:8080", "10.0.0.2:8080"]}
    wanted = {"services": {"items": [{**item, "health_check": check, "global": True}]}}
    state = document.merge(state, wanted)
    assert table(state, known(published(1, 2), failed=(1, 2))) == REMOTE
    assert table(state, known(failed=(1, 2))) == LOCAL


def test_the_ports_own_name_counts_first():
    """Before the frontend's port, which may be another in each cluster."""
    both = {"web": Port("TCP", 8080), "admin": Port("TCP", 9090)}
    places = {IP("10.96.0.1"): {"web": Port("TCP", 8000), "admin": Port("TCP", 80)}}
    service = published(1, frontends=places, ports=both)
    state = desired()
    ports = {}
    for name in ("", "web", "admin", "other"):
        named = replace(state.services[0], port_name=name)
        foreign = merge(replace(state, services=(named,)), known(service)).services[0].backends[2:]
        ports[name] = [each.backend.port for each in foreign]
    assert ports == {"": [9090], "web": [8080], "admin": [9090], "other": [9090]}


def test_several_frontends_of_one_port_are_no_riddle():
    places = {IP("10.96.0.1"): {"web": Port("TCP", 80), "web-81": Port("TCP", 81)}}
    same = {"web": Port("TCP", 8080), "web-81": Port("TCP", 8080)}
    state = desired(frontends=("192.0.2.1:80", "192.0.2.1:81"))
    assert table(state, known(published(1, frontends=places, ports=same))) == {1, 2, 101}
    others = {**same, "web-81": Port("TCP", 8081)}
    assert table(state, known(published(1, frontends=places, ports=others))) == LOCAL


def test_services_that_are_one_in_the_mesh():
    state = desired()
    item = {"name": "shop", "frontends": ["192.0.2.1:81"], "global": True, "mesh_name": "web", "port_name": "admin"}
    state = document.merge(state, {"services": {"items": [item]}})
    ports = {"http": Port("TCP", 8080), "admin": Port("TCP", 9090)}
    merged = merge(state, known(published(1, ports=ports)))
    found = {each.service.name: [str(row.backend) for row in each.backends if row.cluster] for each in merged.services}
    assert found == {"web": ["10.0.1.1:8080"], "shop": ["10.0.1.1:9090"]}

"""Services as manifests of Kubernetes describe them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.spec.document import dump, load, located, merge
from datapath.spec.errors import SpecError, SpecErrors
from datapath.spec.fields import Violations
from datapath.spec.service_annotations import GLOBAL, WEIGHT
from datapath.spec.service_manifests import read
from datapath.state.model import Affinity, Algorithm, Backend, BackendState, DesiredState, Mode, Protocol

NOTHING = DesiredState()
AT = "services.manifests[0]"
HTTP = {"name": "http", "port": 80, "targetPort": "web"}
WORDS = (
    *("apiVersion", "kind", "metadata", "spec", "status", "ports", "name", "port", "clusterIP", "clusterIPs", "items"),
    *("annotations", "labels", "addressType", "endpoints", "addresses", "conditions", "loadBalancer", "ingress"),
)


def service(ports=(HTTP,), annotations=None, name="web", namespace="shop", status=None, **spec):
    """A Service with the address 192.0.2.10, unless told otherwise."""
    metadata = {"name": name, "namespace": namespace, "annotations": annotations, "uid": "5a1c"}
    document = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
    return {**document, "spec": {"clusterIP": "192.0.2.10", "ports": list(ports), **spec}, "status": status}


def part(endpoints, ports=({"name": "http", "port": 8080},), service="web", family="IPv4", annotations=None):
    """An EndpointSlice, of addresses or of endpoints."""
    rows = [{"addresses": [each]} if isinstance(each, str) else each for each in endpoints]
    labels = {"kubernetes.io/service-name": service}
    metadata = {"name": "web-1", "namespace": "shop", "labels": labels, "annotations": annotations}
    document = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
    return {**document, "addressType": family, "ports": list(ports), "endpoints": rows}


def document(*manifests, options=None, **section):
    found = {"services": {"manifests": list(manifests), **section}}
    return {**found, "options": {"config": options}} if options else found


def services(*manifests, **more):
    return {each.name: each for each in merge(NOTHING, document(*manifests, **more)).services}


def errors(*manifests, **more):
    with pytest.raises(SpecErrors) as refused:
        merge(NOTHING, document(*manifests, **more))
    return refused.value.errors


def addresses(found):
    return [str(each) for each in found.frontends]


# --- what a Service is here ---


def test_a_service_with_its_endpoints():
    found = services(service(), part(["10.1.0.11", "10.1.0.12"]))
    assert list(found) == ["shop/web/http"]
    web = found["shop/web/http"]
    assert addresses(web) == ["192.0.2.10:80/TCP"]
    assert list(map(str, web.backends)) == ["10.1.0.11:8080", "10.1.0.12:8080"]
    assert (web.is_global, web.affinity, web.algorithm, web.mode) == (False, Affinity.NONE, None, None)


def test_every_port_and_family_is_a_service_and_in_the_mesh_they_are_one():
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]
    slices = [
        part(
            [address],
            [{"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "dns-tcp", "port": 5353}],
            family=kind,
        )
        for address, kind in (("10.1.0.11", "IPv4"), ("2001:db8:1::11", "IPv6"))
    ]
    both = ["192.0.2.10", "2001:db8::10"]
    found = services(service(ports, {"service.cilium.io/global": "true"}, clusterIPs=both), *slices)
    assert sorted(found) == ["shop/web/dns", "shop/web/dns-tcp", "shop/web/dns-tcp/ipv6", "shop/web/dns/ipv6"]
    assert addresses(found["shop/web/dns/ipv6"]) == ["[2001:db8::10]:53/UDP"]
    assert str(found["shop/web/dns-tcp/ipv6"].backends[0]) == "[2001:db8:1::11]:5353"
    assert {each.mesh_name for each in found.values()} == {"shop/web"}
    assert {(each.port_name, each.frontends[0].protocol) for each in found.values()} == {
        ("dns", Protocol.UDP),
        ("dns-tcp", Protocol.TCP),
    }


def test_a_port_without_a_name_is_called_by_its_number_and_a_namespace_is_default():
    manifest = service([{"port": 80}], {"service.cilium.io/global": "true"}, namespace=None)
    slices = part(["10.1.0.11"], [{"port": 8080}])
    del slices["metadata"]["namespace"]
    (found,) = services(manifest, slices).values()
    assert (found.name, found.mesh_name, found.port_name) == ("default/web/80", "default/web", "")
    assert len(found.backends) == 1


def test_addresses_of_every_kind_each_once():
    balancer = {"loadBalancer": {"ingress": [{"ip": "192.0.2.12", "ipMode": "VIP"}, {"ip": "192.0.2.13"}]}}
    manifest = service(
        annotations={"lbipam.cilium.io/ips": "192.0.2.14, 192.0.2.13"},
        type="LoadBalancer",
        clusterIPs=["192.0.2.10"],
        externalIPs=["192.0.2.11"],
        loadBalancerIP="192.0.2.12",
        status=balancer,
    )
    (found,) = services(manifest).values()
    assert addresses(found) == [f"192.0.2.{number}:80/TCP" for number in (11, 10, 12, 13, 14)]


@pytest.mark.parametrize(("only", "expected"), [("ClusterIP", "192.0.2.10"), ("LoadBalancer", "192.0.2.12")])
def test_one_kind_of_address_only_and_no_node_ports(only, expected):
    manifest = service(
        [{**HTTP, "nodePort": 30080}],
        {"service.cilium.io/type": only},
        type="LoadBalancer",
        status={"loadBalancer": {"ingress": [{"ip": "192.0.2.12"}]}},
    )
    (found,) = services(manifest).values()
    assert addresses(found) == [f"{expected}:80/TCP"]


def test_conditions_of_endpoints():
    rows = [
        {"addresses": ["10.1.0.1"], "conditions": {}},
        {"addresses": ["10.1.0.2"], "conditions": {"ready": True, "serving": None}, "nodeName": "n1", "zone": "a"},
        {"addresses": ["10.1.0.3"], "conditions": {"ready": False, "serving": True, "terminating": True}},
        {"addresses": ["10.1.0.4"], "conditions": {"ready": False, "serving": False, "terminating": True}},
        {"addresses": ["10.1.0.5"], "conditions": {"ready": False, "serving": True}},
    ]
    (found,) = services(service(), part(rows)).values()
    states = {str(each.address): each.state for each in found.backends}
    assert states == {
        "10.1.0.1": BackendState.ACTIVE,
        "10.1.0.2": BackendState.ACTIVE,
        "10.1.0.3": BackendState.TERMINATING,
    }


def test_weights_of_slices_and_an_endpoint_that_is_in_two():
    heavy = part(["10.1.0.1", "10.1.0.2"], annotations={"service.cilium.io/weight": "300"})
    none = part(["10.1.0.2", "10.1.0.3"], annotations={"service.cilium.io/weight": "0"})
    (found,) = services(service(), heavy, none).values()
    weights = {str(each.address): each.weight for each in found.backends}
    assert weights == {"10.1.0.1": 300, "10.1.0.2": 300, "10.1.0.3": 0}


def test_lists_of_objects():
    everything = {"apiVersion": "v1", "kind": "List", "items": [service(), part(["10.1.0.11"])]}
    (found,) = services(everything).values()
    assert len(found.backends) == 1
    bare = {key: value for key, value in service().items() if key not in ("kind", "apiVersion")}
    assert list(services({"apiVersion": "v1", "kind": "ServiceList", "items": [bare]})) == ["shop/web/http"]


def test_manifests_beside_items_and_purge():
    item = {"name": "dns", "frontends": ["192.0.2.53:53/UDP"]}
    state = merge(NOTHING, document(service(), items=[item]))
    assert [each.name for each in state.services] == ["dns", "shop/web/http"]
    assert load(dump(state)) == state
    assert len(merge(state, document(service())).services) == 2
    assert len(merge(state, document(service(), purge=True)).services) == 1
    again = service(externalIPs=["192.0.2.99"])
    assert addresses(merge(state, document(again)).services[1]) == ["192.0.2.99:80/TCP", "192.0.2.10:80/TCP"]


# --- annotations ---


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (None, (False, True, Affinity.NONE)),
        ({"service.cilium.io/global": "true"}, (True, True, Affinity.NONE)),
        ({"io.cilium/global-service": "TRUE"}, (True, True, Affinity.NONE)),
        ({"io.cilium/global-service": True}, (True, True, Affinity.NONE)),
        # Everything but true is false; the newer name counts where both are there.
        ({"service.cilium.io/global": "yes"}, (False, True, Affinity.NONE)),
        ({"service.cilium.io/global": "false", "io.cilium/global-service": "true"}, (False, True, Affinity.NONE)),
        ({"service.cilium.io/global": "true", "io.cilium/global-service": "false"}, (True, True, Affinity.NONE)),
        ({"service.cilium.io/global": "", "io.cilium/global-service": "true"}, (False, True, Affinity.NONE)),
        # Of a service that is not global, the others say nothing.
        ({"service.cilium.io/shared": "true", "service.cilium.io/affinity": "local"}, (False, True, Affinity.NONE)),
        ({"io.cilium/global-service": "true", "io.cilium/shared-service": "False"}, (True, False, Affinity.NONE)),
        ({"io.cilium/global-service": "true", "service.cilium.io/shared": "no"}, (True, False, Affinity.NONE)),
        ({"io.cilium/global-service": "true", "io.cilium/service-affinity": "Local"}, (True, True, Affinity.LOCAL)),
        ({"io.cilium/global-service": "true", "service.cilium.io/affinity": "remote"}, (True, True, Affinity.REMOTE)),
        ({"io.cilium/global-service": "true", "service.cilium.io/affinity": ""}, (True, True, Affinity.NONE)),
        ({"io.cilium/global-service": "true", "service.cilium.io/affinity": "none"}, (True, True, Affinity.NONE)),
        # Somebody else's.
        ({"kubectl.kubernetes.io/last-applied-configuration": "{}"}, (False, True, Affinity.NONE)),
    ],
)
def test_sharing_is_as_cilium_reads_it(annotations, expected):
    (found,) = services(service(annotations=annotations)).values()
    assert (found.is_global, found.shared, found.affinity) == expected


def test_algorithm_and_mode():
    said = {"service.cilium.io/lb-algorithm": "maglev", "service.cilium.io/forwarding-mode": "dsr"}
    (found,) = services(service(annotations=said), options={"bpf-lb-mode-annotation": "true"}).values()
    assert (found.algorithm, found.mode) == (Algorithm.MAGLEV, Mode.DSR)


@pytest.mark.parametrize(
    ("annotation", "value", "message", "nearest"),
    [
        ("service.cilium.io/affinity", "locl", 'unrecognized service affinity value: "locl"', "local"),
        ("service.cilium.io/lb-algorithm", "leastconn", "unknown value", None),
        ("service.cilium.io/forwarding-mode", "DSR", "unknown value", "dsr"),
        ("service.cilium.io/type", "NodePort", "unknown value", None),
        ("service.cilium.io/globl", "true", "unknown annotation", "service.cilium.io/global"),
        ("io.cilium/global-servce", "true", "unknown annotation", "io.cilium/global-service"),
        ("lbipam.cilium.io/sharing-key", "k", "unknown annotation", None),
        ("lbipam.cilium.io/ips", "192.0.2.300", "not an IP address", None),
        ("service.cilium.io/node", "n1", "which nodes have a service is told by the inventory", None),
        ("service.cilium.io/src-ranges-policy", "deny", "not implemented in this version: source ranges", None),
    ],
)
def test_annotations_that_would_have_no_effect(annotation, value, message, nearest):
    said = {"service.cilium.io/global": "true", annotation: value}
    found = errors(service(annotations=said, type="LoadBalancer"))
    assert [(each.path, each.value) for each in found] == [(f"{AT}.metadata.annotations.{annotation}", value)]
    assert message in found[0].message
    assert nearest is None or found[0].nearest == nearest


# --- refusals ---


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"type": "ExternalName", "externalName": "example.org"}, "type", "unknown value"),
        ({"clusterIP": "None"}, "clusterIP", "headless"),
        ({"clusterIP": None}, "", "no address to serve"),
        ({"clusterIP": "192.0.2.0.1"}, "clusterIP", "not an IP address"),
        ({"sessionAffinity": "ClientIP"}, "sessionAffinity", "not implemented"),
        ({"externalTrafficPolicy": "Local"}, "externalTrafficPolicy", "not implemented"),
        ({"internalTrafficPolicy": "Local"}, "internalTrafficPolicy", "not implemented"),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "loadBalancerSourceRanges", "not implemented"),
        ({"trafficDistribution": "PreferClose"}, "trafficDistribution", "not implemented"),
        ({"clusterIp": "192.0.2.11"}, "clusterIp", "unknown key"),
        ({"ports": []}, "ports", "needs a port"),
        ({"ports": [{**HTTP, "nodePort": 30080}]}, "ports[0].nodePort", "node ports"),
        ({"ports": [{**HTTP, "protocol": "SCTP"}]}, "ports[0].protocol", "unknown value"),
        ({"ports": [{"name": "http"}]}, "ports[0].port", "missing"),
        ({"ports": [{**HTTP, "port": 0}]}, "ports[0].port", "out of range"),
        ({"ports": [{**HTTP, "name": "HTTP"}]}, "ports[0].name", "not the name of a port"),
        ({"ports": [{**HTTP, "prot": "UDP"}]}, "ports[0].prot", "unknown key"),
    ],
)
def test_what_a_service_cannot_ask_for(spec, path, message):
    found = errors(service(**spec))
    expected = f"{AT}.spec" + (f".{path}" if path else "")
    assert any(each.path == expected and message in each.message for each in found), found


def test_a_load_balancer_s_name_is_no_address_and_proxies_are_not_served():
    rows = [{"hostname": "lb.example.org"}, {"ip": "192.0.2.12", "ipMode": "Proxy"}]
    found = errors(service(type="LoadBalancer", status={"loadBalancer": {"ingress": rows}}))
    at = f"{AT}.status.loadBalancer.ingress"
    assert [each.path for each in found] == [f"{at}[0].hostname", f"{at}[1].ipMode"]


def test_a_service_of_another_proxy():
    manifest = service()
    manifest["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
    assert [each.message for each in errors(manifest)] == ["this Service is for another proxy"]


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"service": "wbe"}, "metadata", "there is no Service shop/wbe in these manifests"),
        ({"service": None}, "metadata.labels.kubernetes.io/service-name", "without the label"),
        ({"family": "FQDN"}, "addressType", "unknown value"),
        ({"family": "IPv6", "endpoints": ["2001:db8::1"]}, "addressType", "has no IPv6 address"),
        ({"endpoints": ["2001:db8::1"]}, "endpoints[0].addresses[0]", "IPv6 in a slice of IPv4 addresses"),
        ({"endpoints": ["10.1.0.256"]}, "endpoints[0].addresses[0]", "not an IP address"),
        ({"endpoints": [{"addresses": ["10.1.0.1"], "ready": True}]}, "endpoints[0].ready", "unknown key"),
        ({"endpoints": [{"conditions": {"redy": True}}]}, "endpoints[0].conditions.redy", "unknown key"),
        ({"ports": [{"name": "htp", "port": 1}]}, "ports[0].name", "has no port of this name and protocol"),
        ({"ports": [{"name": "http", "port": 1, "protocol": "UDP"}]}, "ports[0].name", "has no port of this name"),
        ({"ports": [{"name": "http"}]}, "ports[0].port", "missing"),
        ({"annotations": {WEIGHT: "65536"}}, f"metadata.annotations.{WEIGHT}", "out of range"),
        ({"annotations": {GLOBAL: "true"}}, f"metadata.annotations.{GLOBAL}", "unknown annotation"),
    ],
)
def test_what_a_slice_cannot_say(changes, path, message):
    found = errors(service(), part(**{"endpoints": ["10.1.0.1"], **changes}))
    expected = f"services.manifests[1].{path}"
    assert [each.path for each in found] == [expected]
    assert message in found[0].message


@pytest.mark.parametrize(
    ("manifest", "path", "message"),
    [
        ("web.yml", "", "not a mapping"),
        ({"apiVersion": "v1", "kind": "Servce"}, ".kind", "not the manifest of a Service"),
        ({"apiVersion": "v1", "kind": "Endpoints"}, ".kind", "not the manifest of a Service"),
        ({"apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice"}, ".kind", "not the manifest"),
        ({"apiVersion": "v1", "kind": "Service", "spec": {}}, ".metadata", "not a mapping"),
        ({"apiVersion": "v1", "kind": "Service", "metadata": {}}, ".metadata.name", "missing"),
        ({"apiVersion": "v1", "kind": "List", "items": {}}, ".items", "not a list"),
        ({"apiVersion": "v1", "kind": "List", "items": [7]}, ".items[0]", "not a mapping"),
    ],
)
def test_what_is_no_manifest(manifest, path, message):
    (found,) = errors(manifest)
    assert found.path == f"{AT}{path}"
    assert message in found.message


def test_frontends_that_two_services_have():
    found = errors(service(), service(name="other"))
    assert [each.path for each in found] == ["services.manifests[1].spec.clusterIP"]
    assert "shop/web/http and shop/other/http both have frontend 192.0.2.10:80/TCP" in found[0].message
    (same,) = errors(service(), service(externalIPs=["192.0.2.9"]))
    assert (same.path, same.message) == ("services.manifests[1].name", f"{AT} has the same name")


def test_later_stages_find_a_service_by_its_manifest():
    error = SpecError("services", "services.shop/web/http.frontends", None, "wrong")
    assert located([error], document(service()))[0].path == f"{AT}.frontends"


def test_nothing_is_ever_raised_and_what_is_taken_is_sound():
    """Whatever stands in a manifest: services, or violations with a path."""
    scalars = st.sampled_from(["", "None", "192.0.2.10", "http", "IPv4"])
    leaves = st.none() | st.booleans() | st.integers(-1, 70000) | scalars
    words = st.sampled_from(WORDS)
    trees = st.recursive(leaves, lambda part: st.lists(part, max_size=3) | st.dictionaries(words, part, max_size=5))
    kinds = st.sampled_from([("v1", "Service"), ("discovery.k8s.io/v1", "EndpointSlice"), ("v1", "List")])

    @given(st.lists(st.tuples(kinds, st.dictionaries(words, trees, max_size=6)), max_size=3))
    def check(parts):
        violations = Violations("services")
        manifests = [{**tree, "apiVersion": kind[0], "kind": kind[1]} for kind, tree in parts]
        found = read(violations, "services.manifests", manifests)
        assert all(each.path.startswith("services.manifests[") for each in violations.errors)
        for each in found:
            assert each.service is not None
            assert each.frontends
            addresses = [*each.service.frontends, *each.service.backends]
            assert len({address.address.version for address in addresses}) == 1

    check()


def test_backends_are_what_the_slices_say():
    """An independent reading: every ready address at its slice's port, once."""

    @given(st.lists(st.lists(st.integers(1, 20), max_size=6, unique=True), max_size=4))
    def check(groups):
        slices = [part([f"10.1.0.{number}" for number in group]) for group in groups]
        (found,) = services(service(), *slices).values()
        wanted = {Backend(ipaddress.ip_address(f"10.1.0.{number}"), 8080) for group in groups for number in group}
        assert set(found.backends) == wanted
        assert len(found.backends) == len(wanted)

    check()

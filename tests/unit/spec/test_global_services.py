"""Services that several clusters have, as documents say them."""

import pytest

from datapath.spec.document import dump, load, merge
from datapath.spec.errors import SpecErrors
from datapath.spec.global_services import by_mesh_name, port_names
from datapath.state.model import Affinity, DesiredState
from datapath.state.remote import ServiceName

NOTHING = DesiredState()
GLOBAL = {"global": True}
_PLACES = {"web": "192.0.2.1:80", "other": "192.0.2.1:81", "web6": "[2001:db8::1]:80"}


def item(name="web", frontends=None, **fields):
    return {"name": name, "frontends": frontends or [_PLACES.get(name, "192.0.2.9:80")], **fields}


def state(*items, **config):
    return merge(NOTHING, {"options": {"config": config}, "services": {"items": list(items)}})


def errors(*items, **config):
    with pytest.raises(SpecErrors) as refused:
        state(*items, **config)
    return refused.value.errors


def test_everything_that_a_global_service_can_say():
    said = item(**{"global": "true"}, affinity="Local", shared="no", mesh_name="shop/web", port_name="http")
    found = state(said)
    (service,) = found.services
    assert (service.is_global, service.affinity, service.shared) == (True, Affinity.LOCAL, False)
    assert (service.mesh_name, service.port_name) == ("shop/web", "http")
    assert load(dump(found)) == found


def test_what_counts_without_a_word():
    (service,) = state(item(**GLOBAL)).services
    assert (service.affinity, service.shared, service.mesh_name, service.port_name) == (Affinity.NONE, True, "", "")
    assert list(by_mesh_name([service])) == [ServiceName("default", "web")]
    plain = state(item())
    assert by_mesh_name(plain.services) == {}
    assert "shared" not in dump(plain)["services"]["items"][0]


def test_a_name_without_namespace_is_in_the_default_one():
    (service,) = state(item(**GLOBAL, mesh_name="shop")).services
    assert service.mesh_name == "default/shop"


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({**GLOBAL, "affinity": "nearby"}, "affinity", "unknown value 'nearby'"),
        ({"global": "perhaps"}, "global", "not a boolean"),
        ({**GLOBAL, "shared": "perhaps"}, "shared", "not a boolean"),
        ({**GLOBAL, "name": "a/b/c"}, "name", "cannot be the name of a global service"),
        ({**GLOBAL, "mesh_name": "a/b/c"}, "mesh_name", "not the name of a service in the mesh"),
        ({**GLOBAL, "mesh_name": "Shop/web"}, "mesh_name", "not the name of a service in the mesh"),
        ({**GLOBAL, "port_name": "a" * 64}, "port_name", "not the name of a port"),
        ({**GLOBAL, "port_name": "-a"}, "port_name", "not the name of a port"),
        ({"affinity": "local"}, "affinity", "has no effect on a service that is not global"),
        ({"shared": False}, "shared", "has no effect on a service that is not global"),
        ({"mesh_name": "a/b"}, "mesh_name", "has no effect on a service that is not global"),
        ({"global": False, "port_name": "http"}, "port_name", "has no effect on a service that is not global"),
    ],
)
def test_refusals_tell_the_place(fields, path, message):
    (error,) = errors(item(**fields))
    assert error.path == f"services.items[0].{path}"
    assert message in error.message


def test_a_port_name_that_was_meant():
    (error,) = errors(item(**GLOBAL, port_name="HTTP"))
    assert error.nearest == "http"


def test_several_services_are_the_ports_and_families_of_one():
    found = state(
        item(**GLOBAL, mesh_name="shop/web", port_name="http"),
        item("other", **GLOBAL, mesh_name="shop/web", port_name="metrics"),
        item("web6", **GLOBAL, mesh_name="shop/web", port_name="http"),
    )
    assert {str(name): [each.name for each in group] for name, group in by_mesh_name(found.services).items()} == {
        "shop/web": ["other", "web", "web6"]
    }
    assert load(dump(found)) == found


@pytest.mark.parametrize(
    ("other", "fields", "path", "message"),
    [
        ("other", {}, "port_name", "and have a port without a name each"),
        ("other", {"port_name": "http"}, None, None),
        ("web6", {}, None, None),
        ("web6", {"frontends": ["[2001:db8::1]:81"]}, "port_name", "and their ports without a name are not the same"),
        ("web6", {"frontends": ["[2001:db8::1]:80/UDP"]}, "port_name", "are not the same port"),
        ("web6", {"affinity": "local"}, "affinity", "and web has affinity none"),
        ("web6", {"shared": False}, "shared", "and web has shared: true"),
    ],
)
def test_services_of_one_name_in_the_mesh_agree(other, fields, path, message):
    items = [item(**GLOBAL), item(other, **{**GLOBAL, "mesh_name": "default/web", **fields})]
    if path is None:
        state(*items)
        return
    (error,) = errors(*items)
    assert error.path == f"services.items[1].{path}"
    assert error.message.startswith(f"services web and {other} are both default/web in the mesh")
    assert message in error.message


def test_a_name_in_the_mesh_is_compared_with_services_that_are_there_already():
    before = state(item(**GLOBAL))
    with pytest.raises(SpecErrors) as refused:
        merge(before, {"services": {"items": [item("other", **GLOBAL, mesh_name="web")]}})
    assert refused.value.errors[0].path == "services.items[0].port_name"


@pytest.mark.parametrize(
    ("port_name", "frontends", "wanted"),
    [
        ("", ["192.0.2.1:80"], ["80/TCP "]),
        ("http", ["192.0.2.1:80", "192.0.2.2:80"], ["80/TCP http"]),
        ("", ["192.0.2.1:53/UDP", "192.0.2.1:53/TCP"], ["53/TCP tcp", "53/UDP udp"]),
        ("dns", ["192.0.2.1:53/UDP", "192.0.2.1:53/TCP"], ["53/TCP dns-tcp", "53/UDP dns-udp"]),
        ("http", ["192.0.2.1:8080", "192.0.2.1:80"], ["80/TCP http", "8080/TCP http-8080"]),
        ("", ["192.0.2.1:80", "192.0.2.1:81"], ["80/TCP ", "81/TCP 81"]),
    ],
)
def test_what_ports_are_called(port_name, frontends, wanted):
    fields = {"port_name": port_name} if port_name else {}
    (service,) = state(item(frontends=frontends, **GLOBAL, **fields)).services
    found = port_names(service)
    assert [f"{number}/{protocol.name} {name}" for (protocol, number), name in found.items()] == wanted


def test_names_of_ports_that_would_be_too_long():
    (error,) = errors(item(frontends=["192.0.2.1:80", "192.0.2.1:81"], **GLOBAL, port_name="a" * 61))
    assert (error.path, "too long" in error.message) == ("services.items[0].port_name", True)


def test_direct_server_return_is_for_one_cluster():
    (error,) = errors(item(**GLOBAL), **{"bpf-lb-mode": "dsr"})
    assert (error.path, "not implemented" in error.message) == ("services.items[0].global", True)
    state(item(**GLOBAL, mode="snat"), **{"bpf-lb-mode-annotation": True})

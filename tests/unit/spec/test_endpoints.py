"""Endpoints as documents say them."""

import ipaddress

import pytest

from datapath.spec.document import dump, item_names, load, located, merge
from datapath.spec.errors import SpecError, SpecErrors
from datapath.state.model import DesiredState, Endpoint

NOTHING = DesiredState()
DB = {"name": "db", "interface": "ve-db"}


MANAGER = {"options": {"config": {"enable-bandwidth-manager": True}}}


def endpoints(*items, **section):
    return {"endpoints": {"items": list(items), **section}}


def rated(**fields):
    """A document with the bandwidth manager, and an endpoint that has these fields."""
    return {**MANAGER, **endpoints({**DB, **fields})}


def errors(document, current=NOTHING):
    with pytest.raises(SpecErrors) as refused:
        merge(current, document)
    return refused.value.errors


def test_everything_that_an_endpoint_can_say():
    state = merge(
        NOTHING,
        endpoints(
            {
                **DB,
                "labels": {"tier": "backend", "app.kubernetes.io/name": 7},
                "addresses": ["10.0.2.11", "2001:db8::1"],
            },
            {"name": "containers", "interfaces": "ve-*", "labels": {"empty": None}},
            {"name": "host", "host": "yes"},
        ),
    )
    addresses = tuple(map(ipaddress.ip_address, ("10.0.2.11", "2001:db8::1")))
    assert state.endpoints == (
        Endpoint("containers", interfaces="ve-*", labels={"empty": ""}),
        Endpoint("db", "ve-db", labels={"app.kubernetes.io/name": "7", "tier": "backend"}, addresses=addresses),
        Endpoint("host", host=True),
    )
    assert load(dump(state)) == state


def test_endpoints_merge_by_name_and_replace_all_with_purge():
    one = merge(NOTHING, endpoints(DB, {"name": "host", "host": True}))
    moved = merge(one, endpoints({"name": "db", "interface": "ve-other"}))
    assert [(each.name, each.interface) for each in moved.endpoints] == [("db", "ve-other"), ("host", None)]
    assert [each.name for each in merge(one, endpoints({"name": "db", "state": "absent"})).endpoints] == ["host"]
    assert merge(one, endpoints(purge=True)).endpoints == ()
    assert merge(one, {"services": {"items": []}}).endpoints == one.endpoints


def test_a_device_changes_hands_in_one_document():
    one = merge(NOTHING, endpoints(DB))
    state = merge(one, endpoints({"name": "db", "state": "absent"}, {"name": "new", "interface": "ve-db"}))
    assert [each.name for each in state.endpoints] == ["new"]


@pytest.mark.parametrize(
    ("item", "path", "message"),
    [
        ({"interface": "ve-db"}, ".name", "missing"),
        ({**DB, "name": "a/b"}, ".name", "not a name"),
        ({**DB, "name": ""}, ".name", "not a name"),
        ({"name": "db"}, "", "has to be somewhere"),
        ({"name": "db", "host": False}, "", "has to be somewhere"),
        ({**DB, "host": True}, "", "interface and host are both given"),
        ({**DB, "interfaces": "ve-*"}, "", "interface and interfaces are both given"),
        ({"name": "db", "interface": "ve-*"}, ".interface", "a pattern is no device"),
        ({"name": "db", "interface": "lo"}, ".interface", "nothing behind lo"),
        ({"name": "db", "interface": "a" * 16}, ".interface", "not a device name"),
        ({"name": "db", "interface": ".."}, ".interface", "not a device name"),
        ({"name": "db", "interface": "a b"}, ".interface", "not a device name"),
        ({"name": "db", "interfaces": "ve-db"}, ".interfaces", "not a pattern"),
        ({"name": "db", "interfaces": "ve/*"}, ".interfaces", "not a pattern of device names"),
        ({"name": "db", "interfaces": "ve-*", "addresses": ["10.0.0.1"]}, ".addresses", "no effect with interfaces"),
        (
            {**DB, "addresses": ["10.0.0.1", "10.0.0.1"]},
            ".addresses[1]",
            "same address as endpoints.items[0].addresses[0]",
        ),
        ({**DB, "addresses": ["127.0.0.1"]}, ".addresses[0]", "cannot be used"),
        ({**DB, "addresses": "10.0.0.1"}, ".addresses", "not a list"),
        ({**DB, "labels": ["app"]}, ".labels", "not a mapping"),
        ({**DB, "labels": {"app ": "x y"}}, ".labels.app ", "not a label's value"),
        ({**DB, "labels": {"-app": "x"}}, ".labels.-app", "not a label's name"),
        ({**DB, "labels": {"app": True}}, ".labels.app", "not text"),
        ({**DB, "label": {}}, ".label", "unknown key"),
        (7, "", "not a mapping"),
    ],
)
def test_what_is_no_endpoint(item, path, message):
    (error,) = errors(endpoints(item))
    assert (error.document, error.path) == ("endpoints", f"endpoints.items[0]{path}")
    assert message in error.message


@pytest.mark.parametrize(
    ("first", "second", "claim"),
    [
        ({"interface": "ve-db"}, {"interface": "ve-db"}, "interface ve-db"),
        ({"interfaces": "ve-*"}, {"interfaces": "ve-*"}, "interfaces ve-*"),
        ({"host": True}, {"host": True}, "host: true"),
        (
            {"interface": "a", "addresses": ["10.0.0.1"]},
            {"interface": "b", "addresses": ["10.0.0.1"]},
            "address 10.0.0.1",
        ),
    ],
)
def test_no_two_endpoints_have_the_same(first, second, claim):
    first, second = {"name": "one", **first}, {"name": "two", **second}
    for document, current in (
        (endpoints(first, second), NOTHING),
        (endpoints(second), merge(NOTHING, endpoints(first))),
    ):
        (error,) = errors(document, current)
        assert error.message == f"endpoints one and two both have {claim}"
        assert error.path == f"endpoints.items[{len(document['endpoints']['items']) - 1}]"


def test_one_name_once():
    (error,) = errors(endpoints(DB, {**DB, "interface": "other"}))
    assert "endpoints.items[0] has the same name" in error.message


# --- rates ---


def test_rates():
    state = merge(NOTHING, rated(egress_bandwidth="50M", ingress_bandwidth=1e9, priority="BestEffort"))
    (db,) = state.endpoints
    assert (db.egress_bandwidth, db.ingress_bandwidth, db.priority) == (50_000_000, 10**9, 6)
    assert load(dump(state)) == state
    (db,) = merge(NOTHING, rated(egress_bandwidth=(1 << 63) - 1, priority=15)).endpoints
    assert (db.egress_bandwidth, db.priority) == ((1 << 63) - 1, 15)


@pytest.mark.parametrize(("word", "number"), [("guaranteed", 7), ("burstable", 9), ("besteffort", 6), ("3", 3)])
def test_priorities(word, number):
    assert merge(NOTHING, rated(priority=word)).endpoints[0].priority == number


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"egress_bandwidth": 0}, "no rate"),
        ({"egress_bandwidth": "-5M"}, "negative"),
        ({"egress_bandwidth": 1 << 63}, "more than 2^63 - 1"),
        ({"egress_bandwidth": "9e99"}, "more than 2^63 - 1"),
        ({"egress_bandwidth": "8Ei"}, "more than 2^63 - 1"),
        ({"egress_bandwidth": 999}, "less than 1k"),
        ({"egress_bandwidth": "1m"}, "less than 1k"),
        ({"egress_bandwidth": "fast"}, "not a quantity"),
        ({"egress_bandwidth": "50 M"}, "not a quantity"),
        ({"egress_bandwidth": "50Mbit"}, "not a quantity"),
        ({"egress_bandwidth": True}, "not a quantity"),
        ({"egress_bandwidth": ["50M"]}, "not a quantity"),
        ({"ingress_bandwidth": float("nan")}, "not a quantity"),
        ({"priority": 0}, "not a priority"),
        ({"priority": 16}, "not a priority"),
        ({"priority": "high"}, "not a priority"),
        ({"interface": None, "host": True, "ingress_bandwidth": "1M"}, "no effect with host"),
    ],
)
def test_what_is_no_rate(fields, message):
    (error,) = errors(rated(**fields))
    (name,) = set(fields) - {"interface", "host"}
    assert error.path == f"endpoints.items[0].{name}"
    assert message in error.message


def test_a_rate_takes_the_manager():
    (error,) = errors(endpoints({**DB, "egress_bandwidth": "50M"}))
    assert error.path == "endpoints.items[0].egress_bandwidth"
    assert "enable-bandwidth-manager is false" in error.message
    current = merge(NOTHING, rated(egress_bandwidth="50M"))
    (error,) = errors({"options": {}}, current)
    assert error.path == "endpoints.db.egress_bandwidth"
    assert merge(current, {"options": {}, **endpoints(DB)}).endpoints[0].egress_bandwidth is None


# --- manifests ---

EGRESS, INGRESS, PRIORITY = (
    "kubernetes.io/egress-bandwidth",
    "kubernetes.io/ingress-bandwidth",
    "bandwidth.cilium.io/priority",
)
AT = "endpoints.items[0].manifest"


def pod(annotations=None, **more):
    metadata = {"name": "web", "labels": {"app": "web", "tier": "front"}, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "n"}]}, **more}


def described(manifest, **fields):
    """A document with an endpoint that a manifest describes."""
    return {**MANAGER, **endpoints({"interface": "ve-web", "manifest": manifest, **fields})}


def test_a_manifest_gives_name_labels_and_rates():
    annotations = {EGRESS: "50M", INGRESS: "1G", PRIORITY: "Guaranteed", "example.org/bandwidth": "much"}
    state = merge(NOTHING, described(pod(annotations)))
    labels = {"app": "web", "tier": "front"}
    rates = {"egress_bandwidth": 50_000_000, "ingress_bandwidth": 10**9, "priority": 7}
    assert state.endpoints == (Endpoint("web", "ve-web", labels=labels, **rates),)
    assert load(dump(state)) == state


def test_what_the_endpoint_says_itself_goes_before_its_manifest():
    document = described(pod({EGRESS: "50M"}), name="own", labels={"tier": "back"}, egress_bandwidth="50e6")
    (own,) = merge(NOTHING, document).endpoints
    assert (own.name, own.labels, own.egress_bandwidth) == ("own", {"app": "web", "tier": "back"}, 50_000_000)


def test_a_manifest_is_enough_to_remove_an_endpoint():
    current = merge(NOTHING, described(pod({EGRESS: "50M"})))
    assert merge(current, endpoints({"manifest": pod(), "state": "absent"})).endpoints == ()


def test_a_manifest_without_annotations_says_nothing_about_rates():
    document = endpoints({"interface": "ve-web", "manifest": {"kind": "Pod", "metadata": {"name": "web"}}})
    assert merge(NOTHING, document).endpoints == (Endpoint("web", "ve-web"),)


@pytest.mark.parametrize("word", ["Guaranteed", "Burstable", "BestEffort"])
def test_a_priority_is_named_by_its_quality_of_service(word):
    (web,) = merge(NOTHING, described(pod({PRIORITY: word}))).endpoints
    assert web.priority == {"Guaranteed": 7, "Burstable": 9, "BestEffort": 6}[word]


@pytest.mark.parametrize(
    ("manifest", "fields", "path", "message"),
    [
        ("kind: Pod", {"name": "web"}, "", "not a mapping"),
        ({"kind": "Deployment", "metadata": {}}, {"name": "web"}, ".kind", "not the manifest of a Pod"),
        ({"metadata": {}}, {"name": "web"}, ".kind", "not the manifest of a Pod"),
        (pod(apiVersion="v2"), {"name": "web"}, ".kind", "not the manifest of a Pod"),
        (pod(metadata="web"), {"name": "web"}, ".metadata", "not a mapping"),
        (pod(spec={"hostNetwork": True}), {}, ".spec.hostNetwork", "the host's network"),
        (pod(metadata={"name": "a/b"}), {}, ".metadata.name", "not a name"),
        (pod(metadata={"name": "web", "labels": ["app"]}), {}, ".metadata.labels", "not a mapping"),
        (pod(metadata={"name": "web", "labels": {"-": 1}}), {}, ".metadata.labels.-", "not a label's name"),
        (pod(["50M"]), {}, ".metadata.annotations", "not a mapping"),
        (pod({EGRESS: "fast"}), {}, f".metadata.annotations.{EGRESS}", "not a quantity"),
        (pod({EGRESS: None}), {}, f".metadata.annotations.{EGRESS}", "not a quantity"),
        (pod({EGRESS: "999"}), {}, f".metadata.annotations.{EGRESS}", "less than 1k"),
        (pod({INGRESS: "8Ei"}), {}, f".metadata.annotations.{INGRESS}", "more than 2^63 - 1"),
        (pod({INGRESS: "-1M"}), {}, f".metadata.annotations.{INGRESS}", "negative"),
        (pod({PRIORITY: "high"}), {}, f".metadata.annotations.{PRIORITY}", "not a priority"),
        (
            pod({EGRESS: "50M"}),
            {"egress_bandwidth": "60M"},
            f".metadata.annotations.{EGRESS}",
            "endpoints.items[0].egress_bandwidth says 60M",
        ),
        (
            pod({PRIORITY: "guaranteed"}),
            {"priority": 9},
            f".metadata.annotations.{PRIORITY}",
            "endpoints.items[0].priority says 9",
        ),
        (
            pod({INGRESS: "1M"}),
            {"interface": None, "host": True},
            f".metadata.annotations.{INGRESS}",
            "no effect with host",
        ),
    ],
)
def test_what_is_no_manifest(manifest, fields, path, message):
    (error,) = errors(described(manifest, **fields))
    assert (error.document, error.path) == ("endpoints", AT + path)
    assert message in error.message


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("bandwidth.cilium.io/prioriti", PRIORITY),
        ("bandwidth.cilium.io/colour", None),
        ("kubernetes.io/egress-bandwith", EGRESS),
        ("kubernetes.io/ingress_bandwidth", INGRESS),
    ],
)
def test_an_annotation_about_bandwidth_that_nobody_knows_is_refused(key, nearest):
    (error,) = errors(described(pod({key: "50M"})))
    assert (error.path, error.nearest) == (f"{AT}.metadata.annotations.{key}", nearest or error.nearest)
    assert EGRESS in error.allowed


@pytest.mark.parametrize(
    "key",
    [
        "kubernetes.io/config.source",
        "kubernetes.io/config.hash",
        "kubernetes.io/description",
        "kubernetes.io/psp",
        "kubernetes.io/limit-ranger",
        "kubernetes.io/enforce-mountable-secrets",
        "kubernetes.io/ingress.class",
        "kubectl.kubernetes.io/restartedAt",
        "io.kubernetes.cri-o.TTY/web",
        "cilium.io/bandwidth",
    ],
)
def test_other_annotations_are_let_be(key):
    assert merge(NOTHING, described(pod({key: "x"}))).endpoints[0].name == "web"


def test_a_name_is_said_by_the_endpoint_or_its_manifest():
    (error,) = errors(endpoints({"interface": "ve-web", "manifest": {"kind": "Pod", "metadata": {}}}))
    assert (error.path, error.allowed) == ("endpoints.items[0].name", "a name, or a manifest that has one")


def test_without_the_manager_the_annotation_is_what_is_refused():
    (error,) = errors(endpoints({"interface": "ve-web", "manifest": pod({EGRESS: "50M"})}))
    assert error.path == f"{AT}.metadata.annotations.{EGRESS}"
    assert "enable-bandwidth-manager is false" in error.message


def test_later_stages_find_an_endpoint_by_its_manifest_s_name():
    document = described(pod())
    assert item_names(document, "endpoints") == ["web"]
    error = SpecError("endpoints", "endpoints.web.interface", "ve-web", "there is none")
    assert located([error], document)[0].path == "endpoints.items[0].interface"

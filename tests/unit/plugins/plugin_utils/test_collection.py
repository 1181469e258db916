from __future__ import annotations

from ansible_collections.ebpf.datapath.plugins.plugin_utils import collection

WEB = {"name": "web", "frontends": ["192.0.2.10:80/TCP"], "backends": ["10.0.0.1:80"]}


def check(document, names=()):
    return collection.check(document, list(names), collection.parser_path())


def test_the_executor_s_own_parser_judges():
    answer = check({"options": {"values": {}, "config": {"bpf-lb-algorithm": "maglev"}}, "services": {"items": [WEB]}})
    assert answer["errors"] == []
    assert answer["effective"]["bpf-lb-algorithm"] == "maglev"


def test_it_tells_whether_there_is_a_load_balancer():
    host = {"items": [{"name": "host", "host": True}]}
    options = {"values": {}, "config": {"devices": "eth0", "bpf-lb-algorithm": "maglev"}}
    assert check({"options": options})["balances"] is True
    assert check({"options": options, "endpoints": host})["balances"] is False


def test_all_violations_come_back_with_their_places():
    answer = check(
        {"options": {"values": {"nothing": 1}}, "services": {"items": [{**WEB, "backends": ["10.0.0.1:0"]}]}}
    )
    assert [error["path"] for error in answer["errors"]] == ["options.values.nothing", "services.items[0].backends[0]"]
    assert "effective" not in answer


def test_names_of_later_versions_are_told_from_typos():
    assert set(check({}, ["cilium_enable_hubble", "cilium_enable_hubbel"])["later"]) == {"cilium_enable_hubble"}


def test_the_roles_tell_which_variables_there_are():
    assert {
        "cilium_loadbalancer_mode",
        "cilium_config_extra_vars",
        "datapath_services",
        "datapath_endpoints",
        "datapath_artefact",
    } <= collection.known_variables()


def test_plain_makes_subclasses_plain():
    class Text(str):
        __slots__ = ()

    class Whole(int):
        pass

    value = collection.plain({Text("a"): (Text("b"), Whole(3), True, None, 1.5, [Text("c")])})
    assert value == {"a": ["b", 3, True, None, 1.5, ["c"]]}
    assert {type(item) for item in value["a"]} == {str, int, bool, type(None), float, list}

from __future__ import annotations

import pytest
from ansible_collections.ebpf.datapath.plugins.modules import (
    bandwidth_manager,
    clustermesh,
    clustermesh_peer,
    datapath_info,
    desired_state,
    endpoint,
    lb_options,
    program,
    service,
)

from datapath.spec.later import LATER
from datapath.spec.options import find

ANSWER = {
    "changed": True,
    "check": False,
    "operations": [
        {"action": "create", "target": "map services_v1", "key": "k", "before": None, "after": "a", "summary": "s"}
    ],
    "operation_count": 1,
    "disruption": {"slots_moved": {}, "flows_affected": {}, "notes": []},
    "diff": {"before": "", "after": "a\n"},
    "warnings": ["no route to 10.0.0.1"],
    "map_writes": 3,
}
POD = {"kind": "Pod", "metadata": {"name": "db", "annotations": {"kubernetes.io/egress-bandwidth": "50M"}}}
PARIS = {
    "name": "paris",
    "endpoints": ["https://192.0.2.31:2379"],
    **{kind: f"/etc/datapath/clustermesh/paris/{kind}.pem" for kind in ("ca", "certificate", "key")},
}
STORE = {key: value for key, value in PARIS.items() if key != "name"}
WEB = {"name": "web", "frontends": ["192.0.2.10:80/TCP"], "backends": ["10.0.0.1:80"]}


@pytest.mark.parametrize(
    ("module", "arguments", "document"),
    [
        (service, WEB, {"services": {"items": [{**WEB, "state": "present"}], "purge": False}}),
        (
            service,
            {"name": "web", "state": "absent"},
            {"services": {"items": [{"name": "web", "state": "absent"}], "purge": False}},
        ),
        (service, {"services": [WEB], "purge": True}, {"services": {"items": [WEB], "purge": True}}),
        (service, {"services": []}, {"services": {"items": [], "purge": False}}),
        (service, {"manifests": [{"kind": "List"}]}, {"services": {"manifests": [{"kind": "List"}], "purge": False}}),
        (
            service,
            {"services": [WEB], "manifests": [], "purge": True},
            {"services": {"items": [WEB], "manifests": [], "purge": True}},
        ),
        (
            desired_state,
            {"document": {"options": {"config": {"devices": "eth0"}}, "services": {"items": [WEB], "purge": True}}},
            {"options": {"config": {"devices": "eth0"}}, "services": {"items": [WEB], "purge": True}},
        ),
        (
            endpoint,
            {"name": "db", "interface": "ve-db", "labels": {"app": "db"}, "addresses": ["10.0.2.11"]},
            {
                "endpoints": {
                    "items": [
                        {
                            "name": "db",
                            "state": "present",
                            "interface": "ve-db",
                            "labels": {"app": "db"},
                            "addresses": ["10.0.2.11"],
                        }
                    ],
                    "purge": False,
                }
            },
        ),
        (
            endpoint,
            {"endpoints": [{"name": "host", "host": True}], "purge": True},
            {"endpoints": {"items": [{"name": "host", "host": True}], "purge": True}},
        ),
        (
            endpoint,
            {"manifest": POD, "interface": "ve-db"},
            {
                "endpoints": {
                    "items": [{"state": "present", "manifest": POD, "interface": "ve-db"}],
                    "purge": False,
                }
            },
        ),
        (
            bandwidth_manager,
            {"enabled": True, "bbr": False, "devices": ["eth0"]},
            {
                "options": {
                    "merge": True,
                    "values": {"enable_bandwidth_manager": True, "enable_bbr": False, "devices": ["eth0"]},
                }
            },
        ),
        (
            bandwidth_manager,
            {"bbr_hostns_only": True, "host_legacy_routing": True, "devices": []},
            {
                "options": {
                    "merge": True,
                    "values": {"enable_bbr_hostns_only": True, "enable_host_legacy_routing": True, "devices": []},
                }
            },
        ),
        (
            bandwidth_manager,
            {"state": "absent"},
            {
                "options": {
                    "merge": True,
                    "values": {
                        "enable_bandwidth_manager": None,
                        "enable_bbr": None,
                        "enable_bbr_hostns_only": None,
                        "enable_host_legacy_routing": None,
                    },
                }
            },
        ),
        (
            clustermesh_peer,
            PARIS,
            {"clustermesh": {"items": [{**PARIS, "state": "present"}], "purge": False}},
        ),
        (
            clustermesh_peer,
            {"name": "paris", "state": "absent"},
            {"clustermesh": {"items": [{"name": "paris", "state": "absent"}], "purge": False}},
        ),
        (clustermesh_peer, {"peers": [PARIS], "purge": True}, {"clustermesh": {"items": [PARIS], "purge": True}}),
        (
            clustermesh,
            {"cluster_name": "berlin", "cluster_id": 1, "cache_ttl": "10m", "networks": ["10.1.0.0/16"]},
            {
                "options": {
                    "merge": True,
                    "values": {
                        "cluster_name": "berlin",
                        "cluster_id": 1,
                        "clustermesh_cache_ttl": "10m",
                        "cluster_networks": ["10.1.0.0/16"],
                    },
                }
            },
        ),
        (
            clustermesh,
            {"store": {**STORE, "publisher": True, "node": {"addresses": ["192.0.2.11"]}}},
            {
                "clustermesh": {
                    "items": [],
                    "purge": False,
                    "store": {**STORE, "publisher": True, "node": {"addresses": ["192.0.2.11"]}},
                }
            },
        ),
        (clustermesh, {"store": {}}, {"clustermesh": {"items": [], "purge": False, "store": None}}),
        (
            clustermesh,
            {"state": "absent"},
            {
                "options": {
                    "merge": True,
                    "values": {
                        "cluster_name": None,
                        "cluster_id": None,
                        "max_connected_clusters": None,
                        "clustermesh_cache_ttl": None,
                        "kvstore_lease_ttl": None,
                        "cluster_networks": None,
                    },
                },
                "clustermesh": {"items": [], "purge": False, "store": None},
            },
        ),
        (lb_options, {}, {"options": {"values": {}, "config": {}}}),
        (
            lb_options,
            {
                "mode": "snat",
                "algorithm": "random",
                "values": {"algorithm": "maglev"},
                "config": {"bpf-lb-map-max": "100"},
            },
            {"options": {"values": {"mode": "snat", "algorithm": "maglev"}, "config": {"bpf-lb-map-max": "100"}}},
        ),
        (
            program,
            {"name": "count", "object": "/x.o", "attach": {"type": "xdp", "device": "eth0"}},
            {
                "programs": {
                    "items": [
                        {
                            "name": "count",
                            "state": "present",
                            "object": "/x.o",
                            "attach": {"type": "xdp", "device": "eth0"},
                        }
                    ],
                    "purge": False,
                }
            },
        ),
        (
            program,
            {"name": "count", "source": "int f;\n", "program": "f"},
            {
                "programs": {
                    "items": [{"name": "count", "state": "present", "source": "int f;\n", "program": "f"}],
                    "purge": False,
                }
            },
        ),
        (
            program,
            {"name": "count", "state": "absent"},
            {"programs": {"items": [{"name": "count", "state": "absent"}], "purge": False}},
        ),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_arguments_become_one_document(stand_in, run_module, module, arguments, document, check):  # noqa: PLR0917
    stand_in.answers((0, ANSWER, ""))
    result = run_module(module, check=check, executable=str(stand_in.path), **arguments)
    (call,) = stand_in.calls
    assert call["document"] == document == result["document"]
    assert call["arguments"] == ["apply", *(["--check"] if check else []), "-o", "json", "-"]


def test_the_answer_is_returned_and_warned_about(stand_in, run_module):
    stand_in.answers((0, ANSWER, ""))
    result = run_module(service, executable=str(stand_in.path), **WEB)
    for key in ("changed", "operations", "operation_count", "disruption", "map_writes"):
        assert result[key] == ANSWER[key]
    assert "no route to 10.0.0.1" in str(result["warnings"])
    assert "diff" not in result


def test_diff_is_returned_when_asked_for(stand_in, run_module):
    stand_in.answers((0, ANSWER, ""))
    assert run_module(service, diff=True, executable=str(stand_in.path), **WEB)["diff"] == ANSWER["diff"]


def test_a_dry_run_after_another_tells_only_its_own_part(stand_in, run_module):
    before = {**ANSWER, "operations": [{"action": "attach"}], "diff": {"before": "", "after": "eth0\n"}}
    both = {
        **ANSWER,
        "operations": before["operations"] + ANSWER["operations"],
        "operation_count": 2,
        "diff": {"before": "", "after": "eth0\na\n"},
    }
    stand_in.answers((0, both, ""), (0, before, ""))
    pending = {"options": {"values": {"mode": "snat"}, "config": {}}}
    result = run_module(service, check=True, diff=True, executable=str(stand_in.path), pending=pending, **WEB)
    whole, part = (call["document"] for call in stand_in.calls)
    assert set(whole) == {"options", "services"}
    assert part == pending
    assert result["operations"] == ANSWER["operations"]
    assert result["diff"] == {"before": "eth0\n", "after": "eth0\na\n"}


def test_a_dry_run_of_the_manager_keeps_the_pending_options(stand_in, run_module):
    stand_in.answers((0, ANSWER, ""), (0, {**ANSWER, "operations": []}, ""))
    pending = {
        "options": {"values": {"mode": "dsr"}, "config": {"devices": "eth0", "enable-bandwidth-manager": "false"}},
        "services": {"items": [WEB], "purge": True},
    }
    run_module(bandwidth_manager, check=True, executable=str(stand_in.path), pending=pending, enabled=True)
    whole, part = (call["document"] for call in stand_in.calls)
    assert part == pending
    assert whole == {
        **pending,
        "options": {"values": {"mode": "dsr", "enable_bandwidth_manager": True}, "config": {"devices": "eth0"}},
    }


def test_outside_a_dry_run_nothing_is_pending(stand_in, run_module):
    stand_in.answers((0, ANSWER, ""))
    run_module(service, executable=str(stand_in.path), pending={"options": {"values": {}, "config": {}}}, **WEB)
    (call,) = stand_in.calls
    assert set(call["document"]) == {"services"}


@pytest.mark.parametrize(
    "module",
    [bandwidth_manager, clustermesh, clustermesh_peer, desired_state, endpoint, lb_options, service, program],
)
def test_refusals_fail_the_task_with_all_errors(stand_in, run_module, module):
    errors = [
        {"document": "options", "path": "options.x", "value": 1, "message": "unknown", "allowed": None, "nearest": "y"}
    ]
    stand_in.answers((2, {"errors": errors}, ""))
    arguments = {
        bandwidth_manager: {"enabled": True},
        clustermesh: {"cluster_id": 0},
        clustermesh_peer: PARIS,
        desired_state: {"document": {}},
        lb_options: {},
        service: WEB,
        endpoint: {"name": "host", "host": True},
        program: {"name": "x", "object": "/x.o"},
    }[module]
    result = run_module(module, executable=str(stand_in.path), **arguments)
    assert result["errors"] == errors
    assert "options.x = 1: unknown (did you mean y?)" in result["msg"]
    assert not result.get("changed")


def test_a_missing_executor_names_the_role(tmp_path, run_module):
    result = run_module(datapath_info, executable=str(tmp_path / "nothing"))
    assert "No such file" in result["msg"]
    assert "role ebpf.datapath.executor" in result["msg"].lower()


def test_info_is_returned_under_its_own_name(stand_in, run_module):
    stand_in.answers((0, {"kernel": "6.1"}, ""))
    assert run_module(datapath_info, check=True, executable=str(stand_in.path))["datapath"] == {"kernel": "6.1"}
    assert stand_in.calls[0]["arguments"] == ["info", "-o", "json"]


@pytest.mark.parametrize("arguments", [{}, {"object": "/x.o", "source": "int f;"}])
def test_a_program_comes_from_an_object_or_a_source(stand_in, run_module, arguments):
    result = run_module(program, executable=str(stand_in.path), name="count", **arguments)
    assert result["failed"]
    assert "object" in result["msg"]
    assert "source" in result["msg"]
    assert not (stand_in.path.parent / "calls.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"name": "web", "services": []},
        {"services": [], "backends": []},
        {"name": "web", "purge": True},
        {"name": "x", "state": "gone"},
    ],
)
def test_contradicting_arguments_are_refused_before_anything_runs(stand_in, run_module, arguments):
    assert run_module(service, executable=str(stand_in.path), **arguments)["failed"]
    assert not (stand_in.path.parent / "calls.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"name": "db", "interface": "ve-db", "host": True},
        {"name": "db", "endpoints": []},
        {"endpoints": [], "labels": {}},
        {"endpoints": [], "manifest": POD},
        {"name": "db", "interface": "ve-db", "purge": True},
    ],
)
def test_an_endpoint_in_two_places_is_refused_before_anything_runs(stand_in, run_module, arguments):
    assert run_module(endpoint, executable=str(stand_in.path), **arguments)["failed"]
    assert not (stand_in.path.parent / "calls.json").exists()


@pytest.mark.parametrize("arguments", [{}, {"state": "absent", "enabled": False}, {"state": "absent", "devices": []}])
def test_a_manager_that_is_told_nothing_or_too_much_is_refused_before_anything_runs(stand_in, run_module, arguments):
    assert run_module(bandwidth_manager, executable=str(stand_in.path), **arguments)["failed"]
    assert not (stand_in.path.parent / "calls.json").exists()


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (clustermesh, {}),
        (clustermesh, {"state": "absent", "cluster_id": 1}),
        (clustermesh, {"state": "absent", "store": {}}),
        (clustermesh_peer, {}),
        (clustermesh_peer, {"peers": [], "name": "paris"}),
        (clustermesh_peer, {"name": "paris", "purge": True}),
    ],
)
def test_a_mesh_that_is_told_nothing_or_too_much_is_refused_before_anything_runs(
    stand_in, run_module, module, arguments
):
    assert run_module(module, executable=str(stand_in.path), **arguments)["failed"]
    assert not (stand_in.path.parent / "calls.json").exists()


def test_the_mesh_s_options_are_options_of_the_executor():
    section = clustermesh.document({"state": "absent", "store": None})["options"]
    assert [name for name in section["values"] if not find(name)] == []


def test_the_manager_s_options_are_options_of_the_executor():
    """By their names in documents; one that a version lacks is refused as such, and not as a typo."""
    (section,) = bandwidth_manager.document({"state": "absent"}).values()
    assert [name for name in section["values"] if not find(name) and name.replace("_", "-") not in LATER] == []

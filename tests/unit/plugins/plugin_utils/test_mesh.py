"""What connecting the clusters of an inventory takes, from the variables of its hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.ebpf.datapath.plugins.plugin_utils import mesh

from datapath.spec.document import merge
from datapath.state.model import DesiredState


def host(cluster, number, address, **more):
    named = {"cilium_cluster_name": cluster, "cilium_cluster_id": number, "datapath_node_addresses": [address]}
    return {**named, "inventory_dir": "/inventory", **more}


BERLIN = host("berlin", 1, "192.0.2.21")
STORES = {
    "berlin-etcd1": BERLIN,
    "paris-etcd1": host("paris", 2, "2001:db8::31"),
    "paris-etcd2": host("paris", 2, "2001:db8::32", datapath_etcd_client_port=12379),
    "tokyo-etcd1": host("tokyo", 3, "192.0.2.41"),
}
FOUND = mesh.clusters(STORES)
NODE = host("berlin", 1, "192.0.2.11", datapath_node_pod_cidrs=["10.1.2.0/24"])
EXTERNAL = {
    "name": "oslo",
    "endpoints": ["https://oslo.example:32379"],
    **{kind: f"/srv/oslo.{kind}" for kind in ("ca", "certificate", "key")},
}


def test_a_node_publishes_in_its_own_store_and_follows_all_others():
    section = mesh.section("berlin-lb1", NODE, FOUND, publisher=True)
    assert section["store"] == {
        "endpoints": ["https://192.0.2.21:2379"],
        "ca": "/etc/datapath/clustermesh/ca.pem",
        "certificate": "/etc/datapath/clustermesh/agent.pem",
        "key": "/etc/datapath/clustermesh/agent.key",
        "publisher": True,
        "node": {"name": "berlin-lb1", "addresses": ["192.0.2.11"], "pod_cidrs": ["10.1.2.0/24"]},
    }
    assert [(each["name"], each["endpoints"]) for each in section["items"]] == [
        ("paris", ["https://[2001:db8::31]:2379", "https://[2001:db8::32]:12379"]),
        ("tokyo", ["https://192.0.2.41:2379"]),
    ]
    assert section["items"][0]["key"] == "/etc/datapath/clustermesh/paris/remote.key"


def test_the_executor_takes_the_section():
    options = {"options": {"values": {"cluster_name": "berlin", "cluster_id": 1}}}
    node = {**NODE, "datapath_clustermesh_external_peers": [EXTERNAL]}
    state = merge(DesiredState(), {**options, "clustermesh": mesh.section("berlin-lb1", node, FOUND, publisher=False)})
    assert [each.name for each in state.peers] == ["oslo", "paris", "tokyo"]
    assert state.store is not None


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"cilium_cluster_name": "berlin"},
        host("berlin", 0, "192.0.2.11"),
        host("lonely", 9, "192.0.2.11"),
    ],
)
def test_a_cluster_that_nobody_connects_has_no_section(variables):
    """Kubespray's members of group etcd have nothing to do with a mesh either."""
    assert mesh.section("node", variables, FOUND, publisher=True) is None


def test_peers_are_those_that_are_chosen():
    section = mesh.section("n", {**NODE, "datapath_clustermesh_peers": ["tokyo"]}, FOUND, publisher=False)
    assert [each["name"] for each in section["items"]] == ["tokyo"]


def test_a_cluster_that_leaves_lets_go_and_is_let_go_of():
    gone = {
        name: {**row, "datapath_clustermesh_state": "absent"} if "paris" in name else row
        for name, row in STORES.items()
    }
    found = mesh.clusters(gone)
    leaving = {**host("paris", 2, "192.0.2.12"), "datapath_clustermesh_state": "absent"}
    assert mesh.section("n", leaving, found, publisher=True) == {"purge": True, "items": [], "store": None}
    assert mesh.node_files(leaving, found) == []
    assert [each["name"] for each in mesh.section("n", NODE, found, publisher=False)["items"]] == ["tokyo"]
    assert "remote-paris" not in {each["name"] for each in mesh.access(found["berlin"], found)["users"]}
    assert "remote-paris" not in {each["name"] for each in mesh.certificates(found["berlin"], found)["certificates"]}


def test_a_cluster_with_a_store_elsewhere_follows_without_publishing():
    variables = {**host("lonely", 9, "192.0.2.11"), "datapath_clustermesh_external_peers": [EXTERNAL]}
    section = mesh.section("n", variables, {}, publisher=True)
    assert section["store"] is None
    assert [each["name"] for each in section["items"]] == ["oslo"]


def test_keys_are_where_they_are_needed_and_nobody_else_reads_them():
    node = {**NODE, "datapath_clustermesh_external_peers": [EXTERNAL], "datapath_clustermesh_peers": ["tokyo"]}
    rows = {each["path"]: each for each in mesh.node_files(node, FOUND)}
    directory, pki = "/etc/datapath/clustermesh", "/inventory/.credentials/clustermesh"
    assert {path: row["source"] for path, row in rows.items()} == {
        f"{directory}/ca.pem": f"{pki}/berlin/bundle.pem",
        f"{directory}/agent.pem": f"{pki}/berlin/agent-berlin.pem",
        f"{directory}/agent.key": f"{pki}/berlin/agent-berlin.key",
        f"{directory}/tokyo/ca.pem": f"{pki}/tokyo/bundle.pem",
        f"{directory}/tokyo/remote.pem": f"{pki}/tokyo/remote-berlin.pem",
        f"{directory}/tokyo/remote.key": f"{pki}/tokyo/remote-berlin.key",
        f"{directory}/oslo/ca.pem": "/srv/oslo.ca",
        f"{directory}/oslo/remote.pem": "/srv/oslo.certificate",
        f"{directory}/oslo/remote.key": "/srv/oslo.key",
    }
    rows.update({each["path"]: each for each in mesh.member_files("berlin-etcd1", FOUND["berlin"])})
    assert {row["mode"] for path, row in rows.items() if path.endswith(".key")} == {"0600"}
    assert {
        row["owner"] for path, row in rows.items() if path.startswith("/etc/datapath/etcd") and path.endswith(".key")
    } == {
        "etcd",
        "root",
    }
    assert rows["/etc/datapath/etcd/root.key"]["owner"] == "root"


def test_members_certificates_cover_what_they_are_called():
    rows = {each["name"]: each for each in mesh.certificates(FOUND["paris"], FOUND)["certificates"]}
    assert {"2001:db8::31", "paris-etcd1", "paris.mesh.cilium.io", "127.0.0.1"} <= set(
        rows["server-paris-etcd1"]["hosts"]
    )
    # One name for all: no other certificate speaks for a member.
    assert rows["peer-paris-etcd1"]["common_name"] == rows["peer-paris-etcd2"]["common_name"] == "etcd-peer-paris"
    assert {"root", "admin-paris", "local-paris", "agent-paris", "remote", "remote-berlin", "remote-tokyo"} == {
        each["common_name"] for each in rows.values() if each["usages"] == ["client"]
    }


def test_a_remote_cluster_may_read_its_prefixes_and_a_node_write_below_cilium():
    access = mesh.access(FOUND["berlin"], FOUND)
    roles = {each["name"]: each["permissions"] for each in access["roles"]}
    assert {each["key"] for each in roles["remote"]} == {
        "cilium/.heartbeat",
        "cilium/state/",
        "cilium/cluster-config/berlin",
        "cilium/synced/berlin/",
    }
    assert all("access" not in each for role in ("remote", "local") for each in roles[role])
    assert roles["agent"] == [{"key": "cilium/", "prefix": True, "access": "readwrite"}]
    users = {each["name"]: each["roles"] for each in access["users"]}
    assert users["agent-berlin"] == ["agent"]
    assert users["remote-paris"] == users["remote"] == ["remote"]


def test_addresses_are_those_given_or_those_of_kubespray_or_of_ssh():
    assert (
        mesh.addresses({"datapath_node_addresses": ["192.0.2.1", "2001:db8::1"], "ip": "192.0.2.2"})[0] == "192.0.2.1"
    )
    assert mesh.addresses({"ip": "192.0.2.2", "ansible_host": "192.0.2.3"}) == ["192.0.2.2"]
    assert mesh.addresses({"ansible_host": "node.example", "inventory_hostname": "192.0.2.4"}) == ["192.0.2.4"]
    assert mesh.addresses({"ansible_host": "node.example"}) == []


def test_every_endpoint_that_a_host_needs_is_tried():
    rows = mesh.targets("paris-etcd1", STORES["paris-etcd1"], FOUND)
    assert {(each["cluster"], each["endpoint"]) for each in rows} == {
        ("paris", "https://[2001:db8::31]:2379"),
        ("paris", "https://[2001:db8::32]:12379"),
        ("paris", "https://[2001:db8::32]:2380"),
        ("berlin", "https://192.0.2.21:2379"),
        ("tokyo", "https://192.0.2.41:2379"),
    }


def test_defaults_are_those_that_the_role_documents():
    specs = yaml.safe_load(
        (Path(__file__).resolve().parents[4] / "roles/cluster_mesh/meta/argument_specs.yml").read_text()
    )["argument_specs"]
    documented = specs["main"]["options"]
    assert {name: documented[name]["default"] for name in mesh.DEFAULTS} == mesh.DEFAULTS
    others = {"cilium_cluster_name", "cilium_cluster_id", "ip", "ansible_host", "inventory_dir"}
    others |= {"datapath_cluster_networks", "datapath_max_connected_clusters"}
    assert set(mesh.VARIABLES) - set(documented) == others

"""Everything that stands against connecting clusters, told at once and by name."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.datapath.plugins.plugin_utils.mesh_preflight import judge

OPTIONS = {"max-connected-clusters": 255, "enable-ipv4": True, "enable-ipv6": True, "datapath-cluster-networks": []}
SEEN = {"systemd": "yes", "python": "yes", "package_manager": "apt-get", "etcd": "3.4.23"}


def view(host, cluster, number, address, **more):
    row = {
        "host": host,
        "name": cluster,
        "id": number,
        "member": "etcd" in host,
        "executor": "lb" in host,
        "present": True,
        "peers": None,
        "external": [],
        "authority": "cluster",
        "directory": "/pki",
        "ports": [2379, 2380],
        "addresses": [address],
        "pod_cidrs": [],
        "errors": [],
        "options": OPTIONS,
        "node": SEEN,
        "stores": [],
        "skew": 0.1,
    }
    return {**row, **more}


def both(**more):
    """Two clusters of a member and a node each; `more` is of one host by name, with _ for -."""
    rows = [
        view("berlin-etcd1", "berlin", 1, "192.0.2.21"),
        view("berlin-lb1", "berlin", 1, "192.0.2.11"),
        view("paris-etcd1", "paris", 2, "192.0.2.31"),
        view("paris-lb1", "paris", 2, "192.0.2.12"),
    ]
    return [{**row, **more.get(row["host"].replace("-", "_"), {})} for row in rows]


def refusals(*rows, **more):
    return judge(list(rows) or both(**more))["refusals"]


def test_clusters_that_fit_are_let_through():
    assert judge(both()) == {"refusals": [], "warnings": []}


@pytest.mark.parametrize("number", [None, 0, "0"])
def test_a_cluster_needs_an_id(number):
    rows = [{**row, "id": number} if row["name"] == "paris" else row for row in both()]
    (line,) = refusals(*rows)
    assert line.startswith("cluster paris: cilium_cluster_id is")
    assert line.endswith("1 to 255")


def test_ids_are_unique():
    rows = [{**row, "id": 1} for row in both()]
    assert refusals(*rows) == ["clusters berlin and paris: both have cilium_cluster_id 1"]


def test_what_the_parser_says_is_told_with_the_host():
    """Such as id 256, or a name in upper case: the executor's parser judges those, host by host."""
    (line,) = refusals(paris_lb1={"errors": ["cilium_cluster_id = 256: out of range (allowed: 0 to 255)"]})
    assert line == "paris-lb1: cilium_cluster_id = 256: out of range (allowed: 0 to 255)"


@pytest.mark.parametrize("count", [2, 4, 5])
def test_a_store_has_one_or_three_members(count):
    more = [view(f"berlin-etcd{n}", "berlin", 1, f"192.0.2.{50 + n}") for n in range(2, count + 1)]
    (line,) = refusals(*both(), *more)
    assert f"cluster berlin: its store has {count} members (berlin-etcd1, berlin-etcd2" in line
    assert "1 or 3" in line


def test_three_members_are_fine():
    more = [view(f"berlin-etcd{n}", "berlin", 1, f"192.0.2.{50 + n}") for n in (2, 3)]
    assert refusals(*both(), *more) == []


def test_members_do_not_come_and_go():
    running = {**SEEN, "etcd_ours": "yes", "etcd_active": "yes"}
    assert refusals(berlin_etcd1={"node": {**running, "etcd_members": "berlin-etcd1"}}) == []
    (line,) = refusals(berlin_etcd1={"node": {**running, "etcd_members": "berlin-etcd1 berlin-etcd2 berlin-etcd3"}})
    assert "has the members berlin-etcd1, berlin-etcd2, berlin-etcd3, and the inventory asks for berlin-etcd1." in line
    assert "mesh_restore.yml" in line


def test_a_member_without_a_cluster_is_named():
    (line,) = refusals(*both(), view("etcd9", None, None, "192.0.2.99"))
    assert line.startswith("etcd9: is in group etcd and in no cluster")


def test_a_host_needs_an_address():
    (line,) = refusals(berlin_lb1={"addresses": []})
    assert line == "berlin-lb1: no address that other nodes reach it at: set datapath_node_addresses"


def test_hosts_of_a_cluster_say_the_same_of_it():
    (line,) = refusals(berlin_lb1={"peers": ["paris"]})
    assert "cluster berlin: datapath_clustermesh_peers differs between its hosts: None on berlin-etcd1" in line


@pytest.mark.parametrize(
    ("peers", "words"),
    [(["berlin"], "names the cluster itself"), (["pariss"], "did you mean paris?"), (["oslo"], "there are: paris")],
)
def test_peers_are_other_clusters_of_the_inventory(peers, words):
    (line,) = refusals(berlin_etcd1={"peers": peers}, berlin_lb1={"peers": peers})
    assert words in line


@pytest.mark.parametrize(
    ("name", "words"), [("berlin", "is the cluster itself"), ("paris", "is a cluster of this inventory")]
)
def test_an_external_peer_is_somebody_else(name, words):
    peer = {"name": name, "endpoints": ["https://oslo:2379"], "ca": "a", "certificate": "b", "key": "c"}
    (line,) = refusals(berlin_etcd1={"external": [peer]}, berlin_lb1={"external": [peer]})
    assert words in line


def test_what_an_external_peer_lacks_is_told():
    peer = {
        "name": "oslo",
        "endpoints": ["https://oslo:2379"],
        "ca": "a",
        "certificate": "b",
        "errors": ["ca: expired"],
    }
    lines = refusals(berlin_etcd1={"external": [peer]}, berlin_lb1={"external": [peer]})
    assert len(lines) == 2
    assert any("oslo: key is missing" in line for line in lines)
    assert any("oslo: ca: expired" in line for line in lines)


@pytest.mark.parametrize(
    ("key", "value", "variable"),
    [("max-connected-clusters", 511, "datapath_max_connected_clusters"), ("enable-ipv6", False, "cilium_enable_ipv6")],
)
def test_options_that_clusters_have_in_common(key, value, variable):
    (line,) = refusals(paris_lb1={"options": {**OPTIONS, key: value}})
    assert line.startswith(f"{variable} ({key}) has to be the same in all clusters: ")
    assert f"{value} on paris-lb1 (paris)" in line


def test_options_of_a_store_s_members_mean_nothing():
    assert refusals(paris_etcd1={"options": {**OPTIONS, "enable-ipv6": False}}) == []


def networks(*texts):
    return {"options": {**OPTIONS, "datapath-cluster-networks": list(texts)}}


@pytest.mark.parametrize(
    ("berlin", "paris", "pair"),
    [
        (networks("10.1.0.0/16"), networks("10.1.128.0/17"), ("10.1.0.0/16 (datapath_cluster_net", "10.1.128.0/17 (")),
        (networks("10.1.0.0/16"), {"pod_cidrs": ["10.1.2.0/24"]}, ("10.1.0.0/16", "10.1.2.0/24 (datapath_node_pod_c")),
        (networks("192.0.2.12/31"), {}, ("192.0.2.12/31 (", "192.0.2.12 (address of paris-lb1)")),
        ({"addresses": ["192.0.2.12"]}, {}, ("12 (address of berlin-lb1)", "192.0.2.12 (address of paris-lb1)")),
        (networks("2001:db8::/32"), networks("2001:db8:1::/48"), ("2001:db8::/32", "2001:db8:1::/48")),
    ],
)
def test_networks_that_overlap_are_told_in_pairs(berlin, paris, pair):
    (line,) = refusals(berlin_lb1=berlin, paris_lb1=paris)
    assert pair[0] in line
    assert pair[1] in line
    assert "of cluster berlin and" in line
    assert line.endswith("of cluster paris overlap")


def test_networks_of_one_cluster_may_overlap():
    assert (
        refusals(berlin_etcd1=networks("192.0.2.20/31", "10.0.0.0/8"), berlin_lb1={"pod_cidrs": ["10.1.0.0/16"]}) == []
    )


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"etcd": "3.3.25"}, "etcd is 3.3.25. Certificates as users take 3.4 or newer"),
        ({"etcd_active": "yes"}, "an etcd of something else runs there"),
        ({"systemd": None}, "systemd does not run"),
        ({"python": None}, "there is no python3"),
        ({"etcd": None, "package_manager": None}, "there is no etcd, and no package manager"),
        ({"etcd": None, "etcd_candidate": "3.2.26+dfsg"}, "etcd is 3.2.26"),
    ],
)
def test_a_member_that_cannot_run_etcd(seen, words):
    (line,) = refusals(paris_etcd1={"node": {**SEEN, **seen}})
    assert line.startswith("paris-etcd1: ")
    assert words in line
    assert refusals(paris_lb1={"node": {**SEEN, **seen}}) == []


REFUSED = {
    "cluster": "paris",
    "endpoint": "https://192.0.2.31:2379",
    "member": "paris-etcd1",
    "problem": "refused",
    "refused": True,
}


def test_a_store_that_does_not_run_yet_may_refuse_connections():
    assert refusals(berlin_lb1={"stores": [REFUSED]}) == []


@pytest.mark.parametrize(
    ("row", "seen"),
    [
        (REFUSED, {"etcd_ours": "yes", "etcd_active": "yes"}),
        ({**REFUSED, "refused": False, "problem": "no answer within 3 s"}, {}),
        ({**REFUSED, "member": "", "cluster": "oslo"}, {}),
    ],
)
def test_a_store_that_cannot_be_reached(row, seen):
    """Because it runs and refuses, because something swallows packets, or because somebody else should run it."""
    (line,) = refusals(berlin_lb1={"stores": [row]}, paris_etcd1={"node": {**SEEN, **seen}})
    assert line == f"berlin-lb1 does not reach the store of {row['cluster']}: {row['problem']}"


def test_clocks():
    found = judge(both(paris_lb1={"skew": 1.5}, paris_etcd1={"skew": 45.0}, berlin_lb1={"skew": None}))
    assert found["warnings"] == [
        "the clocks of berlin-etcd1 and paris-lb1 are 1.4 s apart. Have them follow one source (NTP)"
    ]
    assert found["refusals"] == [
        "the clocks of berlin-etcd1 and paris-etcd1 are 44.9 s apart. Have them follow one source (NTP)"
    ]


def test_everything_is_told_at_once():
    rows = both(
        berlin_lb1={"addresses": []},
        paris_lb1=networks("192.0.2.0/24"),
        paris_etcd1={"node": {**SEEN, "etcd": "3.2.1"}},
    )
    assert len(refusals(*({**row, "id": 1} for row in rows))) >= 4

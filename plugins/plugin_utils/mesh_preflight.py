# SPDX-License-Identifier: Apache-2.0
"""What stands against connecting the clusters of an inventory, all of it at once.

A view is what is known of one host: its names and options by the inventory, and what was seen on it.
"""

from __future__ import annotations

import difflib
import ipaddress
import itertools

_MEMBERS = (1, 3)
_ETCD = (3, 4)
_SAME = {
    "max-connected-clusters": "datapath_max_connected_clusters",
    "enable-ipv4": "cilium_enable_ipv4",
    "enable-ipv6": "cilium_enable_ipv6",
}
"""Options that all clusters of a mesh have in common, and the variables that set them."""
_WITHIN = ("present", "peers", "external", "authority", "directory", "ports")
"""What all hosts of a cluster have to say alike."""
WARN_SKEW, REFUSE_SKEW = 1.0, 30.0
"""Seconds between two clocks."""


def judge(views, warn_skew=WARN_SKEW, refuse_skew=REFUSE_SKEW):
    """{"refusals": [...], "warnings": [...]}, a line each."""
    grouped = {}
    for view in views:
        if view.get("name"):
            grouped.setdefault(view["name"], []).append(view)
    refusals = []
    for check in (_unnamed, _parsed, _members, _alike, _ids, _peers, _options, _networks, _software, _reachable):
        refusals += check(views, grouped)
    slow, wrong = _clocks(views, warn_skew, refuse_skew)
    return {"refusals": list(dict.fromkeys(refusals + wrong)), "warnings": slow}


def _unnamed(views, grouped):
    for view in views:
        if view["member"] and not view.get("name"):
            yield (
                "%s: is in group etcd and in no cluster. Set cilium_cluster_name and cilium_cluster_id in the group of"
                " its cluster, or take it out of group etcd" % view["host"]
            )


def _parsed(views, grouped):
    """What the executor's own parser says of each host."""
    for view in views:
        for line in view.get("errors") or ():
            yield "%s: %s" % (view["host"], line)


def _members(views, grouped):
    for name, group in sorted(grouped.items()):
        members = [view["host"] for view in group if view["member"]]
        if members and len(members) not in _MEMBERS:
            yield (
                "cluster %s: its store has %d members (%s). With an even number it stands as soon as with one less:"
                " have 1 or 3 hosts in group etcd" % (name, len(members), ", ".join(sorted(members)))
            )
        have = {tuple(sorted(view["node"]["etcd_members"].split())) for view in group if _has_members(view)}
        for found in sorted(have - {tuple(sorted(members))}):
            yield (
                "cluster %s: its store has the members %s, and the inventory asks for %s. Members do not come and go"
                " while a store runs: make a backup (playbooks/mesh_backup.yml), and restore it on those that you want"
                " (playbooks/mesh_restore.yml)" % (name, ", ".join(found), ", ".join(sorted(members)))
            )
        for view in group:
            if not view["addresses"]:
                yield "%s: no address that other nodes reach it at: set datapath_node_addresses" % view["host"]


def _has_members(view):
    return view["member"] and (view.get("node") or {}).get("etcd_members")


def _alike(views, grouped):
    for name, group in sorted(grouped.items()):
        first = group[0]
        for other in group[1:]:
            for what in ("id", *_WITHIN):
                if str(other.get(what)) != str(first.get(what)):
                    yield "cluster %s: %s differs between its hosts: %s on %s, %s on %s" % (
                        name, _VARIABLE[what], first.get(what), first["host"], other.get(what), other["host"],
                    )  # fmt: skip


_VARIABLE = {
    "id": "cilium_cluster_id",
    "present": "datapath_clustermesh_state",
    "peers": "datapath_clustermesh_peers",
    "external": "datapath_clustermesh_external_peers",
    "authority": "datapath_clustermesh_ca",
    "directory": "datapath_clustermesh_pki_dir",
    "ports": "datapath_etcd_client_port or datapath_etcd_peer_port",
}


def _ids(views, grouped):
    owners = {}
    for name, group in sorted(grouped.items()):
        number = str(group[0].get("id") or 0)
        if number == "0":
            yield "cluster %s: cilium_cluster_id is %s. A cluster in a mesh needs an id of its own, 1 to 255" % (
                name, "not set" if group[0].get("id") is None else 0,
            )  # fmt: skip
            continue
        owner = owners.setdefault(number, name)
        if owner != name:
            yield "clusters %s and %s: both have cilium_cluster_id %s" % (owner, name, number)


def _peers(views, grouped):
    for name, group in sorted(grouped.items()):
        first = group[0]
        stores = sorted(other for other, views in grouped.items() if other != name and any(v["member"] for v in views))
        for peer in first.get("peers") or ():
            if peer == name:
                yield "cluster %s: datapath_clustermesh_peers names the cluster itself" % name
            elif peer not in stores:
                nearest = difflib.get_close_matches(str(peer), stores, n=1)
                hint = "did you mean %s?" % nearest[0] if nearest else "there are: %s" % ", ".join(stores)
                text = "cluster %s: datapath_clustermesh_peers: no cluster %s with a store is in the inventory (%s)"
                yield text % (name, peer, hint)
        for each in first.get("external") or ():
            yield from _external(name, each, grouped)


def _external(name, peer, grouped):
    path = "cluster %s: datapath_clustermesh_external_peers: %s" % (name, peer.get("name") or "a peer without a name")
    if peer.get("name") == name:
        yield path + " is the cluster itself"
    elif peer.get("name") in grouped:
        yield path + " is a cluster of this inventory, which follows it anyway"
    for field in ("name", "endpoints", "ca", "certificate", "key"):
        if not peer.get(field):
            yield "%s: %s is missing" % (path, field)
    for line in peer.get("errors") or ():
        yield "%s: %s" % (path, line)


def _options(views, grouped):
    for key, variable in _SAME.items():
        said = {}
        for name, group in sorted(grouped.items()):
            # A member of a store has no use for options, and may well be in no group that sets them.
            for view in group:
                if view["executor"] and key in (view.get("options") or {}):
                    said.setdefault(str(view["options"][key]), "%s (%s)" % (view["host"], name))
        if len(said) > 1:
            words = ", ".join("%s on %s" % each for each in sorted(said.items()))
            yield "%s (%s) has to be the same in all clusters: %s" % (variable, key, words)


# --- Addresses ---


def _networks(views, grouped):
    """Networks that two clusters have, and addresses of nodes in networks of others, with the pair named."""
    owned = list(dict.fromkeys(_owned(grouped)))
    for one, other in itertools.combinations(owned, 2):
        if one[0] != other[0] and one[1].version == other[1].version and one[1].overlaps(other[1]):
            yield "%s of cluster %s and %s of cluster %s overlap" % (_told(one), one[0], _told(other), other[0])


def _told(owned):
    network, what = owned[1:]
    shown = network.network_address if network.prefixlen == network.max_prefixlen else network
    return "%s (%s)" % (shown, what)


def _owned(grouped):
    """(cluster, network, where it is said)."""
    for name, group in sorted(grouped.items()):
        for view in group:
            for text in (view.get("options") or {}).get("datapath-cluster-networks") or ():
                yield from _network(name, text, "datapath_cluster_networks")
            for text in view.get("pod_cidrs") or ():
                yield from _network(name, text, "datapath_node_pod_cidrs of %s" % view["host"])
            for text in view["addresses"]:
                yield from _network(name, text, "address of %s" % view["host"])


def _network(name, text, where):
    try:
        yield name, ipaddress.ip_network(str(text)), where
    except ValueError:
        # What is no network the executor's parser has refused.
        return


# --- What was seen on the hosts ---


def _software(views, grouped):
    for view in views:
        node = view.get("node") or {}
        if not view["member"] or not node:
            continue
        host = view["host"]
        if node.get("systemd") != "yes":
            yield (
                "%s: systemd does not run as the system manager. etcd cannot be kept running. Boot with systemd" % host
            )
        if node.get("python") != "yes":
            yield "%s: there is no python3. Nothing can be set up there. Install it" % host
        version = node.get("etcd") or node.get("etcd_candidate")
        if version is None and not node.get("package_manager"):
            yield "%s: there is no etcd, and no package manager that the role knows. Install etcd and etcdctl" % host
        if version is not None and _version(version) < _ETCD:
            yield "%s: etcd is %s. Certificates as users take 3.4 or newer" % (host, version)
        if node.get("etcd_active") == "yes" and node.get("etcd_ours") != "yes":
            yield (
                "%s: an etcd of something else runs there (etcd.service). Have the store on another host; or stop it,"
                " if nothing needs it: systemctl disable --now etcd" % host
            )


def _version(text):
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _reachable(views, grouped):
    running = {
        view["host"] for view in views if view["member"] and (view.get("node") or {}).get("etcd_ours") == "yes"
        and view["node"].get("etcd_active") == "yes"
    }  # fmt: skip
    for view in views:
        for row in view.get("stores") or ():
            problem = row.get("problem")
            # Before a store exists there is a host that refuses connections; nothing else is fine even then.
            if problem and not (row.get("refused") and row.get("member") and row["member"] not in running):
                yield "%s does not reach the store of %s: %s" % (view["host"], row["cluster"], problem)


def _clocks(views, warn, refuse):
    """Differences between any host's clock and the earliest one: what is told, and what is refused."""
    known = sorted((view["skew"], view["host"]) for view in views if view.get("skew") is not None)
    if len(known) < 2:
        return [], []
    slow, wrong = [], []
    earliest, reference = known[0]
    for skew, host in known[1:]:
        apart = skew - earliest
        if apart > warn:
            text = "the clocks of %s and %s are %.1f s apart. Have them follow one source (NTP)"
            (wrong if apart > refuse else slow).append(text % (reference, host, apart))
    return slow, wrong

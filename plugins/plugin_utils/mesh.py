# SPDX-License-Identifier: Apache-2.0
"""The clusters of an inventory: stores, who follows whom, and what that takes of certificates, users and files."""

from __future__ import annotations

import ipaddress

CONFIGURATION = "/etc/datapath/clustermesh"
"""Where a node has what it needs of its own store; a directory below is for each peer."""
ETCD = "/etc/datapath/etcd"

NODES = ("lb_node", "dsr_backend_node", "endpoint_node")
"""Groups of hosts with an executor."""

DEFAULTS = {
    "datapath_clustermesh_state": "present",
    "datapath_clustermesh_ca": "cluster",
    "datapath_clustermesh_certificate_days": 365,
    "datapath_clustermesh_renew_days": 60,
    "datapath_clustermesh_ca_days": 3650,
    "datapath_etcd_client_port": 2379,
    "datapath_etcd_peer_port": 2380,
}
VARIABLES = (
    "cilium_cluster_name",
    "cilium_cluster_id",
    "datapath_clustermesh_peers",
    "datapath_clustermesh_external_peers",
    "datapath_clustermesh_pki_dir",
    "datapath_clustermesh_ca_certificate",
    "datapath_clustermesh_ca_key",
    "datapath_clustermesh_trusted_ca",
    "datapath_clustermesh_server_names",
    "datapath_node_addresses",
    "datapath_node_pod_cidrs",
    "datapath_cluster_networks",
    "datapath_max_connected_clusters",
    "ip",
    "ansible_host",
    "inventory_dir",
    *DEFAULTS,
)
"""What is read of a host's variables."""


def value(variables, name):
    """A variable of a host, or its default; None where there is neither."""
    found = variables.get(name)
    return DEFAULTS.get(name) if found is None else found


def addresses(variables):
    """The addresses that other nodes reach a host at; the first is that of its store."""
    given = variables.get("datapath_node_addresses")
    if given:
        return [str(each) for each in given]
    candidates = (_address(variables.get(name)) for name in ("ip", "ansible_host", "inventory_hostname"))
    return [each for each in candidates if each][:1]


def _address(text):
    try:
        return str(ipaddress.ip_address(str(text)))
    except ValueError:
        return None


def clusters(hosts):
    """{name: cluster} of the hosts of group etcd, {host: variables}: members, and the first one's variables."""
    found = {}
    for host in sorted(hosts):
        variables = hosts[host]
        name = variables.get("cilium_cluster_name")
        if name:
            cluster = found.setdefault(name, {"name": name, "members": [], "variables": variables})
            cluster["members"].append(_member(host, variables))
    return found


def _member(host, variables):
    known = addresses(variables)
    address = known[0] if known else ""
    ports = [value(variables, "datapath_etcd_%s_port" % each) for each in ("client", "peer")]
    client, peer = (_url(address, port) for port in ports)
    return {"host": host, "addresses": known, "client": client, "peer": peer}


def _url(address, port):
    return "https://%s:%s" % ("[%s]" % address if ":" in address else address, port)


def endpoints(cluster):
    """URLs of a cluster's store."""
    return [member["client"] for member in cluster["members"] if member["addresses"]]


def takes_part(variables, found):
    """Whether a host's cluster has to do with a mesh at all: a store of its own, or clusters that it is told to follow.

    Without an id a cluster is alone, as the members of Kubespray's group etcd are by its defaults.
    """
    name, number = variables.get("cilium_cluster_name"), variables.get("cilium_cluster_id")
    return (
        bool(name)
        and str(number or 0) != "0"
        and (name in found or bool(variables.get("datapath_clustermesh_external_peers")))
    )


def present(variables):
    """Whether the host's cluster is connected to others."""
    return value(variables, "datapath_clustermesh_state") != "absent"


def follows(variables, found):
    """Names of the clusters of the inventory that a host's cluster follows."""
    own = variables.get("cilium_cluster_name")
    if not present(variables):
        return []
    there = [name for name in sorted(found) if name != own and present(found[name]["variables"])]
    chosen = variables.get("datapath_clustermesh_peers")
    return there if chosen is None else [name for name in there if name in chosen]


def section(host, variables, found, publisher):
    """The section `clustermesh` of a node's desired state; None where its cluster has to do with no mesh."""
    if not takes_part(variables, found):
        return None
    own = found.get(variables["cilium_cluster_name"])
    items = [_peer(name, endpoints(found[name])) for name in follows(variables, found)]
    if present(variables):
        items += [_peer(each["name"], each["endpoints"]) for each in external(variables)]
    document = {"purge": True, "items": items, "store": None}
    if own is not None and present(variables):
        document["store"] = {
            "endpoints": endpoints(own),
            **_files(CONFIGURATION, "agent"),
            "publisher": publisher,
            "node": {
                "name": host,
                "addresses": addresses(variables),
                "pod_cidrs": list(variables.get("datapath_node_pod_cidrs") or ()),
            },
        }
    return document


def of_inventory(inventory):
    """What a lookup sees: the host's own variables, all clusters, and the section of the host's desired state.

    Load balancers may publish for their cluster: they have its services, and check their backends.
    """
    own = inventory.own(VARIABLES)
    found = clusters(inventory.group("etcd", VARIABLES))
    return own, found, section(inventory.host, own, found, inventory.is_in("lb_node"))


def external(variables):
    """Peers that no inventory manages."""
    return list(variables.get("datapath_clustermesh_external_peers") or ())


def _peer(name, urls):
    return {"name": name, "endpoints": list(urls), **_files("%s/%s" % (CONFIGURATION, name), "remote")}


def _files(directory, name):
    return {
        "ca": directory + "/ca.pem",
        "certificate": "%s/%s.pem" % (directory, name),
        "key": "%s/%s.key" % (directory, name),
    }


def targets(host, variables, found):
    """Every endpoint that a host of the mesh has to reach: the cluster, URL, and host where the inventory has it."""
    own = variables.get("cilium_cluster_name")
    names = [own, *follows(variables, found)] if own in found else follows(variables, found)
    rows = [_target(name, "client", member) for name in names for member in found[name]["members"]]
    if own in found and host in [member["host"] for member in found[own]["members"]]:
        rows += [_target(own, "peer", member) for member in found[own]["members"] if member["host"] != host]
    for each in external(variables):
        rows += [{"cluster": each.get("name"), "endpoint": url, "member": ""} for url in each.get("endpoints") or ()]
    return [row for row in rows if row["endpoint"]]


def _target(name, kind, member):
    return {"cluster": name, "endpoint": member[kind] if member["addresses"] else "", "member": member["host"]}


def _said(variables):
    """Options as the inventory has them, for a host whose options the executor's parser does not take as they are."""
    networks, most = (variables.get("datapath_" + name) for name in ("cluster_networks", "max_connected_clusters"))
    said = {"datapath-cluster-networks": networks} if isinstance(networks, list) else {}
    return said if most is None else {**said, "max-connected-clusters": most}


def view(host, variables, member, executor):
    """What the preflight compares of a host, as the inventory has it."""
    return {
        "host": host,
        "member": member,
        "executor": executor,
        "name": variables.get("cilium_cluster_name"),
        "id": variables.get("cilium_cluster_id"),
        "present": present(variables),
        "peers": variables.get("datapath_clustermesh_peers"),
        "external": external(variables),
        "authority": value(variables, "datapath_clustermesh_ca"),
        "directory": pki_directory(variables),
        "ports": [value(variables, "datapath_etcd_%s_port" % each) for each in ("client", "peer")],
        "options": _said(variables),
        "addresses": addresses(variables),
        "pod_cidrs": list(variables.get("datapath_node_pod_cidrs") or ()),
    }


# --- Certificates ---


def pki_directory(variables):
    """Where the control node keeps CAs and certificates."""
    given = variables.get("datapath_clustermesh_pki_dir")
    return given or "%s/.credentials/clustermesh" % variables.get("inventory_dir", ".")


def readers(cluster, found):
    """Names of the clusters that follow this one, of the inventory and others."""
    own = cluster["name"]
    inside = [name for name in sorted(found) if own in follows(found[name]["variables"], found)]
    return inside + [each["name"] for each in external(cluster["variables"]) if present(cluster["variables"])]


def certificates(cluster, found):
    """Everything that a cluster's CA issues, as module clustermesh_certificates takes it."""
    name, variables = cluster["name"], cluster["variables"]
    wanted = [row for member in cluster["members"] for row in _of_member(cluster, member)]
    users = ["root", "admin-" + name, "local-" + name, "agent-" + name, "remote"]
    users += ["remote-" + each for each in readers(cluster, found)]
    wanted += [{"name": each, "common_name": each, "usages": ["client"]} for each in users]
    return {
        "name": name,
        "authority": value(variables, "datapath_clustermesh_ca"),
        "ca_certificate": variables.get("datapath_clustermesh_ca_certificate"),
        "ca_key": variables.get("datapath_clustermesh_ca_key"),
        "trusted": list(variables.get("datapath_clustermesh_trusted_ca") or ()),
        "certificates": wanted,
    }


def _of_member(cluster, member):
    """A member's own gateway is a client of it, hence both usages. These common names are no users.

    All members have one common name for each other: nobody else's certificate may speak for a member.
    """
    extra = list(cluster["variables"].get("datapath_clustermesh_server_names") or ())
    # The name that Cilium's agents know a cluster's store by.
    names = [*member["addresses"], member["host"], cluster["name"] + ".mesh.cilium.io", *extra]
    local = ["localhost", "127.0.0.1", "::1"]
    for kind, hosts in (("server", names + local), ("peer", [*member["addresses"], member["host"]])):
        yield {
            "name": "%s-%s" % (kind, member["host"]),
            "common_name": "etcd-%s-%s" % (kind, cluster["name"]),
            "hosts": list(dict.fromkeys(hosts)),
            "usages": ["server", "client"],
        }


# --- Users ---


def access(cluster, found):
    """Users and roles of a cluster's store, as module etcd_users takes them. Names are those of Cilium's clusters."""
    name = cluster["name"]
    followers = ["remote-" + each for each in readers(cluster, found)]
    remote = [
        {"key": "cilium/.heartbeat", "prefix": True},
        {"key": "cilium/state/", "prefix": True},
        {"key": "cilium/cluster-config/" + name},
        {"key": "cilium/synced/%s/" % name, "prefix": True},
    ]
    beginnings = ("cilium/.heartbeat", "cilium/cache/", "cilium/cluster-config/", "cilium/synced/")
    local = [{"key": each, "prefix": True} for each in beginnings]
    agent = [{"key": "cilium/", "prefix": True, "access": "readwrite"}]
    users = {"admin-" + name: "root", "local-" + name: "local", "agent-" + name: "agent", "remote": "remote"}
    users.update(dict.fromkeys(followers, "remote"))
    return {
        "roles": [
            {"name": role, "permissions": rows}
            for role, rows in (("agent", agent), ("local", local), ("remote", remote))
        ],
        "users": [{"name": user, "roles": [role]} for user, role in users.items()],
        "purge": ["admin-*", "agent-*", "local-*", "remote-*"],
    }


# --- Files ---


def node_files(variables, found):
    """What a node needs of certificates, a row each: path, mode, owner, and the source on the control node."""
    directory = pki_directory(variables)
    own = variables.get("cilium_cluster_name")
    rows = []
    if own in found and present(variables):
        rows += _rows(CONFIGURATION, "agent", "%s/%s/" % (directory, own), "agent-" + own)
    for name in follows(variables, found):
        place = "%s/%s/" % (pki_directory(found[name]["variables"]), name)
        rows += _rows("%s/%s" % (CONFIGURATION, name), "remote", place, "remote-" + own)
    for each in external(variables) if present(variables) else ():
        paths = _files("%s/%s" % (CONFIGURATION, each["name"]), "remote")
        rows += [_row(paths[kind], each[kind], kind) for kind in ("ca", "key", "certificate")]
    return rows


def member_files(host, cluster):
    """What a member of a cluster's store needs."""
    place = "%s/%s/" % (pki_directory(cluster["variables"]), cluster["name"])
    rows = _rows(ETCD, "server", place, "server-" + host, "etcd")
    rows += _rows(ETCD, "peer", place, "peer-" + host, "etcd")[1:]
    return rows + _rows(ETCD, "root", place, "root")[1:]


def without_sources(rows):
    """The rows as module certificate_files takes them, and the sources beside."""
    files = [{name: row[name] for name in row if name != "source"} for row in rows]
    return {"files": files, "sources": [row["source"] for row in rows]}


def _rows(directory, name, place, source, owner="root"):
    paths = _files(directory, name)
    sources = {"ca": place + "bundle.pem", "certificate": place + source + ".pem", "key": place + source + ".key"}
    return [_row(paths[kind], sources[kind], kind, owner) for kind in ("ca", "key", "certificate")]


def _row(path, source, kind, owner="root"):
    secret = kind == "key"
    return {"path": path, "source": source, "mode": "0600" if secret else "0644", "owner": owner if secret else "root"}

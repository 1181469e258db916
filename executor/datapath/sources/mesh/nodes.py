"""Nodes as clusters publish them: Cilium's JSON (pure)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from datapath.sources.mesh.values import (
    QuarantineError,
    check_network,
    dump_mask,
    expect,
    read_address,
    read_document,
    read_mask,
    write_document,
)
from datapath.spec.store import NODE_NAME
from datapath.state.model import IPNetwork
from datapath.state.remote import NodeAddress, RemoteNode

_TYPE = re.compile(r"[A-Za-z]{1,32}", re.ASCII)
_FAMILIES = (4, 6)


def parse_node_name(rest: str) -> str:
    """The node whose key ends so. Raises QuarantineError."""
    if not NODE_NAME.fullmatch(rest):
        raise QuarantineError("the key does not end with the name of a node")
    return rest


def parse_node(raw: bytes, cluster: str, cluster_id: int, name: str, own: Sequence[IPNetwork] = ()) -> RemoteNode:
    """The node `name` of a cluster; `own` are networks that only this cluster has. Raises QuarantineError."""
    document = read_document(raw)
    expect(document, "Cluster", cluster)
    expect(document, "Name", name)
    expect(document, "ClusterID", cluster_id)
    networks = [network for version in _FAMILIES for network in _alloc_cidrs(document, version)]
    for network in networks:
        check_network(network, "pod CIDRs", own)
    if len(set(networks)) != len(networks):
        raise QuarantineError("pod CIDRs: one is there twice")
    return RemoteNode(cluster, cluster_id, name, tuple(_addresses(document, own)), tuple(networks))


def _addresses(document: Mapping[str, Any], own: Sequence[IPNetwork]) -> list[NodeAddress]:
    found = []
    for item in _list(document, "IPAddresses"):
        kind = item.get("Type") if isinstance(item, dict) else None
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
            raise QuarantineError(f"IPAddresses: {item!r:.80} is not an address with its type")
        found.append(NodeAddress(kind, read_address(item.get("IP"), f"IPAddresses.{kind}", own)))
    return found


def _alloc_cidrs(document: Mapping[str, Any], version: int) -> list[IPNetwork]:
    """Networks of a node's endpoints, the first one first."""
    field = f"IPv{version}AllocCIDR"
    found = [_network(document.get(field), field, version)]
    field = f"IPv{version}SecondaryAllocCIDRs"
    found += [_network(each, field, version) for each in _list(document, field)]
    return [network for network in found if network is not None]


def _network(raw: object, what: str, version: int) -> Optional[IPNetwork]:
    """A network as an object, or as text, which Cilium reads from 1.20 on; None where Go wrote null."""
    if raw is None:
        return None
    try:
        if isinstance(raw, dict):
            address = ipaddress.ip_address(str(raw.get("IP")))
            network = ipaddress.ip_network((address, read_mask(raw.get("Mask"), address.max_prefixlen, what)), False)
        else:
            network = ipaddress.ip_network(raw if isinstance(raw, str) else "", False)
    except QuarantineError:
        raise
    except ValueError:
        raise QuarantineError(f"{what}: {raw!r:.80} is not a network") from None
    if network.version != version:
        raise QuarantineError(f"{what}: {network} is not IPv{version}")
    return network


def _list(document: Mapping[str, Any], field: str) -> Sequence[Any]:
    """Go writes an empty list as null."""
    value = document.get(field)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise QuarantineError(f"{field}: {value!r:.80} is not a list")
    return value


def dump_node(node: RemoteNode) -> bytes:
    """The node as `parse_node` and Cilium read it."""
    document: dict[str, Any] = {
        "Name": node.name,
        "Cluster": node.cluster,
        "IPAddresses": [{"Type": each.type, "IP": str(each.address)} for each in node.addresses],
    }
    for version in _FAMILIES:
        cidrs = [_dump_network(each) for each in node.pod_cidrs if each.version == version]
        document[f"IPv{version}AllocCIDR"] = cidrs[0] if cidrs else None
        document[f"IPv{version}SecondaryAllocCIDRs"] = cidrs[1:] or None
    for field in ("IPv4HealthIP", "IPv6HealthIP", "IPv4IngressIP", "IPv6IngressIP"):
        document[field] = ""
    document.update(ClusterID=node.cluster_id, Source="local", EncryptionKey=0, Labels={}, Annotations={})
    document.update(NodeIdentity=0, WireguardPubKey="", BootID="")
    return write_document(document)


def _dump_network(network: IPNetwork) -> dict[str, str]:
    # Text is for readers of a later version of Cilium than most.
    return {"IP": str(network.network_address), "Mask": dump_mask(network.prefixlen, network.max_prefixlen)}

"""Parsing and dumping of the cluster mesh: this cluster's name and id, its peers, and names that all clusters share."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Optional
from urllib.parse import urlsplit

from datapath.spec import scalars
from datapath.spec.errors import RefusedError, in_lower_case
from datapath.spec.fields import Fields, Violations
from datapath.state.model import IPNetwork, Peer, StoreEndpoint
from datapath.state.remote import ServiceName

FILES = ("ca", "certificate", "key")
PEER_FIELDS = ("name", "state", "endpoints", *FILES)
CLUSTER_FORM = "1 to 32 of a-z, 0-9 and -, neither first nor last a -"
ENDPOINT_FORM = "https://HOST:PORT, as https://192.0.2.31:2379 or https://[2001:db8::31]:2379"
FILE_FORM = "an absolute path on the node"
CLUSTERS = (255, 511)
"""The values that Cilium allows for the number of clusters in a mesh."""
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
NAME = re.compile(r"[a-zA-Z0-9]([-._a-zA-Z0-9]{0,251}[a-zA-Z0-9])?", re.ASCII)
_CLUSTER = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_HOST = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", re.ASCII)
DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True)
class ParsedPeer:
    """What one item of the document says."""

    path: str
    name: str
    present: bool
    peer: Optional[Peer]
    """None where something is refused, or where only the name of an absent peer is given."""


def cluster_name(name: str) -> None:
    """A name that Cilium lets a cluster have, with its messages."""
    if not name:
        raise RefusedError("must not be empty", CLUSTER_FORM)
    if len(name) > 32:
        raise RefusedError("must not be more than 32 characters", CLUSTER_FORM)
    if not _CLUSTER.fullmatch(name):
        message = "must consist of lower case alphanumeric characters and '-', and start and end with such a character"
        raise RefusedError(message, CLUSTER_FORM, in_lower_case(name, _CLUSTER))


def max_connected_clusters(number: int) -> None:
    """One of the two layouts of identities."""
    if number not in CLUSTERS:
        message = f"--max-connected-clusters={number} is invalid; supported values are {list(CLUSTERS)}"
        raise RefusedError(message, ", ".join(str(each) for each in CLUSTERS))


def networks(words: tuple[str, ...]) -> None:
    """Networks by their base addresses."""
    for word in words:
        parse_network(word)


def parse_network(word: str) -> IPNetwork:
    """A network by its base address. Raises RefusedError."""
    try:
        return ipaddress.ip_network(word)
    except ValueError:
        allowed = "networks such as 10.1.0.0/16, by their base addresses"
        raise RefusedError(f"{word!r:.80} is not a network", allowed) from None


def service_name(name: str) -> Optional[ServiceName]:
    """What a service of this node is called in the mesh; None where it cannot be called anything there."""
    namespace, slash, rest = name.partition("/")
    found = ServiceName(namespace, rest) if slash else ServiceName(DEFAULT_NAMESPACE, name)
    return found if NAMESPACE.fullmatch(found.namespace) and NAME.fullmatch(found.name) else None


def parse_peer(violations: Violations, path: str, raw: Any) -> Optional[ParsedPeer]:
    """Read one item; None where it has no usable name."""
    fields = Fields(violations, path, raw, PEER_FIELDS)
    name = fields.require("name", _name, CLUSTER_FORM) if isinstance(raw, dict) else None
    present = fields.take_or("state", scalars.parse_presence, True)
    endpoints, files = parse_place(fields, "a peer", needed=present)
    if name is None:
        return None
    peer = None
    if fields.sound and endpoints and all(files.values()):
        peer = Peer(name, endpoints, **{each: str(value) for each, value in files.items()})
    return ParsedPeer(path, name, present, peer)


def parse_place(
    fields: Fields, what: str, needed: bool
) -> tuple[tuple[StoreEndpoint, ...], Mapping[str, Optional[str]]]:
    """Where a store is, and the files that open it: whom to trust, and who this node is."""
    files = {each: _file(fields, each, needed) for each in FILES}
    return _endpoints(fields, what, needed), files


def _name(raw: Any) -> str:
    name = scalars.parse_text(raw)
    cluster_name(name)
    return name


def _file(fields: Fields, name: str, needed: bool) -> Optional[str]:
    if needed:
        return fields.require(name, _path, FILE_FORM)
    return fields.take(name, _path)


def _path(raw: Any) -> str:
    text = scalars.parse_text(raw)
    if not PurePosixPath(text).is_absolute():
        raise RefusedError("not an absolute path", FILE_FORM)
    return text


def _endpoints(fields: Fields, what: str, needed: bool) -> tuple[StoreEndpoint, ...]:
    violations = fields.violations
    before = len(violations.errors)
    found = fields.distinct("endpoints", _endpoint, "{value} is the same endpoint as {first}")
    if needed and not found and len(violations.errors) == before:
        violations.add(fields.at("endpoints"), fields.raw("endpoints"), f"{what} needs an endpoint", ENDPOINT_FORM)
    return found


def _endpoint(raw: Any) -> StoreEndpoint:
    text = scalars.parse_text(raw)
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise RefusedError("not a URL", ENDPOINT_FORM) from None
    if parts.scheme == "http":
        raise RefusedError("without TLS nobody would know who is at the other end", ENDPOINT_FORM)
    if parts.scheme != "https" or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise RefusedError("not the URL of an etcd endpoint", ENDPOINT_FORM)
    if port is None:
        raise RefusedError("an endpoint needs a port", ENDPOINT_FORM)
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        return StoreEndpoint(str(_store_address(host)), scalars.parse_port(port))
    if not _HOST.fullmatch(host):
        raise RefusedError("not a host name", ENDPOINT_FORM)
    return StoreEndpoint(host, scalars.parse_port(port))


def _store_address(host: str) -> object:
    """An address of a store, which may be on this very node."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise RefusedError("not an address", ENDPOINT_FORM) from None
    return address if address.is_loopback else scalars.parse_address(host)


def dump_peer(peer: Peer) -> dict[str, Any]:
    """The peer as an item that `parse_peer` reads back."""
    return {
        "name": peer.name,
        "endpoints": [peer_url(each) for each in peer.endpoints],
        "ca": peer.ca,
        "certificate": peer.certificate,
        "key": peer.key,
    }


def peer_url(endpoint: StoreEndpoint) -> str:
    """The endpoint as a document states it."""
    return f"https://{endpoint}"


def id_form(options: Mapping[str, Any]) -> str:
    """What a cluster that is in a mesh has to have."""
    return f"cluster-id 1 to {options['max-connected-clusters']}, and a cluster-name"


def problems(peers: Iterable[Peer], options: Mapping[str, Any]) -> list[tuple[Peer, str, str]]:
    """Peers that cannot be by the (effective) options: each with what is wrong, and what is allowed."""
    own, most = options["cluster-name"], options["max-connected-clusters"]
    found = []
    for number, peer in enumerate(peers, start=2):
        if peer.name == own:
            found.append((peer, "is this cluster itself (cluster-name)", "the name of another cluster"))
        if not options["cluster-id"]:
            message = "ClusterID 0 is reserved: a cluster that is connected to others needs an id"
            found.append((peer, message, id_form(options)))
        if number > most:
            found.append((peer, f"is cluster number {number} of the mesh", f"at most {most} (max-connected-clusters)"))
    return found

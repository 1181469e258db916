"""Addresses of endpoints and their identities as clusters publish them: Cilium's JSON (pure)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from datapath.sources.mesh.identities import RESERVED
from datapath.sources.mesh.values import (
    QuarantineError,
    check_address,
    check_network,
    dump_mask,
    parse_text_address,
    read_address,
    read_document,
    read_integer,
    read_mask,
    read_text,
    write_document,
)
from datapath.state.model import IPAddress, IPNetwork
from datapath.state.remote import Prefix, RemoteIP

_MOST = (1 << 32) - 1


def parse_prefix(rest: str) -> Prefix:
    """The address or network whose key ends so. Raises QuarantineError."""
    try:
        network = ipaddress.ip_network(rest)
    except ValueError:
        raise QuarantineError("the key does not end with an address or a network") from None
    prefix = Prefix(network.network_address, network.prefixlen)
    if str(prefix) != rest:
        raise QuarantineError(f"the key does not end as {prefix} is written")
    return prefix


def parse_ip(raw: bytes, numbers: range, prefix: Prefix, own: Sequence[IPNetwork] = ()) -> RemoteIP:
    """Whose `prefix` is, by one of a cluster's `numbers`; `own` are networks that only this cluster has.

    Raises QuarantineError.
    """
    document = read_document(raw)
    found = _prefix(document)
    if found != prefix:
        raise QuarantineError(f"IP: {found} is not {prefix}, as its place says")
    if prefix.is_host:
        check_address(prefix.address, "IP", own)
    else:
        check_network(ipaddress.ip_network(str(prefix)), "IP", own)
    identity = read_integer(document, "ID", 0, _MOST)
    if identity >= RESERVED and identity not in numbers:
        raise QuarantineError(f"ID: {identity} is not one of this cluster's, {numbers[0]} to {numbers[-1]}")
    host = _host(document, own)
    return RemoteIP(prefix, identity, host, read_text(document, "K8sNamespace"), read_text(document, "K8sPodName"))


def _prefix(document: Mapping[str, Any]) -> Prefix:
    address = parse_text_address(document.get("IP"), "IP")
    mask = document.get("Mask")
    bits = address.max_prefixlen
    return Prefix(address, bits if mask is None else read_mask(mask, bits, "Mask"))


def _host(document: Mapping[str, Any], own: Sequence[IPNetwork]) -> Optional[IPAddress]:
    """Go writes no address as text without anything."""
    raw = document.get("HostIP")
    return None if raw in (None, "") else read_address(raw, "HostIP", own)


def dump_ip(ip: RemoteIP) -> bytes:
    """The address as `parse_ip` and Cilium read it."""
    address, length = ip.prefix
    document: dict[str, Any] = {
        "IP": str(address),
        "Mask": None if ip.prefix.is_host else dump_mask(length, address.max_prefixlen),
        "HostIP": "" if ip.host is None else str(ip.host),
        "ID": ip.identity,
        "Key": 0,
        "Metadata": "",
    }
    document.update((key, text) for key, text in (("K8sNamespace", ip.namespace), ("K8sPodName", ip.name)) if text)
    return write_document(document)

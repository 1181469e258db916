"""Parsing and dumping of this cluster's own store, where the node publishes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

from datapath.spec import scalars
from datapath.spec.clustermesh import FILES, id_form, parse_network, parse_place, peer_url
from datapath.spec.errors import RefusedError, in_lower_case
from datapath.spec.fields import Fields, Violations
from datapath.state.model import MeshNode, OwnStore

STORE_FIELDS = ("state", "endpoints", *FILES, "publisher", "node")
NODE_FIELDS = ("name", "addresses", "pod_cidrs")
NODE_FORM = "the node's addresses, as {addresses: [192.0.2.11]}"
NAME_FORM = "a host name of lower-case letters, digits, - and ."
_TWICE = "{value} is there twice"
NODE_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", re.ASCII)
"""A DNS name, as Kubernetes has nodes."""


def merge(
    violations: Violations, section: str, current: Optional[OwnStore], raw: Any, options: Mapping[str, Any]
) -> Optional[OwnStore]:
    """`current` with what the section says: not given it stays, unless the section replaces all; null is absent."""
    store = current
    if isinstance(raw, Mapping):
        if raw.get("store") is not None:
            store = parse_store(violations, f"{section}.store", raw["store"])
        elif "store" in raw or raw.get("purge"):
            store = None
    if store is not None and not options["cluster-id"]:
        message = "ClusterID 0 is reserved: a cluster that publishes itself needs an id"
        violations.add(f"{section}.store", options["cluster-id"], message, id_form(options))
    return store


def parse_store(violations: Violations, path: str, raw: Any) -> Optional[OwnStore]:
    """Read it; None where it is absent or refused."""
    fields = Fields(violations, path, raw, STORE_FIELDS)
    if not isinstance(raw, Mapping):
        return None
    present = fields.take_or("state", scalars.parse_presence, True)
    endpoints, files = parse_place(fields, "a store", needed=present)
    publisher = fields.take_or("publisher", scalars.parse_bool, False)
    if present and not fields.given("node"):
        violations.add(fields.at("node"), None, "missing", NODE_FORM)
    node = _node(violations, fields.at("node"), fields.raw("node")) if fields.given("node") else None
    if not present or not fields.sound or node is None:
        return None
    return OwnStore(endpoints, **{each: str(files[each]) for each in FILES}, node=node, publisher=publisher)


def _node(violations: Violations, path: str, raw: Any) -> Optional[MeshNode]:
    fields = Fields(violations, path, raw, NODE_FIELDS)
    name = fields.take_or("name", _name, "")
    addresses = fields.distinct("addresses", scalars.parse_address, _TWICE)
    networks = fields.distinct("pod_cidrs", lambda raw: parse_network(scalars.parse_text(raw)), _TWICE)
    if not addresses and fields.sound:
        violations.add(fields.at("addresses"), fields.raw("addresses"), "a node needs an address", NODE_FORM)
    return MeshNode(name, addresses, networks) if fields.sound else None


def _name(raw: Any) -> str:
    name = scalars.parse_text(raw)
    if not NODE_NAME.fullmatch(name):
        raise RefusedError("not the name of a node", NAME_FORM, in_lower_case(name, NODE_NAME))
    return name


def dump_store(store: OwnStore) -> dict[str, Any]:
    """The store as `parse_store` reads it back."""
    node: dict[str, Any] = {"addresses": [str(each) for each in store.node.addresses]}
    if store.node.name:
        node["name"] = store.node.name
    if store.node.pod_cidrs:
        node["pod_cidrs"] = [str(each) for each in store.node.pod_cidrs]
    return {
        "endpoints": [peer_url(each) for each in store.endpoints],
        **{each: getattr(store, each) for each in FILES},
        "publisher": store.publisher,
        "node": node,
    }

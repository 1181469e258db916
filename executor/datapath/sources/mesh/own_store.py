"""Where this project keeps to itself what it needs in the cluster's own store: nothing of it is for other clusters."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Optional

from datapath.etcd.operations import Change

_OWN = "cilium/.datapath"


def candidates_prefix(cluster: str) -> str:
    """Below are those who may publish for the cluster: a key each, that ends with a short lease; the oldest does."""
    return f"{_OWN}/{cluster}/publisher/"


def leases_prefix(cluster: str, owner: str) -> str:
    """Below are the leases by which the keys of an owner are known, as keys that end with them."""
    return f"{_OWN}/{cluster}/leases/{owner}/"


CLUSTER = "cluster"
"""The owner of what is published for the cluster as a whole."""


def node_owner(name: str) -> str:
    """The owner of what a node publishes of itself."""
    return f"nodes/{name}"


def lease_key(prefix: str, lease: int) -> bytes:
    """The key of a lease below a prefix."""
    return f"{prefix}{lease:016x}".encode()


def parse_lease(prefix: str, key: bytes) -> Optional[int]:
    """The lease that a key below a prefix is about."""
    try:
        return int(key[len(prefix) :], 16)
    except ValueError:
        return None


def elected(candidates: Iterable[Change]) -> Optional[Change]:
    """Of the candidates' keys the one whose node publishes for the cluster."""
    return min(candidates, key=lambda each: each.created, default=None)


def dump_candidate(node: str) -> bytes:
    """A candidate's value."""
    return json.dumps({"node": node}).encode()


def parse_candidate(raw: bytes) -> str:
    """The node that is the candidate; "" where the value does not tell."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return ""
    node = document.get("node") if isinstance(document, dict) else None
    return node if isinstance(node, str) else ""

"""Security identities as clusters publish them: numbers for sets of labels, in Cilium's form (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from datapath.sources.mesh.values import QuarantineError
from datapath.spec.clustermesh import CLUSTERS
from datapath.state.remote import Label, RemoteIdentity

RESERVED = 256
"""Identities below are the same in every cluster: host, world, health and the like."""
CLUSTER_LABEL = "io.cilium.k8s.policy.cluster"
KUBERNETES = "k8s"
"""The source of labels that selectors of policies are about."""
LARGEST_LABELS = 1 << 14
"""Bytes of one identity's labels; there may be tens of thousands of identities."""
_BITS = dict(zip(CLUSTERS, (16, 15)))
_NUMBER = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
# A value may be anything that Kubernetes allows, and more: only what separates labels cannot be in one.
_LABEL = re.compile(r"([a-z0-9-]{1,63}):([^=;\s]{1,400})=([^;\s]{0,253})", re.ASCII)


def numbers_of(cluster_id: int, max_connected_clusters: int) -> range:
    """The numbers that a cluster may give to identities of its own."""
    bits = _BITS[max_connected_clusters]
    return range(cluster_id << bits, (cluster_id + 1) << bits)


def parse_identity_number(rest: str, numbers: range) -> int:
    """The identity whose key ends so. Raises QuarantineError."""
    if not _NUMBER.fullmatch(rest):
        raise QuarantineError("the key does not end with the number of an identity")
    number = int(rest)
    if number not in numbers:
        raise QuarantineError(f"{number} is not one of this cluster's identities, {numbers[0]} to {numbers[-1]}")
    return number


def parse_identity(raw: bytes, cluster: str, number: int) -> RemoteIdentity:
    """The identity of this number of a cluster. Raises QuarantineError."""
    if len(raw) > LARGEST_LABELS:
        raise QuarantineError(f"{len(raw)} bytes are more than {LARGEST_LABELS}")
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise QuarantineError("the labels are not ASCII text") from None
    clusters = [label for label in split_labels(text) if label.key == CLUSTER_LABEL]
    if clusters != [Label(KUBERNETES, CLUSTER_LABEL, cluster)]:
        found = ", ".join(str(each) for each in clusters) or "there is none"
        raise QuarantineError(f"the label of its cluster is not {KUBERNETES}:{CLUSTER_LABEL}={cluster}: {found:.80}")
    return RemoteIdentity(number, text)


def split_labels(text: str) -> Iterator[Label]:
    """The labels of `source:key=value;source:key=value;`. Raises QuarantineError."""
    if not text.endswith(";"):
        raise QuarantineError("the labels do not end with ;")
    for part in text[:-1].split(";"):
        match = _LABEL.fullmatch(part)
        if match is None:
            raise QuarantineError(f"{part!r:.80} is not a label, SOURCE:KEY=VALUE")
        yield Label(*match.groups())


def join_labels(labels: Iterable[Label]) -> str:
    """Labels in the order that makes one set of them one text, as Cilium has it: by key."""
    return "".join(f"{each};" for each in sorted(labels, key=lambda each: (each.key, each.source, each.value)))


def dump_identity(identity: RemoteIdentity) -> bytes:
    """The identity as `parse_identity` and Cilium read it."""
    return identity.labels.encode()

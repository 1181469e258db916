"""What an endpoint takes from the manifest of its Pod: a name, labels, and annotations about bandwidth.

A manifest describes much more, which is for whoever runs the Pod (`podman kube play`, kubelet), and is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, TypeVar

from datapath.spec.errors import nearest_name
from datapath.spec.fields import Fields, Violations

T = TypeVar("T")
ANNOTATIONS: Mapping[str, str] = {
    "kubernetes.io/egress-bandwidth": "egress_bandwidth",
    "kubernetes.io/ingress-bandwidth": "ingress_bandwidth",
    "bandwidth.cilium.io/priority": "priority",
}
"""Annotation -> the field of an endpoint that it stands for."""
MANIFEST_FORM = "a Pod's manifest as a mapping, such as lookup('file', 'pod.yml') | from_yaml"
_OWN = "bandwidth.cilium.io/"
"""Nobody else's annotations begin like this, so one that is not known would be ignored by all."""
_SHARED = "kubernetes.io/"


@dataclass(frozen=True)
class Said:
    """A value of the manifest, and where it stands."""

    path: str
    value: Any


@dataclass(frozen=True)
class Manifest:
    """What was found; nothing of it is parsed."""

    name: Optional[Said] = None
    labels: Optional[Said] = None
    fields: Mapping[str, Said] = field(default_factory=dict)
    """Field of an endpoint -> the annotation that stands for it."""


def read(violations: Violations, path: str, raw: Any) -> Manifest:
    """Look into the manifest at `path`; None is one that says nothing."""
    if raw is None:
        return Manifest()
    if not isinstance(raw, Mapping):
        violations.add(path, raw, "not a mapping", MANIFEST_FORM)
        return Manifest()
    if raw.get("kind") != "Pod" or raw.get("apiVersion", "v1") != "v1":
        kind = {name: raw[name] for name in ("apiVersion", "kind") if name in raw}
        violations.add(f"{path}.kind", kind, "not the manifest of a Pod", "kind: Pod, apiVersion: v1")
        return Manifest()
    _refuse_host_network(violations, path, raw)
    return _metadata(violations, f"{path}.metadata", raw.get("metadata"))


def name_in(raw: Any) -> Any:
    """The name that a manifest gives; None where it gives none."""
    metadata = raw.get("metadata") if isinstance(raw, Mapping) else None
    return metadata.get("name") if isinstance(metadata, Mapping) else None


def _refuse_host_network(violations: Violations, path: str, raw: Mapping[str, Any]) -> None:
    pod = raw.get("spec")
    if isinstance(pod, Mapping) and pod.get("hostNetwork"):
        message = "this Pod has the host's network, so there is no device that is its own"
        violations.add(f"{path}.spec.hostNetwork", pod["hostNetwork"], message, "a Pod with a network of its own")


def _metadata(violations: Violations, path: str, raw: Any) -> Manifest:
    if not isinstance(raw, Mapping):
        violations.add(path, raw, "not a mapping", "a mapping with name, labels, annotations")
        return Manifest()
    name, labels, annotations = (raw.get(key) for key in ("name", "labels", "annotations"))
    return Manifest(
        name=None if name is None else Said(f"{path}.name", name),
        labels=None if labels is None else Said(f"{path}.labels", labels),
        fields=dict(_annotations(violations, f"{path}.annotations", annotations)),
    )


def _annotations(violations: Violations, path: str, raw: Any) -> Iterator[tuple[str, Said]]:
    if raw is None:
        return
    if not isinstance(raw, Mapping):
        violations.add(path, raw, "not a mapping", "a mapping of annotations to values")
        return
    for key, value in raw.items():
        place = f"{path}.{key}"
        if key in ANNOTATIONS:
            yield ANNOTATIONS[key], Said(place, value)
        elif _meant(key):
            allowed = ", ".join(ANNOTATIONS)
            violations.add(place, value, "unknown annotation about bandwidth", allowed, nearest_name(key, ANNOTATIONS))


def _meant(key: object) -> bool:
    """Whether an annotation that is not known looks like one about bandwidth; all others are somebody else's."""
    if not isinstance(key, str):
        return False
    if key.startswith(_OWN):
        return True
    known = [each[len(_SHARED) :] for each in ANNOTATIONS if each.startswith(_SHARED)]
    return key.startswith(_SHARED) and nearest_name(key[len(_SHARED) :], known) is not None


def take(fields: Fields, name: str, said: Optional[Said], parse: Callable[[Any], T]) -> tuple[Optional[T], str]:
    """A field's typed value and its place: from the item, else from the annotation; both have to agree."""
    own, place = fields.take(name, parse), fields.at(name)
    if said is None:
        return own, place
    value = fields.violations.parse(said.path, said.value, parse)
    if not fields.given(name):
        return value, said.path
    if None not in (own, value) and own != value:
        message = f"{place} says {fields.raw(name)}"
        fields.violations.add(said.path, said.value, message, "one of the two, or the same in both")
    return own, place

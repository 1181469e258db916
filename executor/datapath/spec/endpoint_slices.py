"""EndpointSlices of Kubernetes: the backends of a Service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from datapath.spec import scalars
from datapath.spec.fields import Fields, Violations
from datapath.spec.service_annotations import WEIGHT, Annotations
from datapath.state.model import Backend, BackendState, IPAddress, Protocol

SERVICE_LABEL = "kubernetes.io/service-name"
_FAMILIES = {"IPv4": 4, "IPv6": 6}
_FIELDS = ("apiVersion", "kind", "metadata", "addressType", "endpoints", "ports")
_ENDPOINT_FIELDS = (
    "addresses",
    "conditions",
    # About where an endpoint is, which nothing here depends on.
    *("hostname", "nodeName", "targetRef", "zone", "hints", "deprecatedTopology"),
)
_PORT_FIELDS = ("name", "protocol", "port", "appProtocol")
_CONDITIONS = ("ready", "serving", "terminating")


@dataclass(frozen=True)
class SlicePort:
    """A port that the endpoints of a slice have."""

    path: str
    name: str
    protocol: Protocol
    port: int


@dataclass(frozen=True)
class Slice:
    """What an EndpointSlice says."""

    path: str
    service: tuple[str, str]
    """Namespace and name of its Service."""
    family: int
    ports: tuple[SlicePort, ...]
    endpoints: tuple[tuple[str, IPAddress, BackendState], ...]
    """Path, address and state of those that may have traffic."""
    weight: Optional[int]

    def backends(self, port: int) -> Iterator[tuple[str, Backend]]:
        """Path and backend of every endpoint, at this port."""
        weight = {} if self.weight is None else {"weight": self.weight}
        for path, address, state in self.endpoints:
            yield path, Backend(address, port, state=state, **weight)


def object_name(violations: Violations, path: str, raw: Any) -> Optional[tuple[str, str]]:
    """Namespace and name in an object's metadata; None after noting why there is none."""
    metadata = raw.get("metadata")
    if not isinstance(metadata, Mapping):
        violations.add(f"{path}.metadata", metadata, "not a mapping", "a mapping with name, namespace, annotations")
        return None
    if metadata.get("name") is None:
        violations.add(f"{path}.metadata.name", None, "missing", "a name")
        return None
    name = violations.parse(f"{path}.metadata.name", metadata["name"], scalars.parse_text)
    namespace = violations.parse(
        f"{path}.metadata.namespace", metadata.get("namespace") or "default", scalars.parse_text
    )
    return None if name is None or namespace is None else (namespace, name)


def read_slice(violations: Violations, path: str, raw: Mapping[str, Any]) -> Optional[Slice]:
    """Read one; None after noting what is wrong."""
    fields = Fields(violations, path, raw, _FIELDS)
    own = object_name(violations, path, raw)
    if own is None:
        return None
    metadata = raw["metadata"]
    annotations = Annotations(violations, f"{path}.metadata.annotations", metadata.get("annotations"), (WEIGHT,))
    labels = metadata.get("labels")
    service = labels.get(SERVICE_LABEL) if isinstance(labels, Mapping) else None
    if not isinstance(service, str):
        message = "an EndpointSlice without the label that says which Service it is of"
        violations.add(f"{path}.metadata.labels.{SERVICE_LABEL}", service, message, "name of a Service")
    family = fields.require("addressType", lambda word: scalars.parse_choice(word, tuple(_FAMILIES)), "IPv4, IPv6")
    ports = tuple(_ports(violations, fields))
    endpoints = tuple(_endpoints(violations, fields, _FAMILIES.get(family or "")))
    weight = annotations.weight
    if not fields.sound or not isinstance(service, str) or family is None:
        return None
    return Slice(path, (own[0], service), _FAMILIES[family], ports, endpoints, weight)


def protocol(raw: Any) -> Protocol:
    """TCP or UDP; SCTP is not balanced."""
    return Protocol[scalars.parse_choice(raw, ("TCP", "UDP"))]


def _ports(violations: Violations, slice_fields: Fields) -> Iterator[SlicePort]:
    for path, raw in violations.items(slice_fields.at("ports"), slice_fields.raw("ports")):
        fields = Fields(violations, path, raw, _PORT_FIELDS)
        name = fields.take_or("name", scalars.parse_text, "")
        kind = fields.take_or("protocol", protocol, Protocol.TCP)
        port = fields.require("port", scalars.parse_port, scalars.PORTS)
        if port is not None and fields.sound:
            yield SlicePort(path, name, kind, port)


def _endpoints(
    violations: Violations, slice_fields: Fields, family: Optional[int]
) -> Iterator[tuple[str, IPAddress, BackendState]]:
    for path, raw in violations.items(slice_fields.at("endpoints"), slice_fields.raw("endpoints")):
        fields = Fields(violations, path, raw, _ENDPOINT_FIELDS)
        state = _state(violations, fields)
        for place, text in violations.items(fields.at("addresses"), fields.raw("addresses")):
            address = violations.parse(place, text, scalars.parse_address)
            if address is not None and family is not None and address.version != family:
                violations.add(place, text, f"IPv{address.version} in a slice of IPv{family} addresses")
            elif address is not None and state is not None:
                yield place, address, state


def _state(violations: Violations, endpoint: Fields) -> Optional[BackendState]:
    """By its conditions, as Cilium reads them; None where it gets no traffic."""
    if not endpoint.given("conditions"):
        return BackendState.ACTIVE
    fields = Fields(violations, endpoint.at("conditions"), endpoint.raw("conditions"), _CONDITIONS)
    ready = fields.take_or("ready", scalars.parse_bool, True)
    serving = fields.take_or("serving", scalars.parse_bool, ready)
    terminating = fields.take_or("terminating", scalars.parse_bool, False)
    if ready:
        return BackendState.ACTIVE
    return BackendState.TERMINATING if serving and terminating else None

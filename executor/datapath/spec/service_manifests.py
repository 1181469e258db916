"""Services as manifests of Kubernetes describe them: a Service, and the EndpointSlices that say who its backends are.

A Service is several services here: one for each of its ports and address families, NAMESPACE/NAME/PORT, and with /ipv6
behind it for IPv6. In the mesh they are one, NAMESPACE/NAME.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from datapath.spec import scalars
from datapath.spec.endpoint_slices import Slice, object_name, protocol, read_slice
from datapath.spec.errors import nearest_name
from datapath.spec.fields import Fields, Violations
from datapath.spec.global_services import parse_port_name
from datapath.spec.service_annotations import GLOBAL, SHARED, TYPE, Annotations
from datapath.spec.services import ParsedService, parse_name
from datapath.state.model import Backend, Frontend, IPAddress, Protocol, Service

MANIFEST_FORM = "manifests with kind Service (v1), EndpointSlice (discovery.k8s.io/v1), or a List of them"
_KINDS = {
    "Service": ("v1",),
    "EndpointSlice": ("discovery.k8s.io/v1",),
    "List": ("v1",),
    "ServiceList": ("v1",),
    "EndpointSliceList": ("discovery.k8s.io/v1",),
}
_SPEC_FIELDS = (
    *("type", "ports", "clusterIP", "clusterIPs", "externalIPs", "loadBalancerIP"),
    *("sessionAffinity", "externalTrafficPolicy", "internalTrafficPolicy"),
    # For Kubernetes' own controllers, which make addresses and EndpointSlices.
    *("selector", "ipFamilies", "ipFamilyPolicy", "publishNotReadyAddresses", "loadBalancerClass"),
    "allocateLoadBalancerNodePorts",
)
_ONLY = {"sessionAffinity": "None", "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster"}
_LATER_FIELDS = ("sessionAffinityConfig", "loadBalancerSourceRanges", "healthCheckNodePort", "trafficDistribution")
_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")
_PORT_FIELDS = ("name", "protocol", "port", "nodePort", "targetPort", "appProtocol")
"""`targetPort` is for whoever makes EndpointSlices, which say the port that it is."""
_INGRESS_FIELDS = ("ip", "hostname", "ipMode", "ports")
_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
_ADDRESS_PLACES = (
    "clusterIPs, externalIPs, loadBalancerIP, status.loadBalancer.ingress, or annotation lbipam.cilium.io/ips"
)


@dataclass(frozen=True)
class Port:
    """A port of a Service."""

    path: str
    name: str
    protocol: Protocol
    number: int


@dataclass(frozen=True)
class Manifest:
    """A Service as its manifest describes it, without backends."""

    path: str
    name: tuple[str, str]
    annotations: Annotations
    ports: tuple[Port, ...]
    addresses: tuple[tuple[str, IPAddress], ...]
    """With the place where each is said."""

    def families(self) -> list[int]:
        """Versions of IP that it has addresses of."""
        return sorted({address.version for _, address in self.addresses})


def read(violations: Violations, path: str, raw: Any) -> list[ParsedService]:
    """The services that a list of manifests describes."""
    services: list[Manifest] = []
    slices: list[Slice] = []
    for place, kind, document in _objects(violations, path, raw):
        if kind == "Service":
            found = _read_service(violations, place, document)
            services += [] if found is None else [found]
        else:
            part = read_slice(violations, place, document)
            slices += [] if part is None else [part]
    _check_slices(violations, services, slices)
    return [each for manifest in services for each in _services(violations, manifest, slices)]


def _objects(violations: Violations, path: str, raw: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Path, kind and contents of each object, those of lists as well."""
    for place, document in violations.items(path, raw):
        if not isinstance(document, Mapping):
            violations.add(place, document, "not a mapping", MANIFEST_FORM)
            continue
        kind, version = document.get("kind"), document.get("apiVersion")
        if not isinstance(kind, str) or version not in _KINDS.get(kind, ()):
            said = {name: document[name] for name in ("apiVersion", "kind") if name in document}
            message = "not the manifest of a Service or EndpointSlice"
            violations.add(f"{place}.kind", said, message, MANIFEST_FORM, nearest_name(kind, _KINDS))
        elif kind.endswith("List"):
            # Kubernetes leaves kind and version of the items of such a list out.
            default = {} if kind == "List" else {"apiVersion": version, "kind": kind[: -len("List")]}
            items = document.get("items")
            known = items if not isinstance(items, list) else [_with(each, default) for each in items]
            yield from _objects(violations, f"{place}.items", known)
        else:
            yield place, kind, document


def _with(item: Any, default: Mapping[str, Any]) -> Any:
    return {**default, **item} if isinstance(item, Mapping) else item


def _read_service(violations: Violations, path: str, raw: Mapping[str, Any]) -> Optional[Manifest]:
    before = len(violations.errors)
    fields = Fields(violations, path, raw, ("apiVersion", "kind", "metadata", "spec", "status"))
    name = object_name(violations, path, raw)
    if name is None:
        return None
    metadata = raw["metadata"]
    annotations = Annotations(violations, f"{path}.metadata.annotations", metadata.get("annotations"))
    labels = metadata.get("labels")
    if isinstance(labels, Mapping) and _PROXY_LABEL in labels:
        message = "this Service is for another proxy"
        violations.add(f"{path}.metadata.labels.{_PROXY_LABEL}", labels[_PROXY_LABEL], message, "no such label")
    spec = Fields(violations, fields.at("spec"), fields.raw("spec"), (*_SPEC_FIELDS, *_LATER_FIELDS, "externalName"))
    _refuse(spec)
    kind, only = spec.take_or("type", _type, "ClusterIP"), annotations.only_type
    ports = tuple(_ports(violations, spec, only is None))
    said = list(violations.items(spec.at("externalIPs"), spec.raw("externalIPs")))
    said += _cluster_addresses(violations, spec) if only in (None, "ClusterIP") else []
    if kind == "LoadBalancer" and only in (None, "LoadBalancer"):
        said += [*_balancer_addresses(fields, spec), *annotations.addresses()]
    addresses = tuple(_addresses(violations, said))
    if len(violations.errors) == before and not ports:
        violations.add(spec.at("ports"), spec.raw("ports"), "a Service needs a port", "a list of ports")
    if len(violations.errors) == before and not addresses:
        violations.add(spec.path, spec.raw("clusterIP"), "there is no address to serve", _ADDRESS_PLACES)
    return Manifest(path, name, annotations, ports, addresses)


def _refuse(spec: Fields) -> None:
    """What would be ignored."""
    spec.refuse_others(_LATER_FIELDS, "not implemented in this version")
    spec.refuse_others(("externalName",), "a name in DNS, where there is nothing to balance")
    for name, only in _ONLY.items():
        if spec.given(name) and spec.raw(name) != only:
            spec.violations.add(spec.at(name), spec.raw(name), "not implemented in this version", only)


def _type(raw: Any) -> str:
    return scalars.parse_choice(raw, _TYPES)


def _ports(violations: Violations, spec: Fields, node_ports: bool) -> Iterator[Port]:
    for path, raw in violations.items(spec.at("ports"), spec.raw("ports")):
        fields = Fields(violations, path, raw, _PORT_FIELDS)
        if node_ports and fields.given("nodePort"):
            message = "not implemented in this version: node ports"
            allowed = f"no node port, or annotation {TYPE} (ClusterIP, LoadBalancer), which leaves them out"
            violations.add(fields.at("nodePort"), fields.raw("nodePort"), message, allowed)
        # Kubernetes writes "" for none.
        name = fields.take_or("name", lambda text: text and parse_port_name(text), "")
        kind = fields.take_or("protocol", protocol, Protocol.TCP)
        number = fields.require("port", scalars.parse_port, scalars.PORTS)
        if number is not None:
            yield Port(path, name, kind, number)


def _addresses(violations: Violations, said: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, IPAddress]]:
    """Place and value of every address, each once."""
    seen = set()
    for path, raw in said:
        address = violations.parse(path, raw, scalars.parse_address)
        if address is not None and address not in seen:
            seen.add(address)
            yield path, address


def _cluster_addresses(violations: Violations, spec: Fields) -> Iterator[tuple[str, Any]]:
    places = [(spec.at("clusterIP"), spec.raw("clusterIP"))] if spec.given("clusterIP") else []
    for path, raw in [*places, *violations.items(spec.at("clusterIPs"), spec.raw("clusterIPs"))]:
        if raw == "None":
            violations.add(path, raw, "a headless Service, which has no address to serve", "an address")
        elif raw != "":
            yield path, raw


def _balancer_addresses(fields: Fields, spec: Fields) -> Iterator[tuple[str, Any]]:
    """What the load balancer was asked for, and what it was given."""
    if spec.given("loadBalancerIP"):
        yield spec.at("loadBalancerIP"), spec.raw("loadBalancerIP")
    status = fields.raw("status")
    balancer = status.get("loadBalancer") if isinstance(status, Mapping) else None
    rows = balancer.get("ingress") if isinstance(balancer, Mapping) else None
    for path, raw in fields.violations.items(f"{fields.at('status')}.loadBalancer.ingress", rows):
        row = Fields(fields.violations, path, raw, _INGRESS_FIELDS)
        row.refuse_others(("hostname",), "a name, where the datapath needs an address")
        row.take("ipMode", lambda word: scalars.parse_choice(word, ("VIP",)))
        if row.given("ip"):
            yield row.at("ip"), row.raw("ip")


def _check_slices(violations: Violations, services: list[Manifest], slices: list[Slice]) -> None:
    """Nothing of a slice is left over."""
    by_name = {each.name: each for each in services}
    names = ["/".join(each) for each in by_name]
    for part in slices:
        manifest = by_name.get(part.service)
        if manifest is None:
            wanted = "/".join(part.service)
            message = f"there is no Service {wanted} in these manifests"
            violations.add(f"{part.path}.metadata", wanted, message, ", ".join(names), nearest_name(wanted, names))
            continue
        if manifest.addresses and part.family not in manifest.families():
            message = f"Service {'/'.join(part.service)} has no IPv{part.family} address"
            violations.add(f"{part.path}.addressType", f"IPv{part.family}", message)
        known = [f"{port.name or port.number} ({port.protocol.name})" for port in manifest.ports]
        for slot in part.ports:
            if not any((port.name, port.protocol) == (slot.name, slot.protocol) for port in manifest.ports):
                message = f"Service {'/'.join(part.service)} has no port of this name and protocol"
                violations.add(f"{slot.path}.name", slot.name, message, ", ".join(known))


def _services(violations: Violations, manifest: Manifest, slices: list[Slice]) -> Iterator[ParsedService]:
    """The services that a Service is."""
    own = [part for part in slices if part.service == manifest.name]
    for port in manifest.ports:
        for family in manifest.families():
            name = "/".join((*manifest.name, port.name or str(port.number), *(["ipv6"] if family == 6 else [])))
            if violations.parse(f"{manifest.path}.metadata.name", name, parse_name) is None:
                continue
            frontends = tuple(
                (path, Frontend(address, port.number, port.protocol))
                for path, address in manifest.addresses
                if address.version == family
            )
            backends = _backends(port, [part for part in own if part.family == family])
            meant = _meaning(manifest, port)
            service = Service(name, tuple(each for _, each in frontends), tuple(each for _, each in backends), **meant)
            yield ParsedService(manifest.path, name, True, frontends, backends, service.mode, service)


def _meaning(manifest: Manifest, port: Port) -> dict[str, Any]:
    """Keyword arguments of `Service` that the annotations stand for.

    Those about sharing and affinity count only for a global service, as with Cilium.
    """
    annotations = manifest.annotations
    meant: dict[str, Any] = {"algorithm": annotations.algorithm, "mode": annotations.mode}
    if annotations.true(GLOBAL, False):
        names = {"mesh_name": "/".join(manifest.name), "port_name": port.name}
        meant.update(is_global=True, affinity=annotations.affinity, shared=annotations.true(SHARED, True), **names)
    return meant


def _backends(port: Port, slices: list[Slice]) -> tuple[tuple[str, Backend], ...]:
    """Path and value of each backend; an endpoint may be in two slices while Kubernetes moves it."""
    found: dict[tuple[IPAddress, int], tuple[str, Backend]] = {}
    for part in slices:
        for slot in part.ports:
            if (slot.name, slot.protocol) == (port.name, port.protocol):
                for path, backend in part.backends(slot.port):
                    found.setdefault((backend.address, backend.port), (path, backend))
    return tuple(found.values())

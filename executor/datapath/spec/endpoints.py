"""Parsing and dumping of endpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Optional

from datapath.spec import manifests, scalars
from datapath.spec.errors import RefusedError
from datapath.spec.fields import Fields, Violations
from datapath.spec.manifests import Manifest, Said
from datapath.state.model import Endpoint, IPAddress

RATE_FIELDS = ("egress_bandwidth", "ingress_bandwidth", "priority")
ENDPOINT_FIELDS = ("name", "state", "manifest", "interface", "interfaces", "host", "labels", "addresses", *RATE_FIELDS)
PLACES = ("interface", "interfaces", "host")
PLACE_FORM = "interface (a device), interfaces (a pattern such as ve-*), or host: true"
PATTERN_FORM = "a pattern of at most 64 characters with *, ? or [...], such as ve-*"
BANDWIDTH_FORM = "bits a second from 1k to 2^63 - 1, such as 50M or 1Gi"
_LEAST, _MOST = 1000, (1 << 63) - 1
PRIORITIES = {"guaranteed": 7, "burstable": 9, "besteffort": 6}
"""Cilium's, by Kubernetes' quality of service."""
PRIORITY_FORM = "guaranteed, burstable, besteffort, or 1 to 15"
# No slash: it is between a pattern's name and a device's.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)
_PATTERN = re.compile(r"[^\s/:]{1,64}")
_WILD = re.compile(r"[*?\[]")
# Kubernetes' own rules, so that selectors which were written for it fit.
_LABEL_WORD = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_LABEL_WORD}", re.ASCII)
_LABEL_VALUE = re.compile(rf"({_LABEL_WORD})?", re.ASCII)


@dataclass(frozen=True)
class ParsedEndpoint:
    """What one item of the document says."""

    path: str
    name: str
    present: bool
    endpoint: Optional[Endpoint]
    """None where something is refused, or where only the name of an absent endpoint is given."""
    places: Mapping[str, str]
    """Where each of `RATE_FIELDS` is said."""


def parse_endpoint(violations: Violations, path: str, raw: Any) -> Optional[ParsedEndpoint]:
    """Read one item; None where it has no usable name."""
    fields = Fields(violations, path, raw, ENDPOINT_FIELDS)
    manifest = manifests.read(violations, fields.at("manifest"), fields.raw("manifest"))
    name = _endpoint_name(fields, manifest) if isinstance(raw, dict) else None
    present = fields.take_or("state", scalars.parse_presence, True)
    place = _place(fields, needed=present and isinstance(raw, dict))
    labels = _labels(fields, manifest)
    addresses = _addresses(fields)
    rates, places = _rates(fields, manifest)
    if place.get("host") and rates["ingress_bandwidth"] is not None:
        message = "has no effect with host: what the host receives has arrived"
        violations.add(places["ingress_bandwidth"], rates["ingress_bandwidth"], message)
    if place.get("interfaces") is not None:
        fields.refuse_others(("addresses",), "has no effect with interfaces, which may match several devices")
    if name is None:
        return None
    endpoint = None
    if fields.sound and place:
        endpoint = Endpoint(name, labels=labels, addresses=addresses, **rates, **place)
    return ParsedEndpoint(path, name, present, endpoint, places)


def item_name(item: Mapping[str, Any]) -> str:
    """Name of an item that `parse_endpoint` took."""
    name = item.get("name")
    return str(manifests.name_in(item.get("manifest")) if name is None else name)


def _endpoint_name(fields: Fields, manifest: Manifest) -> Optional[str]:
    if manifest.name is None or fields.given("name"):
        return fields.require("name", _name, "a name, or a manifest that has one")
    return fields.violations.parse(manifest.name.path, manifest.name.value, _name)


def _name(raw: Any) -> str:
    name = scalars.parse_text(raw)
    if not _NAME.fullmatch(name):
        raise RefusedError("not a name", "letters, digits and . _ - between them, at most 100 characters")
    return name


def _interface(raw: Any) -> str:
    name = scalars.parse_device(raw)
    if _WILD.search(name):
        raise RefusedError("a pattern is no device", f"{scalars.DEVICE}; a pattern goes into interfaces")
    if name == "lo":
        raise RefusedError("there is nothing behind lo but the host itself", "another device, or host: true")
    return name


def _pattern(raw: Any) -> str:
    pattern = scalars.parse_text(raw)
    if not _PATTERN.fullmatch(pattern):
        raise RefusedError("not a pattern of device names", PATTERN_FORM)
    if not _WILD.search(pattern):
        raise RefusedError("not a pattern", f"{PATTERN_FORM}; one device goes into interface")
    return pattern


def _place(fields: Fields, needed: bool) -> dict[str, Any]:
    """Keyword arguments of `Endpoint` that say where it is; empty where that is not told, or refused."""
    place: dict[str, Any] = {
        "interface": fields.take("interface", _interface),
        "interfaces": fields.take("interfaces", _pattern),
        # false is as good as nothing
        "host": fields.take("host", scalars.parse_bool) or None,
    }
    given = {name: value for name, value in place.items() if value is not None}
    if len(given) > 1:
        message = f"{' and '.join(given)} are both given: an endpoint is in one place"
        fields.violations.add(fields.path, fields.raw("name"), message, PLACE_FORM)
    elif not given and needed and fields.sound:
        fields.violations.add(fields.path, fields.raw("name"), "an endpoint has to be somewhere", PLACE_FORM)
    return given if len(given) == 1 else {}


def _labels(fields: Fields, manifest: Manifest) -> Mapping[str, str]:
    """The manifest's labels, and over them the item's own."""
    own = Said(fields.at("labels"), fields.raw("labels")) if fields.given("labels") else None
    labels: dict[str, str] = {}
    for said in filter(None, (manifest.labels, own)):
        labels.update(_label_pairs(fields.violations, said))
    return MappingProxyType(dict(sorted(labels.items())))


def _label_pairs(violations: Violations, said: Said) -> Iterator[tuple[str, str]]:
    if not isinstance(said.value, Mapping):
        violations.add(said.path, said.value, "not a mapping", "a mapping of labels to values")
        return
    for key, value in said.value.items():
        path = f"{said.path}.{key}"
        name = violations.parse(path, key, _label)
        text = violations.parse(path, "" if value is None else value, _label_value)
        if name is not None and text is not None:
            yield name, text


def _label(raw: Any) -> str:
    label = scalars.parse_text(raw)
    if not _LABEL.fullmatch(label):
        allowed = "letters, digits and . _ - between them, at most 63 characters; before it a DNS name and a slash"
        raise RefusedError("not a label's name", allowed)
    return label


def _label_value(raw: Any) -> str:
    value = scalars.parse_text(raw)
    if not _LABEL_VALUE.fullmatch(value):
        raise RefusedError(
            "not a label's value", "letters, digits and . _ - between them, at most 63 characters, or nothing"
        )
    return value


def _addresses(fields: Fields) -> tuple[IPAddress, ...]:
    return fields.distinct("addresses", scalars.parse_address, "{value} is the same address as {first}")


def _rates(fields: Fields, manifest: Manifest) -> tuple[dict[str, Any], dict[str, str]]:
    """Keyword arguments of `Endpoint`, and where each is said."""
    rates, places = {}, {}
    for name in RATE_FIELDS:
        parse = _priority if name == "priority" else _bandwidth
        rates[name], places[name] = manifests.take(fields, name, manifest.fields.get(name), parse)
    return rates, places


def _bandwidth(raw: Any) -> int:
    try:
        bits = scalars.parse_quantity(raw)
    except RefusedError as error:
        raise RefusedError(error.message, f"{BANDWIDTH_FORM}: {error.allowed}") from None
    if bits < _LEAST:
        message = "negative" if bits < 0 else "no rate" if bits == 0 else "less than 1k, Kubernetes' own least"
        raise RefusedError(message, BANDWIDTH_FORM)
    if bits > _MOST:
        raise RefusedError("more than 2^63 - 1 bits a second", BANDWIDTH_FORM)
    return bits


def _priority(raw: Any) -> int:
    if isinstance(raw, str) and raw.strip().lower() in PRIORITIES:
        return PRIORITIES[raw.strip().lower()]
    try:
        return scalars.parse_int(raw, 1, 15)
    except RefusedError as error:
        raise RefusedError("not a priority", PRIORITY_FORM) from error


def without_manager(endpoint: Endpoint) -> list[str]:
    """Fields of the endpoint that take the bandwidth manager."""
    return [name for name in RATE_FIELDS if getattr(endpoint, name) is not None]


def dump_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """The endpoint as an item that `parse_endpoint` reads back."""
    item: dict[str, Any] = {"name": endpoint.name}
    item.update((place, getattr(endpoint, place)) for place in PLACES if getattr(endpoint, place))
    if endpoint.labels:
        item["labels"] = dict(endpoint.labels)
    if endpoint.addresses:
        item["addresses"] = [str(address) for address in endpoint.addresses]
    item.update((name, getattr(endpoint, name)) for name in RATE_FIELDS if getattr(endpoint, name) is not None)
    return item


def conflicts(endpoints: Iterable[Endpoint]) -> list[tuple[Endpoint, str]]:
    """Endpoints that claim what an earlier one has, each with what is wrong."""
    taken: dict[str, Endpoint] = {}
    found = []
    for endpoint in endpoints:
        for claim in _claims(endpoint):
            first = taken.setdefault(claim, endpoint)
            if first is not endpoint:
                found.append((endpoint, f"endpoints {first.name} and {endpoint.name} both have {claim}"))
    return found


def _claims(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.interface is not None:
        yield f"interface {endpoint.interface}"
    if endpoint.interfaces is not None:
        yield f"interfaces {endpoint.interfaces}"
    if endpoint.host:
        yield "host: true"
    yield from (f"address {address}" for address in endpoint.addresses)

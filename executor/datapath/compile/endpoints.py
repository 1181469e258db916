"""Which endpoints there are on this node (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Optional

from datapath.state.facts import Device
from datapath.state.model import Endpoint


@dataclass(frozen=True)
class NodeEndpoint:
    """An endpoint as this node has it."""

    name: str
    """The endpoint's own; of one that a pattern found, `name/device`."""
    endpoint: Endpoint
    device: Optional[Device] = None
    """None for the host, and for an endpoint whose device is not there."""

    @property
    def present(self) -> bool:
        """Whether there is anything that it stands for; else it waits for its device."""
        return self.device is not None or self.endpoint.host


def resolve(endpoints: Iterable[Endpoint], devices: Mapping[str, Device]) -> list[NodeEndpoint]:
    """Every endpoint by name, with its device; a pattern once for each device that no other endpoint has.

    Of two patterns that match a device, the one whose name is first has it.
    """
    ordered = sorted(endpoints, key=lambda each: (each.interfaces is not None, each.name))
    taken = {each.interface for each in ordered if each.interface is not None} | {"lo"}
    found: list[NodeEndpoint] = []
    for endpoint in ordered:
        own = list(_own(endpoint, devices, taken))
        taken.update(each.device.name for each in own if each.device is not None)
        found += own or [NodeEndpoint(endpoint.name, endpoint)]
    return sorted(found, key=lambda each: each.name)


def _own(endpoint: Endpoint, devices: Mapping[str, Device], taken: Iterable[str]) -> Iterator[NodeEndpoint]:
    """The endpoint at its device, or at every device that its pattern matches."""
    if endpoint.interface is not None and endpoint.interface in devices:
        yield NodeEndpoint(endpoint.name, endpoint, devices[endpoint.interface])
    for name in sorted(matching(endpoint, devices)):
        if name not in taken:
            yield NodeEndpoint(f"{endpoint.name}/{name}", endpoint, devices[name])


def matching(endpoint: Endpoint, devices: Iterable[str]) -> list[str]:
    """The devices that the endpoint's pattern matches."""
    pattern = endpoint.interfaces
    return [name for name in devices if pattern is not None and fnmatchcase(name, pattern)]


def claimed(endpoints: Iterable[Endpoint], indexes: Mapping[str, int]) -> dict[str, int]:
    """Of all devices (name -> index) those that endpoints stand for."""
    endpoints = list(endpoints)
    names = {each.interface for each in endpoints}
    names.update(name for each in endpoints for name in matching(each, indexes))
    return {name: index for name, index in indexes.items() if name in names}


def remarks(endpoints: Iterable[Endpoint], devices: Mapping[str, Device]) -> list[str]:
    """What to know of endpoints on this node, one sentence each."""
    endpoints = list(endpoints)
    lines = [
        f"endpoint {each.name} is pending: {_missing(each.endpoint)}; it is applied when that appears"
        for each in resolve(endpoints, devices)
        if not each.present
    ]
    return lines + list(_shared(endpoints, devices))


def _missing(endpoint: Endpoint) -> str:
    if endpoint.interface is not None:
        return f"there is no device {endpoint.interface}"
    return f"there is no device {endpoint.interfaces} that is no other endpoint's"


def _shared(endpoints: Iterable[Endpoint], devices: Mapping[str, Device]) -> Iterator[str]:
    """Devices that several patterns match: a mistake that shows only when such a device is there."""
    owners: dict[str, str] = {}
    for endpoint in sorted(endpoints, key=lambda each: each.name):
        for name in matching(endpoint, devices):
            first = owners.setdefault(name, endpoint.name)
            if first != endpoint.name:
                yield f"device {name} matches endpoints {first} and {endpoint.name}; it is {first}'s"

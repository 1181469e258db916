"""What direct server return adds to requests, and whether the paths to the backends have room for it (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from datapath.spec.modes import mode_of
from datapath.state.facts import NodeFacts
from datapath.state.model import IPAddress, Mode, Protocol, Service

_IP = {4: 20, 6: 40}
_OPTION = {4: 8, 6: 24}
"""The IPv4 option or IPv6 destination option that names the frontend."""
_GENEVE_OPTION = {4: 12, 6: 24}
_UDP, _GENEVE, _ETHERNET = 8, 8, 14
LEAST = {4: 576, 6: 1280}
"""What every host must be able to receive (RFC 791) and every link to carry (RFC 8200, 5)."""


@dataclass(frozen=True)
class Way:
    """A device that packets go through, and what fits."""

    device: str
    mtu: int


@dataclass(frozen=True)
class Findings:
    """What is wrong with the paths of DSR services."""

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]


def added(dispatch: str, protocol: Protocol, version: int) -> int:
    """Bytes that full-size packets grow by; `version` is the IP version that carries them to the backend.

    A TCP segment with payload names no frontend: its SYN has done so.
    """
    named = protocol is not Protocol.TCP
    if dispatch == "opt":
        return _OPTION[version] if named else 0
    if dispatch == "ipip":
        return _IP[version]
    return _IP[version] + _UDP + _GENEVE + _ETHERNET + (_GENEVE_OPTION[version] if named else 0)


def judge(
    services: Iterable[Service], options: Mapping[str, Any], ways: Mapping[IPAddress, Way], receiving: Iterable[Way]
) -> Findings:
    """Compare what packets need with what fits.

    Args:
        services: all services; those without direct server return are passed over.
        options: effective options.
        ways: backend address -> the way there; those without a route are missing.
        receiving: the devices that requests come in by; none: any size may.
    """
    largest = max(receiving, key=lambda way: way.mtu, default=None)
    cases: dict[_Case, list[IPAddress]] = {}
    for case, address in _cases(services, options, ways):
        cases.setdefault(case, []).append(address)
    found = [(case, f"{case.way.device} towards {_some(addresses)}") for case, addresses in cases.items()]
    refusals = [case.too_small(where) for case, where in found]
    warnings = [case.too_large(largest, where) for case, where in found if not case.too_small(where)]
    return Findings(*(tuple(dict.fromkeys(each for each in part if each)) for part in (refusals, warnings)))


@dataclass(frozen=True)
class _Case:
    """Backends that differ in nothing but their address."""

    dispatch: str
    protocol: Protocol
    version: int
    """Of the requests, which a tunnel may carry in the other one."""
    added: int
    way: Way

    @property
    def _fits(self) -> int:
        return self.way.mtu - self.added

    def too_small(self, where: str) -> str:
        """Why packets that every link must carry would not fit; "" where they do."""
        least = LEAST[self.version]
        if self._fits >= least:
            return ""
        return (
            f"requests by IPv{self.version} may always have {least} bytes, which dispatch {self.dispatch} makes"
            f" {least + self.added}; the MTU of {where} is {self.way.mtu}"
        )

    def too_large(self, receiving: Optional[Way], where: str) -> str:
        """Why full-size packets would not fit; "" where they do."""
        if receiving is None or receiving.mtu <= self._fits:
            return ""
        answer = "fragmentation needed" if self.version == 4 else "packet too big"
        return (
            f"{self.protocol.name} requests of {receiving.mtu} bytes, the MTU of {receiving.device}, need"
            f" {receiving.mtu + self.added} with dispatch {self.dispatch}; the MTU of {where} is {self.way.mtu}:"
            f" clients get ICMP {answer}, effective MTU {self._fits}"
        )


def _cases(
    services: Iterable[Service], options: Mapping[str, Any], ways: Mapping[IPAddress, Way]
) -> Iterator[tuple[_Case, IPAddress]]:
    dispatch = options["bpf-lb-dsr-dispatch"]
    for service in services:
        kinds = {(each.protocol, each.address.version) for each in service.frontends}
        for protocol, version in sorted(kinds, key=lambda kind: (kind[0].name, kind[1])):
            if mode_of(service.mode, protocol, options) is not Mode.DSR:
                continue
            for address in dict.fromkeys(backend.address for backend in service.backends):
                size = added(dispatch, protocol, address.version)
                if size and address in ways:
                    yield _Case(dispatch, protocol, version, size, ways[address]), address


def _some(addresses: list[IPAddress]) -> str:
    unique = list(dict.fromkeys(addresses))
    more = len(unique) - 1
    return str(unique[0]) + (f" and {more} more backend{'s' if more > 1 else ''}" if more else "")


def ways_of(facts: NodeFacts, addresses: Iterable[IPAddress]) -> dict[IPAddress, Way]:
    """The way to each address, as the kernel routes now; an MTU of the route's own counts before the device's."""
    found = {}
    for address in addresses:
        hop = facts.next_hops.get(address)
        device = facts.devices.get(hop.device) if hop is not None else None
        if hop is not None and device is not None:
            found[address] = Way(hop.device, min(hop.mtu or device.mtu, device.mtu))
    return found


def dsr_backends(services: Iterable[Service], options: Mapping[str, Any]) -> dict[str, list[IPAddress]]:
    """Service name -> addresses of its backends, of the services that have direct server return for any frontend."""
    return {
        service.name: list(dict.fromkeys(backend.address for backend in service.backends))
        for service in services
        if any(mode_of(service.mode, each.protocol, options) is Mode.DSR for each in service.frontends)
    }

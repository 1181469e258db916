"""`datapath capture`, the agent's part: the load balancer copies frames from start to stop, or until the time is up."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping
from typing import Any, Callable, Optional, TypeVar

from datapath.agent import views
from datapath.agent.core import Agent
from datapath.compile import layouts
from datapath.compile.layouts import Capture, pack_address
from datapath.compile.outcomes import OUTCOMES
from datapath.kernel import devices
from datapath.kernel.devices import Link
from datapath.spec.errors import RefusedError, SpecError, SpecErrors, nearest_name
from datapath.spec.scalars import parse_int, parse_port
from datapath.state.model import IPNetwork

_T = TypeVar("_T")

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
LONGEST, MOST_BYTES = 3600, 65535
"""Seconds of a capture, bytes of a frame."""


def start(agent: Agent, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Begin; what a reader of the events has to know. Raises SpecErrors, NotFoundError, KernelError."""
    links = devices.links()
    names = {name: link.index for name, link in links.items()}
    seconds, wanted = parse(parameters, names)
    with agent.turns.changing():
        if not agent.kernel.loaded():
            message = "no load balancer is loaded on this node"
            raise views.NotFoundError(SpecError("node", "load balancer", None, message, "`datapath apply` loads it"))
        if agent.capture_until is not None:
            left = max(0.0, agent.capture_until - time.monotonic())
            message = f"somebody captures already, for {left:.0f} s at most"
            raise SpecErrors([SpecError("node", "capture", None, message, "one capture at a time")])
        _require_program(parameters.get("device"), links)
        attached = agent.kernel.begin_capture(bytes(wanted))
        agent.capture_until = time.monotonic() + seconds
    return {
        "events": str(agent.paths.pins / "maps" / layouts.CAPTURE_EVENTS),
        "seconds": seconds,
        "attached": sorted(name for name, index in names.items() if index in attached),
        "devices": {str(index): name for name, index in names.items()},
        "outcomes": [{"name": each.name, "verdict": each.verdict.value} for each in OUTCOMES],
    }


def stop(agent: Agent) -> dict[str, Any]:
    """End; `was_running` is false where the time was up, or an apply ended it. Raises KernelError."""
    return {"was_running": agent.end_capture()}


def parse(parameters: Mapping[str, str], names: Mapping[str, int]) -> tuple[int, Capture]:
    """(seconds, what to capture), of the command line's options; raises SpecErrors with all that is wrong."""
    wanted = Capture(enabled=1)
    errors: list[SpecError] = []

    def take(name: str, default: str, read: Callable[[str], _T]) -> Optional[_T]:
        text = parameters.get(name, default)
        try:
            return read(text) if text else None
        except RefusedError as error:
            errors.append(SpecError("command line", f"--{name}", text, error.message, error.allowed, error.nearest))
            return None

    seconds = take("seconds", "60", lambda text: parse_int(text, 1, LONGEST))
    wanted.snaplen = take("snaplen", str(MOST_BYTES), lambda text: parse_int(text, 1, MOST_BYTES)) or 0
    wanted.port = take("port", "", parse_port) or 0
    wanted.device = take("device", "", lambda text: _chosen(text, names)) or 0
    wanted.protocol = take("protocol", "", lambda text: _chosen(text.lower(), PROTOCOLS)) or 0
    network = take("host", "", _network)
    if network is not None:
        prefix = network.prefixlen + (96 if network.version == 4 else 0)
        wanted.mask[:] = ((1 << 128) - (1 << (128 - prefix))).to_bytes(16, "big")
        wanted.address[:] = pack_address(network.network_address)
    if errors or seconds is None:
        raise SpecErrors(errors)
    return seconds, wanted


def _require_program(device: Optional[str], links: Mapping[str, Link]) -> None:
    """Refuse a device whose frames XDP does not meet there: those of a VLAN or a bond it meets at what is below."""
    if device and not links[device].xdp_program:
        carrying = ", ".join(sorted(name for name, link in links.items() if link.xdp_program))
        raise SpecErrors([SpecError("command line", "--device", device, "carries no XDP program", carrying)])


def _chosen(text: str, known: Mapping[str, int]) -> int:
    if text not in known:
        raise RefusedError("unknown", ", ".join(sorted(known)), nearest_name(text, known))
    return known[text]


def _network(text: str) -> IPNetwork:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise RefusedError("neither an address nor a network", "such as 192.0.2.10 or 2001:db8::/64") from None

"""Which devices the load balancer is attached to, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

from datapath.compile import vlans
from datapath.compile.drivers import Hindrance, slow_sending
from datapath.compile.errors import Problems
from datapath.spec.errors import SpecError, nearest_name
from datapath.state.facts import Device, NodeFacts
from datapath.state.model import Hook, IPAddress, Program

_DEVICES = "options.values.devices"
_DIRECT = "options.values.direct_routing_device"


def select(options: Mapping[str, Any], facts: NodeFacts, targets: Iterable[IPAddress], problems: Problems) -> list[str]:
    """Names of the devices that options `devices` and `direct-routing-device` stand for, each once.

    `targets` are addresses of backends and of other load balancers. Raises nothing; what is wrong goes to `problems`.
    """
    patterns: Sequence[str] = options["devices"]
    names = _named(patterns, facts, problems) if patterns else _by_routes(facts, targets)
    direct = options["direct-routing-device"]
    if direct:
        names += _matching(direct, facts, _DIRECT, problems)
    names = list(dict.fromkeys(names))
    if not names and not problems.errors:
        message = "no device to attach to: "
        message += "none matches" if patterns else "there is no default route and no route to a backend"
        problems.refuse(_DEVICES, list(patterns), message, _choices(facts))
    for name in names:
        if not facts.devices[name].up:
            problems.warn(f"device {name} is down")
    return names


def _named(patterns: Sequence[str], facts: NodeFacts, problems: Problems) -> list[str]:
    names: list[str] = []
    for index, pattern in enumerate(patterns):
        names += _matching(pattern, facts, f"{_DEVICES}[{index}]", problems)
    return names


def _matching(pattern: str, facts: NodeFacts, path: str, problems: Problems) -> list[str]:
    """Devices that a name or a wildcard (`eth+`) stands for."""
    if pattern in facts.devices:
        return [pattern]
    if pattern.endswith("+"):
        # one list serves a fleet, so a wildcard may match nothing on one of its nodes
        found = [name for name in sorted(facts.devices) if name != "lo" and name.startswith(pattern[:-1])]
        if not found:
            problems.warn(f"no device matches {pattern}")
        return found
    problems.refuse(
        path, pattern, f"there is no device {pattern}", _choices(facts), nearest_name(pattern, facts.devices)
    )
    return []


def _by_routes(facts: NodeFacts, targets: Iterable[IPAddress]) -> list[str]:
    """Devices of default routes, and those that lead to backends and other load balancers."""
    hops = {facts.next_hops[target].device for target in targets if target in facts.next_hops}
    return [name for name in (*facts.default_devices, *sorted(hops)) if name in facts.devices and name != "lo"]


def carriers(names: Iterable[str], facts: NodeFacts, problems: Problems) -> list[str]:
    """The devices that programs for `names` are attached to, where they can be native: each once."""
    return list(dict.fromkeys(carrier for name in names for carrier in _carriers(name, facts, problems)))


def _carriers(name: str, facts: NodeFacts, problems: Problems) -> Sequence[str]:
    """Those of a VLAN device are the ones of what it is on, if XDP can do there what it does."""
    below = vlans.base(name, facts)
    if below is not None and _vlan_hindrance(name, facts) is None:
        return _ports(below.device.name, facts, problems)
    return _ports(name, facts, problems)


def _ports(name: str, facts: NodeFacts, problems: Problems) -> Sequence[str]:
    """Where frames of a device that is no VLAN come in: of a bond by its ports.

    A program at the bond itself (5.15 and newer) does for some of its modes only; at the ports every mode will do. A
    port that comes later is drift, which the next apply heals.
    """
    device = facts.devices[name]
    if device.kind != "bond":
        return (name,)
    if not device.lower:
        problems.warn(f"device {name} is a bond without ports, so nothing is attached for it")
    return device.lower


def _vlan_hindrance(name: str, facts: NodeFacts) -> Optional[Hindrance]:
    """Why XDP at what a VLAN device is on would not see its frames, or not natively."""
    below = vlans.base(name, facts)
    if below is None:
        return Hindrance("its parent cannot be seen from here, or its frames have more than two tags", "")
    for port in _ports(below.device.name, facts, Problems()):
        device = facts.devices[port]
        if device.native_xdp is False:
            return Hindrance(
                f"{port}, which its frames come in by, has none: {_no_native(device)}", _native_remedy(device)
            )
        if device.takes_tags_off:
            reason = f"{port}, which its frames come in by, takes tags off before XDP sees them (rx-vlan-offload)"
            return Hindrance(reason, f"ethtool -K {port} rxvlan off")
    return None


def vlans_served(names: Iterable[str], modes: Mapping[str, str], facts: NodeFacts) -> dict[str, Sequence[str]]:
    """VLAN devices of `names` -> the devices that the program for them is attached to, where it is not themselves."""
    found: dict[str, Sequence[str]] = {}
    for name in names:
        if facts.devices[name].kind == "vlan" and name not in modes:
            found[name] = [port for port in _carriers(name, facts, Problems()) if port in modes]
    return found


def _choices(facts: NodeFacts) -> str:
    return "devices of this node: " + ", ".join(name for name in sorted(facts.devices) if name != "lo")


def attachments(
    names: Sequence[str], acceleration: str, facts: NodeFacts, attached: Mapping[str, str], problems: Problems
) -> dict[str, str]:
    """Device -> `tc`, or its XDP mode `native` or `generic`; `attached` is how they are attached now."""
    if acceleration == "disabled":
        # tc meets a bond's frames at the bond.
        return dict.fromkeys(names, "tc")
    if acceleration == "testing-only":
        # In generic mode the kernel has taken the tags off already: there programs are at VLAN devices themselves.
        return dict.fromkeys((port for name in names for port in _ports(name, facts, problems)), "generic")
    modes = _modes(carriers(names, facts, problems), acceleration, facts, attached, problems)
    for name in (name for name, mode in modes.items() if mode == "native"):
        device = facts.devices[name]
        slow = slow_sending(device.driver, name, device.channels, facts.cpus)
        if slow is not None:
            problems.warn(f"device {name}: {slow.reason}; {slow.remedy} ends that")
        if device.driver == "veth" and not device.peer_xdp:
            seen = "perhaps carries" if device.peer_xdp is None else "carries"
            problems.warn(
                f"device {name} is a veth whose peer {seen} no XDP program: frames sent out of it then arrive only"
                " while the peer has GRO on (docs/operations.md, Load balancers in containers)"
            )
    return modes


def can_transmit(modes: Mapping[str, str], facts: NodeFacts) -> bool:
    """Whether what XDP_TX sends arrives, whoever is at the other end: not from a veth in native mode."""
    return not any(mode == "native" and facts.devices[name].driver == "veth" for name, mode in modes.items())


def has_several_buffers(modes: Mapping[str, str], facts: NodeFacts) -> bool:
    """Whether the program has to take frames in several buffers: natively; in generic mode the kernel joins them."""
    return any(mode == "native" and facts.devices[name].several_buffers for name, mode in modes.items())


def _modes(
    names: Sequence[str], acceleration: str, facts: NodeFacts, attached: Mapping[str, str], problems: Problems
) -> dict[str, str]:
    modes = {}
    for name in names:
        device = _judged(facts.devices[name], facts)
        modes[name] = "native"
        if device.native_xdp is False and acceleration == "native":
            _refuse_native(device, problems)
        elif device.native_xdp is False:
            problems.warn(f"device {name} runs in generic XDP mode: {_no_native(device)}{_remedy(device)}")
            modes[name] = "generic"
        elif device.native_xdp is None:
            # not probed: what is attached has shown that it can be
            modes[name] = attached.get(name, "native") if acceleration == "best-effort" else "native"
    return modes


def _judged(device: Device, facts: NodeFacts) -> Device:
    """A VLAN device with the reason why XDP is not at what it is on, instead of that of its own driver."""
    hindrance = _vlan_hindrance(device.name, facts) if device.kind == "vlan" else None
    if hindrance is None:
        return device
    return replace(device, native_xdp_reason=hindrance.reason, native_xdp_remedy=hindrance.remedy)


def _no_native(device: Device) -> str:
    driver = f"its driver is {device.driver}" if device.driver else "it has no driver"
    return driver + (f" ({device.native_xdp_reason.rstrip('.')})" if device.native_xdp_reason else "")


def _remedy(device: Device) -> str:
    remedy = _native_remedy(device)
    return f"; for native mode: {remedy}" if remedy else ""


def _native_remedy(device: Device) -> str:
    """What to do about the device; "" where the remedy is about the option."""
    remedy = device.native_xdp_remedy
    return "" if remedy.startswith("best-effort") else remedy


def _refuse_native(device: Device, problems: Problems) -> None:
    remedy = _native_remedy(device)
    problems.refuse(
        "options.values.acceleration",
        "native",
        f"device {device.name} has no native XDP: {_no_native(device)}; best-effort would attach there in generic"
        " mode, which does the same for every packet but later, after the kernel has allocated for it, so slower",
        (f"{remedy}; or " if remedy else "") + "best-effort, testing-only, or devices whose driver has native XDP",
    )


def program_error(program: Program, facts: NodeFacts, balanced: Mapping[str, str]) -> Optional[SpecError]:
    """What is wrong with a user's program on a device that does not exist or whose XDP hook is the load balancer's."""
    path, name = f"programs.{program.name}.attach.device", program.device
    if program.hook not in (Hook.XDP, Hook.TC) or name is None:
        return None
    if name not in facts.devices:
        nearest = nearest_name(name, facts.devices)
        return SpecError("programs", path, name, f"there is no device {name}", _choices(facts), nearest)
    if program.hook is Hook.XDP and balanced.get(name, "tc") != "tc":
        return SpecError("programs", path, name, "the load balancer is attached to this device's XDP hook")
    return None

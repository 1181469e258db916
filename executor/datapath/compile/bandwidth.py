"""What rates of endpoints ask of the kernel: qdiscs, sysctls, programs and where they are, entries of their maps."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from datapath.compile import bbr, devices
from datapath.compile.balancer import targets
from datapath.compile.endpoints import NodeEndpoint, resolve
from datapath.compile.errors import Problems
from datapath.compile.layouts import (
    BANDWIDTH_ENDPOINTS,
    BANDWIDTH_NATIVES,
    BANDWIDTH_RATES,
    ENDPOINT_HOST,
    ENDPOINT_LAST,
    RATE_EGRESS,
    RATE_INGRESS,
    BandwidthConfig,
    Rate,
    RateKey,
)
from datapath.spec.options import effective
from datapath.state.facts import NodeFacts
from datapath.state.kernel_state import BandwidthPrograms, Entries, KernelState, Qdisc
from datapath.state.merged import MergedState
from datapath.state.model import Endpoint, Options

HORIZON = 2.0
"""Seconds that a departure may be ahead (Cilium's)."""
PACKETS, FLOW_PACKETS = 1_000_000, 100_000
"""What fq keeps at most: more than rates let wait, so that it is never fq who drops."""
FQ = f"fq, horizon {HORIZON:g} s, 32768 buckets, {PACKETS} packets, {FLOW_PACKETS} of a flow"
"""Text of the qdisc at a device with one queue for sending, and of each leaf below mq at others."""
MQ = f"mq of {FQ}"
_OPTION = "options.values.enable_bandwidth_manager"
_DEVICES = "options.values.devices"
_LEAST = {
    "net.core.netdev_max_backlog": 1000,
    "net.core.somaxconn": 4096,
    "net.ipv4.tcp_max_syn_backlog": 4096,
}
"""Sysctls that are raised to Cilium's values, and stay where they are higher."""
_SET = {"net.core.default_qdisc": "fq"}
SYSCTLS = (*_LEAST, *_SET, *bbr.SYSCTLS)
_QUEUE = 4 << 20
"""Bytes of an endpoint that may wait, where that is less than the horizon's worth.

What comes through the host's stack has left its socket's account, so nothing else bounds it: a sender that does not
slow down would have the horizon's worth in fq, at every rate.
"""
_SHORTEST_HORIZON = 0.005
_BURSTS_A_SECOND = 10
_LEAST_BURST = 128 * 1024
"""Bytes: twice the largest packet that the stack passes on in one piece (GSO), as TCP would not get on else."""
_MOST_BURST = ((1 << 64) - 1) // 10**9
"""The program multiplies by nanoseconds a second."""
_Number = struct.Struct("=I")


@dataclass(frozen=True)
class Bandwidth:
    """All of it."""

    programs: BandwidthPrograms
    entries: Mapping[str, Entries]
    qdiscs: Mapping[str, Qdisc]
    sysctls: Mapping[str, str]
    host_bbr: Optional[bytes] = None
    names: Mapping[int, str] = field(default_factory=dict)
    """Number -> endpoint."""


def wanted(merged: MergedState) -> bool:
    """Whether this node has a bandwidth manager."""
    return bool(effective(merged.options)["enable-bandwidth-manager"])


def compile_bandwidth(
    merged: MergedState, facts: NodeFacts, have: KernelState, build_id: bytes, problems: Problems
) -> Optional[Bandwidth]:
    """What the node needs; None where something is refused."""
    if not facts.features.get("sch_fq"):
        message = "this kernel has no qdisc fq (feature sch_fq): nothing would hold packets back until they may leave"
        problems.refuse(
            _OPTION, True, message, "false; or a kernel with CONFIG_NET_SCH_FQ, such as a distribution's own"
        )
        return None
    options = effective(merged.options)
    bbr.check(options, facts, problems)
    found = resolve(merged.endpoints, facts.devices)
    routes = routed(merged.options)
    present = [each for each in found if each.present and _is_served(each.endpoint, routes)]
    selected = devices.select(options, facts, targets(merged), problems)
    _check_native(selected, present, facts, problems)
    numbers = _numbers(present, have)
    sending = any(routes or RATE_EGRESS in _rates(each.endpoint) for each in present)
    programs = BandwidthPrograms(
        config=_config(build_id, routes),
        native=frozenset(selected if sending else ()),
        endpoints=frozenset(each.device.name for each in present if each.device is not None),
    )
    qdiscs = {name: Qdisc(MQ if facts.devices[name].queues > 1 else FQ, "ours") for name in _queueing(selected, facts)}
    _check_qdiscs(qdiscs, have, problems)
    natives = [facts.devices[name].index for name in sorted(programs.native)] if routes else []
    labels = {number: name for name, number in numbers.items()}
    return Bandwidth(
        programs,
        _entries(present, numbers, natives),
        qdiscs,
        _sysctls(options, facts),
        bbr.host_program(options, facts, build_id, problems),
        labels,
    )


def routed(options: Options) -> bool:
    """Whether programs route what endpoints send; else the host's stack does."""
    values = effective(options)
    return bool(values["enable-bandwidth-manager"]) and not values["enable-host-legacy-routing"]


def served(options: Options, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Those that the programs are for: with a rate or a priority, and where they route, with a device."""
    routes = routed(options)
    return [each for each in endpoints if _is_served(each, routes)]


def _is_served(endpoint: Endpoint, routes: bool) -> bool:
    return bool(_rates(endpoint)) or (routes and not endpoint.host)


def _rates(endpoint: Endpoint) -> dict[int, Rate]:
    """Direction -> what map RATES has for it."""
    rates = {}
    if endpoint.egress_bandwidth is not None or endpoint.priority is not None:
        rate = (endpoint.egress_bandwidth or 0) // 8
        rates[RATE_EGRESS] = Rate(rate, _horizon(rate) if rate else 0, 0, endpoint.priority or 0)
    if endpoint.ingress_bandwidth is not None:
        rate = endpoint.ingress_bandwidth // 8
        # In whole numbers: floats would not do for the largest rates.
        rates[RATE_INGRESS] = Rate(rate, 0, min(max(rate // _BURSTS_A_SECOND, _LEAST_BURST), _MOST_BURST))
    return rates


def _horizon(rate: int) -> int:
    """Nanoseconds that a departure may be ahead."""
    return int(min(HORIZON, max(_QUEUE / rate, _SHORTEST_HORIZON)) * 1e9)


def _check_native(
    selected: Iterable[str], served: Iterable[NodeEndpoint], facts: NodeFacts, problems: Problems
) -> None:
    """No endpoint is at a device that leads out, and nothing that the host sends is counted twice."""
    chosen = set(selected)
    for each in served:
        if each.device is not None and each.device.name in chosen:
            place = f"endpoints.{each.endpoint.name}"
            problems.refuse(place, each.device.name, "is one of devices, which lead out of the node", "another device")
    if any(each.endpoint.host and RATE_EGRESS in _rates(each.endpoint) for each in served):
        for name in sorted(chosen):
            for lower in sorted(chosen & set(facts.devices[name].lower)):
                message = f"{name} is on {lower}: the rate of what the host sends would count its packets twice"
                problems.refuse(_DEVICES, [lower, name], message, f"{name} or {lower}, or no rate for the host")


def _queueing(names: Iterable[str], facts: NodeFacts) -> list[str]:
    """Where packets of these devices queue: of a bond at its ports, of a VLAN at its parent."""
    found: dict[str, None] = {}
    for name in names:
        device = facts.devices.get(name)
        below = device.lower if device is not None and device.kind in ("bond", "vlan") else ()
        found.update(dict.fromkeys(_queueing(below, facts) if below else [name] if device is not None else []))
    return list(found)


def _check_qdiscs(qdiscs: Mapping[str, Qdisc], have: KernelState, problems: Problems) -> None:
    for name in qdiscs:
        present = have.qdiscs.get(name)
        if present is not None and present.owner == "other":
            message = f"device {name} has qdisc {present.text}, which somebody configured, and would not get it back"
            problems.refuse(_OPTION, name, message, f"none of somebody's: tc qdisc del dev {name} root")


def _numbers(served: Iterable[NodeEndpoint], have: KernelState) -> dict[str, int]:
    """Endpoint -> number; a device that has one keeps it."""
    present = {
        _Number.unpack(key)[0]: _Number.unpack(value)[0]
        for key, value in have.entries.get(BANDWIDTH_ENDPOINTS, {}).items()
    }
    numbers: dict[str, int] = {}
    fresh: list[str] = []
    for each in served:
        if each.device is None:
            numbers[each.name] = ENDPOINT_HOST
        elif present.get(each.device.index, 0) > ENDPOINT_HOST:
            numbers[each.name] = present[each.device.index]
        else:
            fresh.append(each.name)
    taken = {*numbers.values(), *present.values()}
    free = (number for number in range(ENDPOINT_HOST + 1, ENDPOINT_LAST + 1) if number not in taken)
    return {**numbers, **dict(zip(fresh, free))}


def _entries(served: Sequence[NodeEndpoint], numbers: Mapping[str, int], natives: Iterable[int]) -> dict[str, Entries]:
    return {
        BANDWIDTH_NATIVES: {_Number.pack(index): _Number.pack(1) for index in natives},
        BANDWIDTH_ENDPOINTS: {
            _Number.pack(each.device.index): _Number.pack(numbers[each.name])
            for each in served
            if each.device is not None
        },
        BANDWIDTH_RATES: dict(_rate_entries(served, numbers)),
    }


def _rate_entries(served: Iterable[NodeEndpoint], numbers: Mapping[str, int]) -> Iterator[tuple[bytes, bytes]]:
    for each in served:
        for direction, rate in _rates(each.endpoint).items():
            yield bytes(RateKey(numbers[each.name], direction)), bytes(rate)


def _config(build_id: bytes, routes: bool) -> bytes:
    config = BandwidthConfig(horizon=int(HORIZON * 1e9), route=routes)
    config.build_id[:] = build_id
    return bytes(config)


def _sysctls(options: Mapping[str, Any], facts: NodeFacts) -> dict[str, str]:
    """Those that this node has: a network namespace has not all. What is high enough is wanted as it is."""
    known = {name: facts.sysctls[name] for name in SYSCTLS if name in facts.sysctls}
    raised = {name: str(max(int(value), _LEAST[name])) for name, value in known.items() if name in _LEAST}
    wanted = {**_SET, **bbr.sysctls(options)}
    return {**raised, **{name: value for name, value in wanted.items() if name in known}}

"""What is measured: packets of a kind, and what has to become of them."""

import itertools
from dataclasses import dataclass, replace
from typing import Optional

from bench import frames
from bench.wrapper import Order, Traffic

MANY = 1 << 17
"""Flows of the cases with many of them: with their replies a quarter of a million entries."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    traffic: Traffic
    floor: Traffic
    """What the floors get, which know IPv4 only: as many flows of the same protocol to a VIP."""
    outcome: str
    """What the load balancer has to count every packet as."""
    opening: Optional[Traffic] = None
    """What goes before, once: SYNs."""
    goal: Optional[float] = None
    """At most so many times the stateless load balancer."""
    moves_head: bool = False
    """Whether the load balancer makes the frame longer."""


def _requests(device, protocol, version, offset):
    """(a flow, many flows) of one family and protocol."""
    one = Traffic(frames.request(version, protocol, "A", offset=offset), device)
    return one, replace(one, flows=MANY, order=Order.MIXED)


def _opening(traffic, protocol):
    """The SYNs of TCP flows."""
    if protocol != "tcp":
        return None
    syn = bytearray(traffic.frame)
    syn[{4: 47, 6: 67}[traffic.version]] = 0x02
    return replace(traffic, frame=bytes(syn), order=Order.SEQUENTIAL)


def established(devices):
    """Flows that are known: one of each kind, then many."""
    kinds = list(itertools.product((4, 6), ("tcp", "udp")))
    for many in (False, True):
        for version, protocol in kinds:
            traffic = _requests(devices["in0"], protocol, version, 0)[many]
            floor = _requests(devices["in0"], protocol, 4, 0)[many]
            name = f"IPv{version} {protocol.upper()}, established, {'128k flows at random' if many else 'one flow'}"
            goal = 7 if many else 3
            yield Case(name, traffic, floor, "request_forwarded", _opening(traffic, protocol), goal)


def fresh(devices):
    """Flows that begin with every packet."""
    for version, protocol in itertools.product((4, 6), ("tcp", "udp")):
        traffic = Traffic(frames.request(version, protocol, "S", offset=1), devices["in0"], order=Order.FRESH)
        floor = Traffic(frames.request(4, protocol, "S", offset=1), devices["in0"], order=Order.FRESH)
        name = f"IPv{version} {protocol.upper()}, always a new flow"
        yield Case(name, traffic, floor, "request_new_flow", goal=12)


def direct(mode, devices):
    """Direct server return. Requests come by the device that leads to the backends, as with a single network card."""
    device = devices["out0"]
    kinds = list(itertools.product((4, 6), ("tcp", "udp")))
    for many in (False, True):
        for version, protocol in kinds:
            traffic = _requests(device, protocol, version, 0)[many]
            floor = _requests(device, protocol, 4, 0)[many]
            name = f"{mode}, IPv{version} {protocol.upper()}, {'128k flows at random' if many else 'one flow'}"
            goal = 1.9 if many or protocol == "udp" else 1.6
            # Of a TCP connection, only the SYN carries the option.
            moves = mode != "DSR opt" or protocol == "udp"
            yield Case(name, traffic, floor, "request_forwarded", goal=goal, moves_head=moves)
    for version, protocol in kinds:
        traffic, floor = (
            Traffic(frames.request(each, protocol, "S", offset=1), device, order=Order.FRESH) for each in (version, 4)
        )
        name = f"{mode}, IPv{version} {protocol.upper()}, always a new flow"
        outcome = "request_new_flow" if protocol == "tcp" else "request_forwarded"
        yield Case(name, traffic, floor, outcome, goal=1.9, moves_head=True)


def not_a_vip(devices):
    """Packets that are none of the load balancer's business."""
    for version, destination in ((4, "192.0.2.77"), (6, "2001:db8::77")):
        traffic = Traffic(frames.request(version, "tcp", "A", destination), devices["in0"])
        floor = Traffic(frames.request(4, "tcp", "A"), devices["in0"])
        yield Case(f"IPv{version} TCP, not to a VIP: pass", traffic, floor, "no_service_passed", goal=1)


def replies(devices, push):
    """Backends' answers to one flow; `push(Traffic)` returns the frame that the load balancer makes of a request."""
    for version, protocol in itertools.product((4, 6), ("tcp", "udp")):
        one, _ = _requests(devices["in0"], protocol, version, 0)
        floor, _ = _requests(devices["in0"], protocol, 4, 0)
        for each in filter(None, (_opening(one, protocol), one)):
            forwarded = push(each)
        traffic = Traffic(frames.reply(forwarded, version, protocol), devices["out0"])
        yield Case(f"IPv{version} {protocol.upper()}, reply, one flow", traffic, floor, "reply_forwarded", goal=3)

"""ICMP errors about a flow reach the end of it that sent the quoted packet, as if they were about what it sent.

Without them path-MTU discovery breaks. A router on the way quotes what it saw, which is not always what was sent.
"""

import itertools

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bpf import oracle
from bpf.frames import At, echo
from bpf.rig import (
    AT_EVERY_HOOK,
    BACKEND_MACS,
    CLIENT_MAC,
    DSR,
    DSR_CROSSED,
    DSR_EMPTY,
    DSR_RANDOM,
    GATEWAY,
    MACS,
    OTHER,
    PROTOCOLS,
    ROUTER_MAC,
    SIDES,
    WEB,
    ether,
    ip,
    l4,
    request,
)
from bpf.test_dsr import DISPATCHES, configure, host_of, on_link
from datapath.compile import layouts

pytestmark = AT_EVERY_HOOK

EACH = pytest.mark.parametrize(("version", "protocol"), list(itertools.product((4, 6), PROTOCOLS)))
BOTH = pytest.mark.parametrize("version", [4, 6])

ERRORS = {
    4: {
        "too_big": lambda: ICMP(type=3, code=4, nexthopmtu=1400),
        "unreachable": lambda: ICMP(type=3, code=1),
        "port": lambda: ICMP(type=3, code=3),
        "expired": lambda: ICMP(type=11, code=0),
        "parameter": lambda: ICMP(type=12, code=0, ptr=1),
    },
    6: {
        "too_big": lambda: ICMPv6PacketTooBig(mtu=1400),
        "unreachable": lambda: ICMPv6DestUnreach(code=3),
        "port": lambda: ICMPv6DestUnreach(code=4),
        "expired": lambda: ICMPv6TimeExceeded(code=0),
        "parameter": lambda: ICMPv6ParamProblem(code=1, ptr=6),
    },
}
KINDS = list(ERRORS[4])
QUOTES = {"whole": None, "ports": 8, "all_of_tcp": 20, "odd": 23}
"""Bytes of the quoted packet behind its IP header: RFC 792 asks for 8, RFC 1812 and 4443 for as much as fits."""


def quoted(version, protocol, source, destination, size=None, **fields):
    """A packet between ends, (address, port), as sent, down to its checksums, and cut off."""
    packet = ip(version, source[0], destination[0], ttl=60) / l4(protocol, source[1], destination[1], "A", **fields)
    whole = bytes(packet / Raw(bytes(range(200))))
    return whole if size is None else whole[: {4: 20, 6: 40}[version] + size]


def error(version, source, destination, kind, quote, *, mac=None, ttl=60):
    """An ICMP error that a router sends; `mac` is (source, destination)."""
    head = Ether(src=mac[0], dst=mac[1]) if mac else ether()
    return bytes(head / ip(version, source, destination, ttl=ttl) / ERRORS[version][kind]() / Raw(quote))


def router(version):
    """On the way to clients."""
    return {4: "203.0.113.99", 6: "fd03::99"}[version]


# --- direct server return ---


def error_about_reply(version, protocol, kind="too_big", *, size=None, port=DSR, sport=20000, **fields):
    """What a router on the client's way says about a backend's packet, sent from the VIP."""
    side = SIDES[version]
    quote = quoted(version, protocol, (side.vip, port), (side.client, sport), size)
    return error(version, router(version), side.vip, kind, quote, **fields)


def for_backend(version, protocol, host, dispatch, kind="too_big", *, size=None, port=DSR, sport=20000, outer=None):
    """The same as that backend is to see it."""
    side = SIDES[version]
    mac = MACS["out0"], BACKEND_MACS[host]
    outer = outer or version
    backend = on_link(outer, host)
    if dispatch == "ipip":
        frame = error_about_reply(version, protocol, kind, size=size, port=port, sport=sport, mac=mac, ttl=59)
        return oracle.in_ip(frame, SIDES[outer].snat, backend[0])
    client = side.client, sport
    quote = quoted(version, protocol, backend, client, size)
    frame = error(version, router(version), backend[0], kind, quote, mac=mac, ttl=59)
    if dispatch == "geneve":
        hashed = oracle.slot_hash(side.client, sport, port, PROTOCOLS[protocol])
        return oracle.in_geneve(frame, side.snat, backend[0], hashed)
    return frame


@EACH
@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_about_a_reply_that_went_straight_to_the_client(rig, version, protocol, dispatch, kind):
    """By the table alone: the node may never have seen a packet of the flow."""
    configure(rig, dispatch)
    host = host_of(version, protocol)
    result = rig.run(error_about_reply(version, protocol, kind))
    assert result.outcome == "icmp_error_forwarded"
    assert result.frame.hex() == for_backend(version, protocol, host, dispatch, kind).hex()
    assert rig.records() == {}


@EACH
@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("size", QUOTES)
def test_as_much_as_is_quoted(rig, version, protocol, dispatch, size):
    configure(rig, dispatch)
    host = host_of(version, protocol)
    result = rig.run(error_about_reply(version, protocol, size=QUOTES[size]))
    assert result.outcome == "icmp_error_forwarded"
    assert result.frame.hex() == for_backend(version, protocol, host, dispatch, size=QUOTES[size]).hex()


@EACH
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_every_flow_has_its_backend(rig, version, protocol, dispatch):
    configure(rig, dispatch)
    for sport in range(20000, 20016):
        host = host_of(version, protocol, sport=sport)
        result = rig.run(error_about_reply(version, protocol, sport=sport))
        assert result.frame.hex() == for_backend(version, protocol, host, dispatch, sport=sport).hex()


@EACH
def test_through_a_tunnel_of_the_other_family(rig, version, protocol):
    configure(rig, "ipip")
    host = host_of(version, protocol, port=DSR_CROSSED)
    result = rig.run(error_about_reply(version, protocol, port=DSR_CROSSED))
    wanted = for_backend(version, protocol, host, "ipip", port=DSR_CROSSED, outer=OTHER[version])
    assert result.frame.hex() == wanted.hex()


@EACH
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_in_a_slot_that_moved(rig, version, protocol, dispatch):
    """To whom the flow's packets go, recorded or not; the error itself is no reason to record it."""
    configure(rig, dispatch)
    key = (version, DSR, PROTOCOLS[protocol])
    rig.put_table(key, (11,), keep_history=False)
    rig.put_table(key, (12,))
    result = rig.run(error_about_reply(version, protocol))
    assert result.frame.hex() == for_backend(version, protocol, 11, dispatch).hex()
    assert rig.records() == {}
    if protocol == "tcp":
        rig.run(request(version, port=DSR, sport=20001, flags="S"))
        rig.run(request(version, port=DSR, sport=20001, flags="A"))
        result = rig.run(error_about_reply(version, protocol, sport=20001))
        assert result.frame.hex() == for_backend(version, protocol, 12, dispatch, sport=20001).hex()


@EACH
def test_of_algorithm_random(rig, version, protocol):
    """By the record."""
    configure(rig, "opt")
    for sport in range(20000, 20016):
        sent = rig.run(request(version, protocol, port=DSR_RANDOM, sport=sport))
        mac = Ether(sent.frame).dst
        before = rig.records()
        assert Ether(rig.run(error_about_reply(version, protocol, port=DSR_RANDOM, sport=sport)).frame).dst == mac
        assert rig.records() == before


@BOTH
def test_without_a_backend(rig, version):
    configure(rig, "opt")
    frame = error_about_reply(version, "tcp", port=DSR_EMPTY)
    result = rig.run(frame)
    assert (result.outcome, result.frame) == ("icmp_passed", frame)


# --- through this node, about what went to the client ---


@EACH
@pytest.mark.parametrize("size", QUOTES)
@pytest.mark.parametrize("kind", KINDS)
def test_about_a_reply(rig, version, protocol, kind, size):
    side, size = SIDES[version], QUOTES[size]
    opened = rig.run(request(version, protocol))
    before = rig.entries(layouts.FLOWS_TCP), rig.entries(layouts.FLOWS_ANY)
    result = rig.run(error_about_reply(version, protocol, kind, size=size, port=WEB))
    assert result.outcome == "icmp_error_forwarded"
    quote = quoted(version, protocol, opened.destination, opened.source, size)
    mac = MACS["out0"], Ether(opened.frame).dst
    wanted = error(version, router(version), opened.destination[0], kind, quote, mac=mac, ttl=59)
    assert result.frame.hex() == wanted.hex()
    assert (rig.entries(layouts.FLOWS_TCP), rig.entries(layouts.FLOWS_ANY)) == before
    assert opened.source[0] == side.snat


@EACH
@pytest.mark.parametrize(("kind", "size"), list(itertools.product(KINDS, QUOTES)))
def test_about_a_request(rig, version, protocol, kind, size):
    """From a router on the way to the backend, or from the backend."""
    side, size = SIDES[version], QUOTES[size]
    client = "client" if kind == "too_big" else "far_client"
    address = getattr(side, client)
    opened = rig.run(request(version, protocol, port=GATEWAY, source=address, sport=40000))
    quote = quoted(version, protocol, opened.source, opened.destination, size)
    sender = side.backend.format(12)
    frame = error(version, sender, side.snat, kind, quote, mac=(BACKEND_MACS[12], MACS["out0"]))
    result = rig.run(frame, "out0")
    assert result.outcome == "icmp_error_forwarded"
    quote = quoted(version, protocol, (address, 40000), (side.vip, GATEWAY), size)
    mac = MACS["in0"], CLIENT_MAC if client == "client" else ROUTER_MAC
    wanted = error(version, sender, address, kind, quote, mac=mac, ttl=59)
    assert result.frame.hex() == wanted.hex()


@EACH
def test_both_modes_on_one_node(rig, version, protocol):
    rig.configure(forwarding_modes=layouts.MODE_SNAT | layouts.MODE_DSR, dsr_dispatch=1)
    opened = rig.run(request(version, protocol))
    result = rig.run(error_about_reply(version, protocol, port=WEB))
    assert result.outcome == "icmp_error_forwarded"
    assert oracle.network(Ether(result.frame)).dst == opened.destination[0]
    result = rig.run(error_about_reply(version, protocol))
    assert result.frame.hex() == for_backend(version, protocol, host_of(version, protocol), "opt").hex()


def test_quote_with_udp_checksum_of_zero(rig):
    """Means that there is none, and stays; IPv6's UDP may not go without."""
    side = SIDES[4]
    opened = rig.run(request(4, "udp"))
    quote = quoted(4, "udp", (side.vip, WEB), (side.client, 20000), chksum=0)
    result = rig.run(error(4, router(4), side.vip, "too_big", quote))
    quote = quoted(4, "udp", opened.destination, opened.source, chksum=0)
    mac = MACS["out0"], Ether(opened.frame).dst
    assert result.frame.hex() == error(4, router(4), opened.destination[0], "too_big", quote, mac=mac, ttl=59).hex()


# --- that are nobody's ---


def passes(rig, frame, device="in0"):
    before = rig.records()
    result = rig.run(frame, device)
    assert (result.outcome, result.frame) == ("icmp_passed", frame)
    assert rig.records() == before


@EACH
def test_about_no_flow(rig, version, protocol):
    side = SIDES[version]
    passes(rig, error_about_reply(version, protocol, port=WEB))
    rig.run(request(version, protocol))
    passes(rig, error_about_reply(version, protocol, port=WEB, sport=20001))
    passes(rig, error_about_reply(version, protocol, port=9999))
    other = "udp" if protocol == "tcp" else "tcp"
    passes(rig, error_about_reply(version, other, port=WEB))
    quote = quoted(version, protocol, (side.snat, 21000), on_link(version, 11))
    passes(rig, error(version, side.backend.format(11), side.snat, "too_big", quote), "out0")


@EACH
@pytest.mark.parametrize("mode", [layouts.MODE_SNAT, layouts.MODE_DSR])
def test_addressed_to_another_than_the_quoted_sender(rig, version, protocol, mode):
    """No router sends that: whoever does wants into a flow that is not his."""
    rig.configure(forwarding_modes=mode, dsr_dispatch=1)
    side = SIDES[version]
    rig.run(request(version, protocol))
    quote = quoted(version, protocol, (side.vip, WEB), (side.client, 20000))
    passes(rig, error(version, router(version), side.own, "too_big", quote))
    quote = quoted(version, protocol, (side.own, WEB), (side.client, 20000))
    passes(rig, error(version, router(version), side.vip, "too_big", quote))


@EACH
@pytest.mark.parametrize("mode", [layouts.MODE_SNAT, layouts.MODE_DSR])
def test_cut_off_before_the_ports(rig, version, protocol, mode):
    rig.configure(forwarding_modes=mode, dsr_dispatch=1)
    rig.run(request(version, protocol))
    header = {4: 20, 6: 40}[version]
    whole = quoted(version, protocol, (SIDES[version].vip, WEB), (SIDES[version].client, 20000))
    for size in (0, 1, header - 1, header, header + 3):
        passes(rig, error(version, router(version), SIDES[version].vip, "too_big", whole[:size]))


@BOTH
@pytest.mark.parametrize("mode", [layouts.MODE_SNAT, layouts.MODE_DSR])
def test_ports_in_the_padding_are_not_quoted(rig, version, mode):
    """What is behind the packet in its frame is no part of it."""
    rig.configure(forwarding_modes=mode, dsr_dispatch=1)
    rig.run(request(version, "tcp"))
    header = {4: 20, 6: 40}[version]
    whole = quoted(version, "tcp", (SIDES[version].vip, WEB), (SIDES[version].client, 20000))
    frame = error(version, router(version), SIDES[version].vip, "too_big", whole[:header]) + whole[header:]
    passes(rig, frame)


@BOTH
def test_about_other_protocols(rig, version):
    side = SIDES[version]
    fields = {"proto" if version == 4 else "nh": 132}
    quote = bytes(ip(version, side.vip, side.client, **fields) / Raw(bytes(64)))
    passes(rig, error(version, router(version), side.vip, "too_big", quote))


@BOTH
def test_about_a_following_fragment(rig, version):
    """Has no ports."""
    rig.run(request(version, "udp"))
    side = SIDES[version]
    whole = ether() / ip(version, side.vip, side.client) / l4("udp", WEB, 20000) / Raw(bytes(600))
    *_, last = oracle.fragments(bytes(whole), 256)
    passes(rig, error(version, router(version), side.vip, "too_big", last[14:]))


@BOTH
def test_with_its_ttl_used_up(rig, version):
    """No error about an error (RFC 1122, 3.2.2)."""
    configure(rig, "opt")
    passes(rig, error_about_reply(version, "tcp", ttl=1))


@BOTH
def test_information_is_not_an_error(rig, version):
    """Types that quote nothing, with a quote in them."""
    configure(rig, "opt")
    frame = error_about_reply(version, "tcp")
    at = {4: 34, 6: 54}[version]
    for kind in {4: (0, 4, 5, 9, 13), 6: (0, 5, 100, 129, 133, 137)}[version]:
        passes(rig, frame[:at] + bytes([kind]) + frame[at + 1 :])


@EACH
def test_echo_is_answered_as_ever(rig, version, protocol):
    configure(rig, "opt")
    assert protocol in PROTOCOLS
    frame = echo(At(rig, version, protocol))
    result = rig.run(frame)
    assert (result.outcome, result.frame) == ("echo_answered", oracle.echo_reply(frame))

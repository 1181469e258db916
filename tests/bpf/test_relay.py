"""An ICMP error about a flow of another load balancer goes around the ring of them, until it is where its flow is.

The node is the first of the ring; the others have addresses of the link of its backends.
"""

import ipaddress
import struct
import time

import pytest
from scapy.layers.inet import IP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bpf import oracle
from bpf.frames import At, echo
from bpf.rig import (
    AT_EVERY_HOOK,
    BACKEND_MACS,
    DSR,
    MACS,
    OTHER,
    SIDES,
    SMALL_MTU,
    WEB,
    ether,
    ip,
    l4,
    request,
)
from bpf.test_dsr import host_of
from bpf.test_icmp_errors import (
    BOTH,
    EACH,
    KINDS,
    QUOTES,
    error,
    error_about_reply,
    for_backend,
    on_link,
    quoted,
    router,
)
from datapath.compile import layouts
from datapath.plan import operations as ops

pytestmark = AT_EVERY_HOOK

BUDGET = "relay_budget_v1"
SHARE = 1000
"""Errors that a CPU hands on in a second."""
PEER_MAC = "02:00:00:00:01:63"
LOST = (2, 3, 4, 5)
"""On the link, without a neighbour entry, and before all others in the ring."""


def peer(version, host):
    return SIDES[version].backend.format(host)


@pytest.fixture(autouse=True)
def ring(rig):
    """The node, .11 and .12, in this order; tests of others put them in place."""
    rig.configure(peers=1)
    for version, side in SIDES.items():
        rig.put_peers(version, side.snat, peer(version, 11), peer(version, 12))
    forget_budget(rig)


def forget_budget(rig):
    for key, value in rig.entries(BUDGET):
        rig.kernel.execute([ops.PutEntry(BUDGET, key, bytes(len(value)))])


def use_budget_up(rig):
    spent = struct.pack("=QQ", int(time.clock_gettime(time.CLOCK_MONOTONIC)), SHARE)
    for key, value in rig.entries(BUDGET):
        rig.kernel.execute([ops.PutEntry(BUDGET, key, spent * (len(value) // len(spent)))])


def handed_on(version, frame, source, *, host=11):
    """The frame in a tunnel, on its way to that load balancer."""
    wrapped = oracle.in_ip(frame, source, peer(version, host))
    return bytes(Ether(src=MACS["out0"], dst=BACKEND_MACS[host], type=Ether(wrapped).type) / Raw(wrapped[14:]))


def arriving(version, frame, source):
    """The frame in a tunnel, as another load balancer hands it to this one."""
    wrapped = oracle.in_ip(frame, source, SIDES[version].snat)
    return bytes(Ether(src=PEER_MAC, dst=MACS["out0"], type=Ether(wrapped).type) / Raw(wrapped[14:]))


def unwrapped(version, frame):
    """A frame that arrived so, without what was around it."""
    return frame[:14] + frame[14 + {4: 20, 6: 40}[version] :]


def passes(rig, frame, outcome="protocol_passed", after=None, device="out0"):
    before = rig.records()
    result = rig.run(frame, device)
    assert (result.outcome, result.frame.hex()) == (outcome, (frame if after is None else after).hex())
    assert rig.records() == before


# --- the load balancer that routers choose ---


@EACH
@pytest.mark.parametrize("kind", KINDS)
def test_error_about_another_s_flow_is_handed_on(rig, version, protocol, kind):
    """As it is, its TTL too."""
    frame = error_about_reply(version, protocol, kind, port=WEB)
    result = rig.run(frame)
    assert result.outcome == "icmp_error_relayed"
    assert result.frame.hex() == handed_on(version, frame, SIDES[version].snat).hex()
    assert rig.records() == {}


@EACH
@pytest.mark.parametrize("size", QUOTES)
def test_as_much_as_is_quoted(rig, version, protocol, size):
    frame = error_about_reply(version, protocol, size=QUOTES[size], port=WEB)
    assert rig.run(frame).frame.hex() == handed_on(version, frame, SIDES[version].snat).hex()


@EACH
def test_error_about_a_flow_that_is_here_stays(rig, version, protocol):
    opened = rig.run(request(version, protocol))
    result = rig.run(error_about_reply(version, protocol, port=WEB))
    assert result.outcome == "icmp_error_forwarded"
    assert oracle.network(Ether(result.frame)).dst == opened.destination[0]


@EACH
def test_without_other_load_balancers_all_is_as_before(rig, version, protocol):
    rig.configure()
    frame = error_about_reply(version, protocol, port=WEB)
    passes(rig, frame, "icmp_passed", device="in0")
    passes(rig, arriving(version, frame, peer(version, 12)))


@BOTH
def test_alone_in_its_family(rig, version):
    rig.put_peers(version, SIDES[version].snat)
    passes(rig, error_about_reply(version, "tcp", port=WEB), "icmp_passed", device="in0")
    frame = error_about_reply(OTHER[version], "tcp", port=WEB)
    assert rig.run(frame).outcome == "icmp_error_relayed"


@EACH
def test_error_about_nothing_that_has_a_flow_anywhere(rig, version, protocol):
    """A port without a service; what the node itself sent; what was sent to a backend comes to the right one anyway."""
    side = SIDES[version]
    passes(rig, error_about_reply(version, protocol, port=9999), "icmp_passed", device="in0")
    for address, port in ((side.own, WEB), (side.snat, 40000), (side.snat, 21000)):
        quote = quoted(version, protocol, (address, port), on_link(version, 11))
        passes(rig, error(version, router(version), address, "too_big", quote), "icmp_passed")


@EACH
def test_error_about_direct_server_return_needs_no_other(rig, version, protocol):
    modes = layouts.MODE_SNAT | layouts.MODE_DSR
    rig.configure(peers=1, forwarding_modes=modes, dsr_dispatch=layouts.DISPATCH_OPT)
    result = rig.run(error_about_reply(version, protocol, port=DSR))
    assert result.frame.hex() == for_backend(version, protocol, host_of(version, protocol), "opt").hex()
    frame = error_about_reply(version, protocol, port=WEB)
    assert rig.run(frame).frame.hex() == handed_on(version, frame, SIDES[version].snat).hex()


@BOTH
def test_with_its_ttl_used_up(rig, version):
    frame = error_about_reply(version, "tcp", port=WEB, ttl=1)
    passes(rig, frame, "icmp_passed", device="in0")
    passes(rig, arriving(version, frame, peer(version, 12)), "icmp_passed", frame_after(version, frame))


def frame_after(version, frame):
    """What is left of a frame that another load balancer handed on."""
    return unwrapped(version, arriving(version, frame, peer(version, 12)))


# --- the others ---


@EACH
@pytest.mark.parametrize("kind", KINDS)
def test_a_load_balancer_between_hands_it_on(rig, version, protocol, kind):
    """The origin stays the source."""
    frame = error_about_reply(version, protocol, kind, port=WEB)
    result = rig.run(arriving(version, frame, peer(version, 12)), "out0")
    assert result.outcome == "icmp_error_relayed"
    assert result.frame.hex() == handed_on(version, frame, peer(version, 12)).hex()
    assert rig.records() == {}


@EACH
@pytest.mark.parametrize(
    ("kind", "size"), [*((kind, "whole") for kind in KINDS), ("too_big", "ports"), ("expired", "odd")]
)
def test_the_one_that_has_the_flow_translates(rig, version, protocol, kind, size):
    """Whoever it came to first: just as if it had come here at once."""
    opened = rig.run(request(version, protocol))
    frame = error_about_reply(version, protocol, kind, size=QUOTES[size], port=WEB)
    result = rig.run(arriving(version, frame, peer(version, 12)), "out0")
    assert result.outcome == "icmp_error_forwarded"
    assert rig.run(arriving(version, frame, peer(version, 11)), "out0").frame == result.frame
    quote = quoted(version, protocol, opened.destination, opened.source, QUOTES[size])
    mac = MACS["out0"], Ether(opened.frame).dst
    wanted = error(version, router(version), opened.destination[0], kind, quote, mac=mac, ttl=59)
    assert result.frame.hex() == wanted.hex()


@EACH
def test_where_the_ring_ends_the_stack_has_it(rig, version, protocol):
    frame = arriving(version, error_about_reply(version, protocol, port=WEB), peer(version, 11))
    passes(rig, frame, "icmp_passed", unwrapped(version, frame))


@BOTH
def test_padding_behind_the_tunnel(rig, version):
    """Is no part of what is in it."""
    rig.run(request(version))
    frame = error_about_reply(version, "tcp", port=WEB)
    direct = rig.run(frame).frame
    result = rig.run(arriving(version, frame, peer(version, 12)) + bytes(7), "out0")
    assert result.frame.hex() == (direct + bytes(7)).hex()


@BOTH
def test_outer_header_with_options(rig, version):
    frame = error_about_reply(version, "tcp", port=WEB)
    inner = oracle.network(Ether(frame))
    if version == 4:
        outer = IP(src=peer(4, 12), dst=SIDES[4].snat, options=[IPOption_NOP()] * 8, proto=4)
    else:
        outer = IPv6(src=peer(6, 12), dst=SIDES[6].snat) / IPv6ExtHdrDestOpt(nh=41)
    arrived = bytes(ether(PEER_MAC, MACS["out0"]) / outer / Raw(bytes(inner)))
    assert rig.run(arrived, "out0").frame.hex() == handed_on(version, frame, peer(version, 12)).hex()


# --- what is not taken ---


@EACH
def test_a_tunnel_of_a_stranger(rig, version, protocol):
    rig.run(request(version, protocol))
    frame = error_about_reply(version, protocol, port=WEB)
    for source in (peer(version, 99), SIDES[version].client, SIDES[version].own):
        passes(rig, arriving(version, frame, source))


@BOTH
def test_a_tunnel_to_another_address(rig, version):
    frame = oracle.in_ip(error_about_reply(version, "tcp", port=WEB), peer(version, 12), SIDES[version].own)
    passes(rig, frame)


def not_errors(rig, version):
    """Frames that have no business in such a tunnel, by name."""
    side, at = SIDES[version], At(rig, version, "icmp")
    whole = error_about_reply(version, "tcp", port=WEB)
    header = {4: 20, 6: 40}[version]
    late = bytes([whole[14] & 0x0F | {4: 0x60, 6: 0x40}[version]])
    quote = quoted(version, "tcp", (side.vip, WEB), (side.client, 20000))
    large = whole[:14] + bytes(ip(version, router(version), side.vip) / l4("udp", 53, WEB) / Raw(b"x" * 600))
    first, *_, last = oracle.fragments(large, 256)
    return {
        "request": request(version),
        "datagram": request(version, "udp"),
        "echo_request": echo(at),
        "not_to_a_vip": error(version, router(version), side.own, "too_big", quote),
        "version_of_the_other_family": whole[:14] + late + whole[15:],
        "no_icmp_header": whole[: 14 + header + 7],
        "nothing": whole[:14],
        "first_fragment": first,
        "last_fragment": last,
        "tunnel_in_tunnel": oracle.in_ip(whole, peer(version, 12), side.snat),
    }


@BOTH
def test_what_is_no_error_about_a_service(rig, version):
    side = SIDES[version]
    for name, frame in not_errors(rig, version).items():
        payload = frame[14:]
        outer = ip(version, peer(version, 12), side.snat, **({"proto": 4} if version == 4 else {"nh": 41}))
        arrived = bytes(ether(PEER_MAC, MACS["out0"]) / outer / Raw(payload))
        result = rig.run(arrived, "out0")
        assert (name, result.outcome, result.frame.hex()) == (name, "protocol_passed", arrived.hex())


@BOTH
def test_packet_inside_that_is_cut_off(rig, version):
    """Its header announces more than the tunnel has; what is behind that in the frame is padding."""
    rig.run(request(version))
    frame = error_about_reply(version, "tcp", port=WEB)
    side = SIDES[version]
    for missing in (1, 40):
        outer = ip(version, peer(version, 12), side.snat, **({"proto": 4} if version == 4 else {"nh": 41}))
        arrived = bytes(ether(PEER_MAC, MACS["out0"]) / outer / Raw(frame[14:-missing]))
        passes(rig, arrived)
        passes(rig, arrived + frame[-missing:])


@BOTH
def test_packet_of_the_other_family_inside(rig, version):
    """Each family has its ring."""
    other = OTHER[version]
    frame = oracle.in_ip(error_about_reply(other, "tcp", port=WEB), peer(version, 12), SIDES[version].snat)
    passes(rig, frame)


@BOTH
def test_tunnel_in_fragments(rig, version):
    frame = arriving(version, error_about_reply(version, "tcp", port=WEB), peer(version, 12))
    first, *_, last = oracle.fragments(frame, 128)
    passes(rig, first)
    passes(rig, last, "fragment_passed")


@BOTH
def test_quote_that_is_cut_off(rig, version):
    """An error, so the tunnel is off, but of nobody."""
    header = {4: 20, 6: 40}[version]
    whole = quoted(version, "tcp", (SIDES[version].vip, WEB), (SIDES[version].client, 20000))
    frame = error(version, router(version), SIDES[version].vip, "too_big", whole[: header + 3])
    arrived = arriving(version, frame, peer(version, 12))
    passes(rig, arrived, "icmp_passed", unwrapped(version, arrived))


# --- load balancers that cannot be reached ---


@BOTH
@pytest.mark.parametrize("lost", range(1, 4))
def test_skips_who_cannot_be_reached(rig, version, lost):
    hosts = [*LOST[:lost], 11]
    rig.put_peers(version, SIDES[version].snat, *(peer(version, host) for host in hosts))
    frame = error_about_reply(version, "tcp", port=WEB)
    assert rig.run(frame).frame.hex() == handed_on(version, frame, SIDES[version].snat).hex()


@BOTH
def test_gives_up(rig, version):
    """After four of them, or at the end of the ring."""
    frame = error_about_reply(version, "tcp", port=WEB)
    for hosts in ((*LOST, 11), LOST[:1]):
        rig.put_peers(version, SIDES[version].snat, *(peer(version, host) for host in hosts))
        assert rig.run(frame).outcome == "no_neighbour_dropped"


@BOTH
def test_never_hands_it_to_its_origin(rig, version):
    """Who is behind the origin has had it."""
    rig.put_peers(version, SIDES[version].snat, *(peer(version, host) for host in (2, 11, 12)))
    frame = error_about_reply(version, "tcp", port=WEB)
    assert rig.run(arriving(version, frame, peer(version, 11)), "out0").outcome == "no_neighbour_dropped"


@BOTH
def test_load_balancer_without_a_route(rig, version):
    side = SIDES[version]
    for address in side.refused.values():
        rig.put_peers(version, side.snat, address)
        assert rig.run(error_about_reply(version, "tcp", port=WEB)).outcome == "no_route_dropped"


@BOTH
def test_error_that_does_not_fit(rig, version):
    """No error about an error."""
    side = SIDES[version]
    rig.put_peers(version, side.snat, side.small.format(1))
    most = SMALL_MTU - {4: 20, 6: 40}[version]
    quote = quoted(version, "udp", (side.vip, WEB), (side.client, 20000)) + bytes(SMALL_MTU)
    head = len(error(version, router(version), side.vip, "too_big", b"")) - 14
    assert rig.run(error(version, router(version), side.vip, "too_big", quote[: most - head])).verdict == "redirect"
    result = rig.run(error(version, router(version), side.vip, "too_big", quote[: most - head + 1]))
    assert result.outcome == "too_big_dropped"


# --- limits ---


@BOTH
def test_a_second_has_its_share(rig, version):
    """Whoever it came to first, and apart from answers."""
    here = error_about_reply(version, "tcp", port=WEB), "in0"
    between = arriving(version, here[0], peer(version, 12)), "out0"
    for frame, device in (here, between):
        # The second may end meanwhile.
        found = []
        while "answer_limited_dropped" not in found[-1:] and len(found) < 10:
            use_budget_up(rig)
            found.append(rig.run(frame, device).outcome)
        assert found[-1] == "answer_limited_dropped"
        assert rig.run(request(version, ttl=1)).outcome == "ttl_expired_answered"
        forget_budget(rig)
        assert rig.run(frame, device).outcome == "icmp_error_relayed"


@BOTH
def test_what_is_not_handed_on_costs_nothing(rig, version):
    rig.put_peers(version, SIDES[version].snat)
    rig.run(error_about_reply(version, "tcp", port=WEB))
    assert not any(any(value) for _, value in rig.entries(BUDGET))


def test_rings_are_in_the_order_of_addresses(rig):
    """So that no error goes around twice, and the same in every program."""
    found = dict(rig.entries(layouts.PEERS))
    for version, side in SIDES.items():
        members = [side.snat, peer(version, 11), peer(version, 12)]
        for one, following in zip(members, [*members[1:], members[0]]):
            packed = [layouts.pack_address(ipaddress.ip_address(each)) for each in (one, following)]
            assert found[packed[0]] == packed[1]
    assert len(found) == 3 * len(SIDES)

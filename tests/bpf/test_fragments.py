"""Fragments: all of a datagram reach the same backend (and replies the client), whole as if it had not been split."""

import itertools

import pytest
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bpf import oracle
from bpf.rig import (
    AT_EVERY_HOOK,
    BACKEND_MACS,
    CLIENT_MAC,
    DSR,
    FRAGMENTS,
    MACS,
    PROTOCOLS,
    SIDES,
    WEB,
    ether,
    ip,
    l4,
    reply,
    request,
)
from bpf.test_dsr import DISPATCHES, configure, host_of, on_link
from datapath.compile import layouts

pytestmark = AT_EVERY_HOOK

EACH = pytest.mark.parametrize(("version", "protocol"), list(itertools.product((4, 6), PROTOCOLS)))
BOTH = pytest.mark.parametrize("version", [4, 6])
DATA = bytes(range(256)) * 3
SIZE = 256
"""Of a fragment's payload."""


def whole(version, protocol, port, **fields):
    fields = {"flags": "PA", "payload": DATA, **fields}
    return request(version, protocol, port=port, **fields)


def split(frame, number=0x1234):
    return oracle.fragments(frame, SIZE, number)


# --- through this node ---


@EACH
def test_requests(rig, version, protocol):
    frame = whole(version, protocol, WEB)
    host = host_of(version, protocol, port=WEB)
    translated = oracle.translated(
        frame,
        source=(SIDES[version].snat, 20000),
        destination=on_link(version, host),
        mac=(MACS["out0"], BACKEND_MACS[host]),
    )
    outcomes = ["request_new_flow"] + 3 * ["request_forwarded"]
    for fragment, wanted, outcome in zip(split(frame), split(translated), outcomes):
        result = rig.run(fragment)
        assert result.outcome == outcome
        assert result.frame.hex() == wanted.hex()
    assert len(rig.entries(FRAGMENTS)) == 1
    assert len(rig.flows()[0]) == 1


@EACH
def test_replies(rig, version, protocol):
    opened = rig.run(request(version, protocol))
    answer = reply(version, opened, protocol, payload=DATA, flags="PA")
    ends = {"source": (SIDES[version].vip, WEB), "destination": (SIDES[version].client, 20000)}
    translated = oracle.translated(answer, **ends, mac=(MACS["in0"], CLIENT_MAC))
    for fragment, wanted in zip(split(answer), split(translated)):
        result = rig.run(fragment, "out0")
        assert result.outcome == "reply_forwarded"
        assert result.frame.hex() == wanted.hex()


@EACH
def test_two_datagrams_at_once(rig, version, protocol):
    """Told apart by their ids alone."""
    frames = [whole(version, protocol, WEB, sport=sport) for sport in (20000, 20001)]
    hosts = [host_of(version, protocol, port=WEB, sport=sport) for sport in (20000, 20001)]
    for fragments in zip(split(frames[0], 1), split(frames[1], 2)):
        for fragment, host in zip(fragments, hosts):
            assert Ether(rig.run(fragment).frame).dst == BACKEND_MACS[host]


@EACH
def test_id_that_is_used_again(rig, version, protocol):
    """The newer datagram's first fragment counts."""
    seen = set()
    for sport in range(20000, 20010):
        host = host_of(version, protocol, port=WEB, sport=sport)
        for fragment in split(whole(version, protocol, WEB, sport=sport)):
            assert Ether(rig.run(fragment).frame).dst == BACKEND_MACS[host]
        seen.add(host)
    assert seen == {11, 12}
    assert len(rig.entries(FRAGMENTS)) == 1


# --- direct server return ---


@EACH
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_direct_server_return(rig, version, protocol, dispatch):
    configure(rig, dispatch)
    frame = whole(version, protocol, DSR)
    host = host_of(version, protocol)
    inner = frame if dispatch == "ipip" else oracle.translated(frame, destination=on_link(version, host), hops=0)
    backend, frontend, source = SIDES[version].backend.format(host), (SIDES[version].vip, DSR), SIDES[version].snat
    told = frontend if protocol == "udp" else None
    for fragment, part in zip(split(frame), split(inner)):
        result = rig.run(fragment)
        assert result.outcome == "request_forwarded"
        wanted = hop(part, (MACS["out0"], BACKEND_MACS[host]))
        # Every one of a datagram like the others.
        if dispatch == "ipip":
            wanted = oracle.in_ip(wanted, source, backend)
        elif dispatch == "geneve":
            wanted = oracle.in_geneve(wanted, source, backend, oracle.flow_hash(frame), told)
        elif told:
            wanted = oracle.with_option(wanted, frontend)
        assert result.frame.hex() == wanted.hex()
    assert rig.records() == {FRAGMENTS: 1}


def hop(fragment, mac):
    """A fragment after a router; no transport checksum is touched."""
    packet = Ether(fragment)
    packet.src, packet.dst = mac
    frame = bytearray(bytes(packet)[:12] + fragment[12:])
    if frame[14] >> 4 == 6:
        frame[21] -= 1
        return bytes(frame)
    frame[22] -= 1
    frame[24:26] = b"\0\0"
    end = 14 + (frame[14] & 15) * 4
    return bytes(frame[:14]) + oracle.internet_checksum(bytes(frame[14:end])) + bytes(frame[end:])


@EACH
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_in_a_slot_that_moved(rig, version, protocol, dispatch):
    """Following fragments go where the first one of their flow goes."""
    configure(rig, dispatch)
    key = (version, DSR, PROTOCOLS[protocol])
    rig.put_table(key, (11,), keep_history=False)
    rig.put_table(key, (12,))
    for fragment in split(whole(version, protocol, DSR)):
        assert Ether(rig.run(fragment).frame).dst == BACKEND_MACS[11]
    opening = {"flags": "S", "sport": 20001}
    if protocol == "tcp":
        for fragment in split(whole(version, protocol, DSR, **opening)):
            assert Ether(rig.run(fragment).frame).dst == BACKEND_MACS[12]


# --- that nothing is known of ---


@EACH
@pytest.mark.parametrize("wildcard", [0, 1])
@pytest.mark.parametrize("mode", [layouts.MODE_SNAT, layouts.MODE_DSR])
def test_without_the_first(rig, version, protocol, wildcard, mode):
    rig.configure(wildcard_entries=wildcard, forwarding_modes=mode, dsr_dispatch=1)
    for fragment in split(whole(version, protocol, WEB))[1:]:
        assert rig.run(fragment).outcome == "fragment_unknown_dropped"
    assert rig.records() == {}


@EACH
def test_to_others(rig, version, protocol):
    """Neither VIP nor a flow of this node: the stack's, and nothing is remembered."""
    frame = oracle.translated(whole(version, protocol, WEB), destination=(SIDES[version].own, 22), hops=0)
    for number, fragment in enumerate(split(frame)):
        result = rig.run(fragment)
        assert (result.outcome, result.frame) == ("fragment_passed" if number else "no_service_passed", fragment)
    assert rig.records() == {}


@EACH
def test_of_another_sender(rig, version, protocol):
    first, *_ = split(whole(version, protocol, WEB))
    _, second, *_ = split(whole(version, protocol, WEB, source=SIDES[version].far_client))
    rig.run(first)
    assert rig.run(second).outcome == "fragment_unknown_dropped"


@BOTH
def test_of_another_protocol(rig, version):
    first, *_ = split(whole(version, "udp", WEB))
    _, second, *_ = split(whole(version, "tcp", WEB))
    rig.run(first)
    assert rig.run(second).outcome == "fragment_unknown_dropped"


@EACH
def test_to_a_closed_port(rig, version, protocol):
    first, second, *_ = split(whole(version, protocol, 9999))
    assert rig.run(first).outcome == "unknown_port_dropped"
    assert rig.run(second).outcome == "fragment_unknown_dropped"
    assert rig.records() == {}


@EACH
def test_first_that_is_too_short_for_its_header(rig, version, protocol):
    """Of a transport header the ports alone are not enough (RFC 1858): nothing can be hidden in a second fragment."""
    first, second, *_ = oracle.fragments(whole(version, protocol, WEB), 8)
    if protocol == "tcp":
        assert rig.run(first).outcome == "malformed_transport_dropped"
        assert rig.run(second).outcome == "fragment_unknown_dropped"
    else:
        assert rig.run(first).outcome == "request_new_flow"
        assert rig.run(second).outcome == "request_forwarded"


@BOTH
def test_expired(rig, version):
    """No error about a fragment that is not the first (RFC 1122, 3.2.2); one about the first is due."""
    first, second, *_ = split(whole(version, "udp", WEB, ttl=1))
    assert rig.run(first).outcome == "ttl_expired_answered"
    assert rig.run(second).outcome != "ttl_expired_answered"


@BOTH
def test_many_datagrams_do_not_outgrow_the_map(rig, version):
    size = 8192
    for number in range(size + 2000):
        rig.push(split(whole(version, "udp", WEB, payload=b"x" * 300, sport=20000 + number % 10), number)[0])
    assert 0 < len(rig.entries(FRAGMENTS)) <= size


def test_atomic_fragment(rig):
    """A fragment header on a packet that is whole (RFC 6946): forwarded, and nothing is remembered."""
    head = ether() / ip(6, SIDES[6].client, SIDES[6].vip)
    frame = bytes(head / IPv6ExtHdrFragment(id=7) / l4("udp", 20000, WEB) / Raw(DATA))
    assert rig.run(frame).outcome == "request_new_flow"
    assert FRAGMENTS not in rig.records()


# --- extension headers ---

ROUTING = IPv6ExtHdrRouting(addresses=[], segleft=0)
CHAINS = {
    "hop_by_hop": [IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)])],
    "routing": [ROUTING],
    "destination": [IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])],
    "hop_by_hop_and_routing": [IPv6ExtHdrHopByHop(), ROUTING],
    "four": [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), ROUTING, IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 60)])],
}


def chained(headers, protocol="tcp", port=WEB, destination=None, **fields):
    packet = ether() / ip(6, SIDES[6].client, destination or SIDES[6].vip)
    for header in headers:
        packet = packet / header.copy()
    return bytes(packet / l4(protocol, 20000, port, **({"flags": "S"} if protocol == "tcp" else {})) / Raw(b"GET"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chain", CHAINS)
def test_extension_headers(rig, chain, protocol):
    frame = chained(CHAINS[chain], protocol)
    host = host_of(6, protocol, port=WEB)
    ends = {"source": (SIDES[6].snat, 20000), "destination": on_link(6, host)}
    result = rig.run(frame)
    assert result.outcome == "request_new_flow"
    assert result.frame.hex() == oracle.translated(frame, **ends, mac=(MACS["out0"], BACKEND_MACS[host])).hex()


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chain", CHAINS)
def test_extension_headers_and_direct_server_return(rig, chain, protocol, dispatch):
    configure(rig, dispatch)
    frame = chained(CHAINS[chain], protocol, DSR)
    if dispatch == "opt" and frame[20] == 0:
        # Nothing may come before hop-by-hop options (RFC 8200, 4.1), and the program puts its own first.
        assert rig.run(frame).outcome == "no_room_dropped"
        return
    host = host_of(6, protocol)
    mac = MACS["out0"], BACKEND_MACS[host]
    wanted = oracle.dispatched(frame, dispatch, (SIDES[6].vip, DSR), on_link(6, host), mac=mac, source=SIDES[6].snat)
    result = rig.run(frame)
    assert result.frame.hex() == wanted.hex()


def test_more_extension_headers_than_are_walked(rig):
    chain = [IPv6ExtHdrHopByHop(), *[IPv6ExtHdrDestOpt()] * 4]
    assert rig.run(chained(chain)).outcome == "unknown_protocol_dropped"
    passed = chained(chain, destination=SIDES[6].own)
    result = rig.run(passed)
    assert (result.outcome, result.frame) == ("extension_header_passed", passed)
    rig.configure(wildcard_entries=0)
    assert rig.run(chained(chain)).outcome == "extension_header_passed"


@pytest.mark.parametrize("wildcard", [0, 1])
@pytest.mark.parametrize(
    ("version", "number"), [(4, 50), (4, 51), (4, 132), (4, 47), (6, 50), (6, 51), (6, 132), (6, 59)]
)
@pytest.mark.parametrize("to_vip", [False, True])
def test_unknown_protocols(rig, version, number, wildcard, to_vip):
    """IPsec, SCTP, GRE, no next header: no service has them."""
    rig.configure(wildcard_entries=wildcard)
    side = SIDES[version]
    fields = {"proto" if version == 4 else "nh": number}
    frame = bytes(ether() / ip(version, side.client, side.vip if to_vip else side.own, **fields) / Raw(b"x" * 32))
    result = rig.run(frame)
    assert result.outcome == ("unknown_protocol_dropped" if to_vip and wildcard else "protocol_passed")
    if result.verdict == "pass":
        assert result.frame == frame


def test_extension_header_that_ends_behind_the_packet(rig):
    frame = bytearray(chained([IPv6ExtHdrDestOpt()]))
    frame[55] = 200
    assert rig.run(bytes(frame)).verdict == "drop"

"""Direct server return: what leaves for the backend, byte for byte, by dispatch, family, protocol and hook."""

import itertools

import pytest
from scapy.layers.inet import IPOption_NOP

from bpf import oracle
from bpf.frames import PADDING, At
from bpf.rig import (
    AT_EVERY_HOOK,
    BACKEND_MACS,
    DSR,
    DSR_CROSSED,
    DSR_CROSSED_TIGHT,
    DSR_EMPTY,
    DSR_LOST,
    DSR_TIGHT,
    DSR_UNREACHABLE,
    EMPTY,
    MACS,
    OTHER,
    PROTOCOLS,
    SIDES,
    TABLE_SIZE,
    TIGHT_MTU,
    WEB,
    reply,
    request,
)
from datapath.compile import layouts
from netns.topology import kernel_at_least

pytestmark = AT_EVERY_HOOK

DISPATCHES = {"opt": 1, "ipip": 2, "geneve": 3}

KINDS = {
    "syn": ("tcp", {"flags": "S"}),
    "syn_with_data": ("tcp", {"flags": "S", "payload": b"x" * 101}),
    "syn_ecn": ("tcp", {"flags": "SEC", "payload": b""}),
    "syn_with_push": ("tcp", {"flags": "SP"}),
    "ack": ("tcp", {"flags": "A", "payload": b""}),
    "data": ("tcp", {"flags": "PA"}),
    "fin": ("tcp", {"flags": "FA", "payload": b""}),
    "reset": ("tcp", {"flags": "R", "payload": b""}),
    "syn_ack": ("tcp", {"flags": "SA"}),
    "udp": ("udp", {}),
    "udp_empty": ("udp", {"payload": b""}),
    "udp_long": ("udp", {"payload": b"x" * 1301}),
    "ttl_2": ("tcp", {"ttl": 2}),
    "don't_fragment": ("udp", {"dont_fragment": True}),
}
OPENS = ("syn", "syn_with_data", "syn_ecn", "syn_with_push", "ttl_2")

EVERYWHERE = pytest.mark.parametrize(("dispatch", "version"), list(itertools.product(DISPATCHES, (4, 6))))


def configure(rig, dispatch, **more):
    rig.configure(forwarding_modes=layouts.MODE_DSR, dsr_dispatch=DISPATCHES[dispatch], **more)


def slot_of(version, protocol, port=DSR, sport=20000, source=None):
    return oracle.slot_hash(source or SIDES[version].client, sport, port, PROTOCOLS[protocol]) % TABLE_SIZE


def host_of(version, protocol, **more):
    """The backend in the slot by the oracle; rig.py's tables repeat the backends slot by slot."""
    return 11 + slot_of(version, protocol, **more) % 2


def expected(frame, dispatch, version, backend, *, port=DSR, host=None, outer=None, **more):
    """`frame` on its way to `backend`, behind `host` on out0's link."""
    host = host or int(backend[0].split(backend[0][4])[-1].split(".")[-1].lstrip(":"))
    source = SIDES[outer or version].snat
    mac = MACS["out0"], BACKEND_MACS[host]
    return oracle.dispatched(frame, dispatch, (SIDES[version].vip, port), backend, mac=mac, source=source, **more)


def on_link(version, host):
    return SIDES[version].backend.format(host), 8080


@EVERYWHERE
@pytest.mark.parametrize("kind", KINDS)
def test_to_the_backend_of_its_slot(rig, dispatch, version, kind):
    configure(rig, dispatch)
    protocol, fields = KINDS[kind]
    frame = request(version, protocol, port=DSR, **fields)
    host = host_of(version, protocol)
    key = (version, DSR, PROTOCOLS[protocol])
    before = counted(rig, key, host)
    result = rig.run(frame)
    assert result.outcome == ("request_new_flow" if kind in OPENS else "request_forwarded")
    assert result.frame.hex() == expected(frame, dispatch, version, on_link(version, host), host=host).hex()
    # Nothing is remembered, and both are counted as they came.
    assert rig.records() == {}
    assert [after - count for after, count in zip(counted(rig, key, host), before)] == [1, len(frame)] * 2


def counted(rig, key, host):
    """[packets, bytes] of the service and of its backend."""
    service = rig.kernel.counters(layouts.SERVICE_STATS).get(rig.lut_id(key), (0, 0))
    backend = rig.kernel.counters(layouts.BACKEND_STATS).get(rig.backend_id(key, host), (0, 0))
    return [*service, *backend]


@EVERYWHERE
def test_every_slot_has_its_backend(rig, dispatch, version):
    """The slot is the hash's, so that every load balancer of a cluster chooses alike."""
    configure(rig, dispatch)
    for sport in range(20000, 20040):
        host = host_of(version, "tcp", sport=sport)
        frame = request(version, port=DSR, sport=sport)
        assert rig.run(frame).frame == expected(frame, dispatch, version, on_link(version, host), host=host)


@EVERYWHERE
def test_padding_stays_behind_the_packet(rig, dispatch, version):
    configure(rig, dispatch)
    frame = request(version, "udp", port=DSR, payload=b"")
    host = host_of(version, "udp")
    result = rig.run(frame + PADDING)
    assert result.frame == expected(frame, dispatch, version, on_link(version, host), host=host) + PADDING


@EVERYWHERE
@pytest.mark.parametrize("port", [DSR_EMPTY, DSR_LOST, DSR_UNREACHABLE])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_to_send_to(rig, dispatch, version, protocol, port):
    configure(rig, dispatch)
    frame = request(version, protocol, port=port)
    result = rig.run(frame)
    outcomes = {
        DSR_EMPTY: "no_backend_answered",
        DSR_LOST: "no_neighbour_dropped",
        DSR_UNREACHABLE: "no_route_dropped",
    }
    assert result.outcome == outcomes[port]
    if port == DSR_EMPTY:
        assert result.frame.hex() == oracle.icmp_error(frame, "unreachable").hex()
    assert rig.records() == {}


@EVERYWHERE
def test_used_up_ttl_is_answered(rig, dispatch, version):
    configure(rig, dispatch)
    frame = request(version, port=DSR, ttl=1)
    result = rig.run(frame)
    assert (result.outcome, result.frame) == ("ttl_expired_answered", oracle.icmp_error(frame, "expired"))


@EVERYWHERE
def test_closed_port(rig, dispatch, version):
    configure(rig, dispatch)
    assert rig.run(request(version, port=9999)).outcome == "unknown_port_dropped"


@EVERYWHERE
def test_backends_that_answer_are_passed(rig, dispatch, version):
    """Replies do not come by here; one that does is not this node's."""
    configure(rig, dispatch)
    frame = oracle.translated(request(version, flags="SA"), destination=(SIDES[version].far_client, 20000))
    assert rig.run(frame).outcome == "no_service_passed"


# --- headers that are there already ---


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("options", [4, 32, 36, 40])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ip_options(rig, dispatch, options, protocol):
    """Behind ours, as far as the header has room for both (60 bytes)."""
    configure(rig, dispatch)
    frame = request(4, protocol, port=DSR, options=[IPOption_NOP()] * options)
    host = host_of(4, protocol)
    result = rig.run(frame)
    if dispatch == "opt" and options > 32:
        assert result.outcome == "no_room_dropped"
        return
    assert result.frame.hex() == expected(frame, dispatch, 4, on_link(4, host), host=host).hex()


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_without_udp_checksum(rig, dispatch):
    configure(rig, dispatch)
    at = At(rig, 4, "udp")
    frame = oracle.fresh(oracle.Ether(at.request(port=DSR)))
    frame = frame[:40] + b"\0\0" + frame[42:]
    host = host_of(4, "udp")
    assert rig.run(frame).frame.hex() == expected(frame, dispatch, 4, on_link(4, host), host=host).hex()


@EVERYWHERE
@pytest.mark.parametrize("traffic_class", [1, 2, 3, 0x2E << 2, 0xFF])
def test_traffic_class_is_carried_outside(rig, dispatch, version, traffic_class):
    """Or routers on the way could neither prefer the packet nor mark it congested."""
    configure(rig, dispatch)
    frame = request(version, port=DSR, **{{4: "tos", 6: "tc"}[version]: traffic_class})
    host = host_of(version, "tcp")
    result = rig.run(frame)
    assert result.frame.hex() == expected(frame, dispatch, version, on_link(version, host), host=host).hex()
    assert oracle.traffic_class(result.frame[14:]) == traffic_class


# --- between families ---


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_tunnel_between_families(rig, version, kind):
    configure(rig, "ipip")
    protocol, fields = KINDS[kind]
    frame = request(version, protocol, port=DSR_CROSSED, **fields)
    host = host_of(version, protocol, port=DSR_CROSSED)
    outer = OTHER[version]
    result = rig.run(frame)
    wanted = expected(frame, "ipip", version, on_link(outer, host), host=host, outer=outer, port=DSR_CROSSED)
    assert result.frame.hex() == wanted.hex()
    assert rig.records() == {}


# --- outer source ---


@pytest.mark.parametrize("version", [4, 6])
def test_outer_source_spreads_flows(rig, version):
    """Within the CIDR, another one for every flow but one for all of a flow: the receiver's queues are chosen by it."""
    base = {4: "10.9.0.0", 6: "fd09::"}
    configure(rig, "ipip", encap=base, encap_mask4=0x0000FFFF, encap_mask6=0x0000FFFF)
    at, size = {4: (26, 4), 6: (22, 16)}[version]
    sources = {}
    for sport in range(20000, 20064):
        for flags in ("S", "PA"):
            output = rig.run(request(version, port=DSR, sport=sport, flags=flags)).frame
            assert oracle.network_valid(output)
            sources.setdefault(sport, set()).add(output[at : at + size])
    assert all(len(each) == 1 for each in sources.values())
    seen = {source for each in sources.values() for source in each}
    assert {source[:-2] for source in seen} == {oracle.packed(base[version])[:-2]}
    assert len(seen) > 60
    # Both bytes vary.
    assert len({source[-1] for source in seen}) > 20
    assert len({source[-2] for source in seen}) > 40


# --- packets that are too big for the way ---

WAYS = [("opt", 4, 4), ("opt", 6, 6), ("ipip", 4, 4), ("ipip", 6, 6), ("ipip", 4, 6), ("ipip", 6, 4)]
WAYS += [("geneve", 4, 4), ("geneve", 6, 6)]
"""Dispatch, family of the packet, family of what leaves."""


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
@pytest.mark.parametrize(("protocol", "flags"), [("tcp", "S"), ("tcp", "A"), ("udp", "")])
def test_mtu(rig, way, protocol, flags):
    """As large as fits goes; a byte more is answered with what fits, quoting what the client sent."""
    dispatch, version, outer = way
    configure(rig, dispatch)
    port = DSR_TIGHT if outer == version else DSR_CROSSED_TIGHT
    told = protocol == "udp" or flags == "S"
    fits = TIGHT_MTU - oracle.overhead(dispatch, version, outer, told)
    headers = {4: 20, 6: 40}[version] + {"tcp": 20, "udp": 8}[protocol]
    fields = {"port": port, "flags": flags, "dont_fragment": True}
    frame = request(version, protocol, payload=b"x" * (fits - headers), **fields)
    result = rig.run(frame)
    backend = SIDES[outer].tight.format(1), 8080
    wanted = expected(frame, dispatch, version, backend, host=11, outer=outer, port=port)
    assert oracle.ip_length(result.frame) == TIGHT_MTU
    assert result.frame.hex() == wanted.hex()
    large = request(version, protocol, payload=b"x" * (fits - headers + 1), **fields)
    result = rig.run(large)
    assert result.outcome == "too_big_answered"
    if not kernel_at_least(5, 12):
        # Such a kernel does not say what fits. A host would discard less than 1280 of IPv6 (RFC 8201, 4).
        fits = 1280 if version == 6 else 1280 - oracle.overhead(dispatch, version, outer, told)
    assert result.frame.hex() == oracle.icmp_error(large, "big", fits).hex()


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_mtu_of_packets_that_may_be_fragmented(rig, dispatch):
    configure(rig, dispatch)
    assert rig.run(request(4, "udp", port=DSR_TIGHT, payload=b"x" * 1400)).outcome == "too_big_dropped"


# --- both modes on one node ---


@EVERYWHERE
def test_mode_of_each_frontend(rig, dispatch, version):
    """`hybrid` and services' own modes: one bit of the frontend."""
    rig.configure(forwarding_modes=layouts.MODE_SNAT | layouts.MODE_DSR, dsr_dispatch=DISPATCHES[dispatch])
    frame = request(version, port=DSR)
    host = host_of(version, "tcp")
    assert rig.run(frame).frame == expected(frame, dispatch, version, on_link(version, host), host=host)
    assert rig.records() == {}
    translated = rig.run(request(version, port=WEB))
    assert translated.source == (SIDES[version].snat, 20000)
    assert rig.records() == {layouts.FLOWS_TCP: 2}
    answered = rig.run(reply(version, translated), "out0")
    assert (answered.outcome, answered.source) == ("reply_forwarded", (SIDES[version].vip, WEB))


@EVERYWHERE
def test_hybrid(rig, dispatch, version):
    """One port: TCP by direct server return, UDP through this node."""
    rig.configure(forwarding_modes=layouts.MODE_SNAT | layouts.MODE_DSR, dsr_dispatch=DISPATCHES[dispatch])
    backends = [on_link(version, host) for host in (11, 12)]
    rig.execute(*rig.service((version, WEB, 6), backends, flags=layouts.SERVICE_DSR))
    frame = request(version, port=WEB)
    host = host_of(version, "tcp", port=WEB)
    wanted = expected(frame, dispatch, version, on_link(version, host), host=host, port=WEB)
    assert rig.run(frame).frame == wanted
    assert rig.records() == {}
    assert rig.run(request(version, "udp", port=WEB)).source == (SIDES[version].snat, 20000)
    assert rig.records() == {layouts.FLOWS_ANY: 2}


@pytest.mark.parametrize("version", [4, 6])
def test_empty_service_beside_direct_server_return(rig, version):
    rig.configure(forwarding_modes=layouts.MODE_SNAT | layouts.MODE_DSR, dsr_dispatch=1)
    assert rig.run(request(version, port=EMPTY)).outcome == "no_backend_answered"

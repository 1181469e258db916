"""Frames with VLAN tags at XDP: as without them, but for the tags that they come and leave with.

    clients on VLAN 7 of in0 (or 7 in a provider's 100): device `seven`
    backends on VLAN 9 of out0 (or 9 in a provider's 200): device `nine`

The devices are plain ones that only routes and addresses know: what the kernel's own VLAN devices do is shown in
tests/netns/test_vlan.py, where the kernel has them.
"""

import itertools
import socket
import struct

import pytest

from bpf import oracle
from bpf.rig import (
    BACKEND_MACS,
    CLIENT_MAC,
    DSR,
    EMPTY,
    GATEWAY,
    MACS,
    PROTOCOLS,
    SIDES,
    SMALL,
    SMALL_MTU,
    WEB,
    ether,
    ip,
    l4,
    reply,
    request,
)
from bpf.test_dsr import DISPATCHES, configure, host_of, on_link
from bpf.test_icmp_errors import error_about_reply
from bpf.test_relay import handed_on
from datapath.compile import layouts
from datapath.compile.layouts import Vlan
from datapath.plan import operations as ops
from netns.topology import kernel_at_least

CUSTOMER, PROVIDER = 0x8100, 0x88A8
TAGS = {
    "plain": (),
    "tagged": ((CUSTOMER, 7),),
    "qinq": ((PROVIDER, 100), (CUSTOMER, 7)),
}
OUT_TAGS = {
    "plain": (),
    "tagged": ((CUSTOMER, 9),),
    "qinq": ((PROVIDER, 200), (CUSTOMER, 9)),
}
ROUTERS = {4: "10.0.9.{}", 6: "fd09::{}"}
OWN = {"seven": ("10.0.7.1/24", "fd07::1/64"), "nine": ("10.0.9.1/24", "fd09::1/64")}
MODES = ("snat", *DISPATCHES)
EACH = pytest.mark.parametrize(("version", "protocol"), list(itertools.product((4, 6), PROTOCOLS)))
BOTH = pytest.mark.parametrize("version", [4, 6])


def tagged(frame, tags, priority=0):
    head = b"".join(struct.pack(">HH", protocol, priority << 13 | vlan) for protocol, vlan in tags)
    return frame[:12] + head + frame[12:]


def vlan(device, tags):
    packed = Vlan(device=device)
    for place, (protocol, number) in zip(packed.tags, tags):
        place.protocol, place.control = protocol, number
    return bytes(packed)


@pytest.fixture(scope="module")
def devices(loaded):
    """Name -> index of the devices that stand for VLANs."""
    node, _ = loaded
    for name, mac in (("seven", MACS["in0"]), ("nine", MACS["out0"])):
        node.run(f"ip link add {name} type veth peer name {name}-end")
        for end in (name, f"{name}-end"):
            node.run(f"sysctl -qw net.ipv6.conf.{end}.disable_ipv6={int(end != name)}")
            node.run(f"ip link set {end} up")
        node.run(f"ip link set {name} address {mac}")
        for address in OWN[name]:
            node.run(f"ip address add {address} dev {name}" + (" nodad" if ":" in address else ""))
        for version in SIDES:
            node.run(f"sysctl -qw net.ipv{version}.conf.{name}.forwarding=1")
    for version, side in SIDES.items():
        for host, mac in BACKEND_MACS.items():
            router = ROUTERS[version].format(host)
            node.run(f"ip neighbour add {router} lladdr {mac} dev nine nud permanent")
            node.run(f"ip route add {side.backend.format(host)} via {router} dev nine")
    with node:
        found = {name: socket.if_nametoindex(name) for name in OWN}
    yield found
    for name in OWN:
        node.run(f"ip link del {name}")


@pytest.fixture
def vlans(rig, devices):
    """Has the load balancer serve VLANs: how frames of `seven` come in, and how those of `nine` leave."""
    added = []

    def put(name, key, value):
        rig.kernel.execute([ops.PutEntry(name, key, value)])
        added.append(ops.DeleteEntry(name, key))

    def serve(tags_in, tags_out):
        for name, tags, on in (("seven", tags_in, "in0"), ("nine", tags_out, "out0")):
            index = struct.pack("=I", devices[name])
            put(layouts.VLANS_OUT, index, vlan(rig.devices[on], tags))
            if tags:
                put(layouts.VLANS_IN, vlan(rig.receiving(on), tags), index)

    yield serve
    rig.kernel.execute(added)


def set_up(rig, mode):
    """Port of the VIP."""
    if mode == "snat":
        rig.configure(vlans=1)
        return WEB
    configure(rig, mode, vlans=1)
    return DSR


def expected(frame, mode, version, host, port):
    mac, side = (MACS["out0"], BACKEND_MACS[host]), SIDES[version]
    if mode == "snat":
        return oracle.translated(frame, source=(side.snat, 20000), destination=on_link(version, host), mac=mac)
    return oracle.dispatched(frame, mode, (side.vip, port), on_link(version, host), mac=mac, source=side.snat)


@EACH
@pytest.mark.parametrize("mode", MODES)
def test_request(rig, vlans, mode, version, protocol):
    """From every kind of tags to every other; the priority of a tag is its sender's business."""
    port = set_up(rig, mode)
    host = host_of(version, protocol, port=port)
    first = "request_forwarded" if mode != "snat" and protocol == "udp" else "request_new_flow"
    frame = request(version, protocol, port=port)
    for tags_in, tags_out in itertools.product(TAGS, TAGS):
        vlans(TAGS[tags_in], OUT_TAGS[tags_out])
        result = rig.run(tagged(frame, TAGS[tags_in], priority=5))
        assert result.outcome == first
        wanted = tagged(expected(frame, mode, version, host, port), OUT_TAGS[tags_out])
        assert result.frame.hex() == wanted.hex(), (tags_in, tags_out)
        first = result.outcome if mode != "snat" else "request_forwarded"


@EACH
@pytest.mark.parametrize("tags", TAGS)
def test_reply(rig, vlans, tags, version, protocol):
    """Of SNAT: from a VLAN to a plain network."""
    vlans((), OUT_TAGS[tags])
    rig.configure(vlans=1)
    there = rig.run(request(version, protocol))
    plain = there.frame[:12] + there.frame[12 + 4 * len(OUT_TAGS[tags]) :]
    back = reply(version, type(there)(there.outcome, there.verdict, plain), protocol)
    result = rig.run(tagged(back, OUT_TAGS[tags]), "out0")
    assert result.outcome == "reply_forwarded"
    side = SIDES[version]
    wanted = oracle.translated(
        back, source=(side.vip, WEB), destination=(side.client, 20000), mac=(MACS["in0"], CLIENT_MAC)
    )
    assert result.frame.hex() == wanted.hex()


@BOTH
@pytest.mark.parametrize("tags", ["tagged", "qinq"])
def test_answers_go_back_as_they_came(rig, vlans, tags, version):
    vlans(TAGS[tags], ())
    rig.configure(vlans=1)
    frame = request(version, ttl=1)
    result = rig.run(tagged(frame, TAGS[tags], priority=3))
    assert result.outcome == "ttl_expired_answered"
    assert result.frame.hex() == tagged(oracle.icmp_error(frame, "expired"), TAGS[tags], priority=3).hex()
    frame = request(version, port=EMPTY)
    result = rig.run(tagged(frame, TAGS[tags]))
    assert result.frame.hex() == tagged(oracle.icmp_error(frame, "unreachable"), TAGS[tags]).hex()


@BOTH
@pytest.mark.parametrize("tags", ["tagged", "qinq"])
def test_error_that_load_balancers_hand_on(rig, vlans, tags, version):
    """Gets the tags of its way on; where it ends, and its tunnel is off, it has those that it came with."""
    vlans(TAGS[tags], OUT_TAGS[tags])
    rig.configure(vlans=1, peers=1)
    side = SIDES[version]
    peers = [side.backend.format(host) for host in (11, 12)]
    rig.put_peers(version, side.snat, *peers)
    frame = error_about_reply(version, "tcp", port=WEB)
    result = rig.run(tagged(oracle.in_ip(frame, peers[1], side.snat), TAGS[tags]))
    assert result.outcome == "icmp_error_relayed"
    assert result.frame.hex() == tagged(handed_on(version, frame, peers[1]), OUT_TAGS[tags]).hex()
    result = rig.run(tagged(oracle.in_ip(frame, peers[0], side.snat), TAGS[tags], priority=6))
    assert result.outcome == "icmp_passed"
    assert result.frame.hex() == tagged(frame, TAGS[tags], priority=6).hex()


@BOTH
def test_too_big(rig, vlans, version):
    """Tags are no part of what an MTU is about."""
    vlans(TAGS["tagged"], ())
    rig.configure(vlans=1)
    header = {4: 40, 6: 60}[version]
    fits = request(version, port=SMALL, payload=b"x" * (SMALL_MTU - header), dont_fragment=True)
    assert rig.run(tagged(fits, TAGS["tagged"])).outcome == "request_new_flow"
    frame = request(version, port=SMALL, payload=b"x" * (SMALL_MTU - header + 1), dont_fragment=True, sport=20001)
    result = rig.run(tagged(frame, TAGS["tagged"]))
    told = SMALL_MTU if kernel_at_least(5, 12) else 1280
    assert result.frame.hex() == tagged(oracle.icmp_error(frame, "big", told), TAGS["tagged"]).hex()


@BOTH
@pytest.mark.parametrize("tags", ["tagged", "qinq"])
def test_what_is_not_for_a_service_reaches_the_stack_as_it_came(rig, vlans, tags, version):
    vlans(TAGS[tags], ())
    rig.configure(vlans=1)
    side = SIDES[version]
    for packet in (
        ip(version, side.client, side.own) / l4("tcp", 20000, 22),
        ip(version, side.client, side.own) / b"x",
    ):
        frame = tagged(bytes(ether() / packet), TAGS[tags], priority=6)
        result = rig.run(frame)
        assert result.outcome in ("no_service_passed", "protocol_passed")
        assert result.frame == frame


UNSERVED = {
    "other_vlan": ((CUSTOMER, 8),),
    "other_protocol": ((PROVIDER, 7),),
    "inner_missing": ((PROVIDER, 100),),
    "inner_alone": ((CUSTOMER, 100), (CUSTOMER, 7)),
    "priority_only": ((CUSTOMER, 0),),
    "three": ((PROVIDER, 100), (CUSTOMER, 7), (CUSTOMER, 7)),
}


@BOTH
@pytest.mark.parametrize("kind", UNSERVED)
def test_other_tags_are_left_to_the_stack(rig, vlans, kind, version):
    vlans(TAGS["qinq"], ())
    rig.configure(vlans=1)
    frame = tagged(request(version), UNSERVED[kind], priority=1)
    result = rig.run(frame)
    assert (result.outcome, result.frame) == ("vlan_passed", frame)


@BOTH
@pytest.mark.parametrize("tags", ["tagged", "qinq"])
def test_on_another_device_a_tag_means_something_else(rig, vlans, tags, version):
    vlans(TAGS[tags], ())
    rig.configure(vlans=1)
    assert rig.run(tagged(request(version), TAGS[tags]), "out0").outcome == "vlan_passed"


@pytest.mark.parametrize("size", range(14, 24))
def test_frame_that_ends_in_its_tags(rig, vlans, size):
    vlans(TAGS["qinq"], ())
    rig.configure(vlans=1)
    frame = tagged(request(4), TAGS["qinq"])[:size]
    result = rig.run(frame)
    assert result.outcome in ("vlan_passed", "truncated_dropped")
    if result.outcome == "vlan_passed":
        assert result.frame == frame


@BOTH
def test_routes_are_asked_for_the_vlan(rig, vlans, devices, version):
    """Not for the device below, whose forwarding may be off."""
    vlans(TAGS["tagged"], OUT_TAGS["tagged"])
    rig.configure(vlans=1)
    leaf = f"net.ipv{version}.conf.seven.forwarding"
    rig.node.run(f"sysctl -qw {leaf}=0")
    try:
        assert rig.run(tagged(request(version), TAGS["tagged"])).outcome == "forwarding_disabled_dropped"
    finally:
        rig.node.run(f"sysctl -qw {leaf}=1")
    assert rig.run(tagged(request(version), TAGS["tagged"])).outcome == "request_forwarded"


@BOTH
def test_remembered_next_hops_keep_their_tags(rig, vlans, version):
    vlans(TAGS["tagged"], OUT_TAGS["qinq"])
    rig.forget_nexthops()
    rig.configure(vlans=1, nexthop_age=1_000_000)
    frame = request(version)
    host = host_of(version, "tcp", port=WEB)
    wanted = tagged(expected(frame, "snat", version, host, WEB), OUT_TAGS["qinq"]).hex()
    for _ in range(3):
        assert rig.run(tagged(frame, TAGS["tagged"])).frame.hex() == wanted
    # The same from the plain device is another question.
    assert rig.run(frame).frame.hex() == wanted


@BOTH
def test_without_vlans_nothing_is_looked_for(rig, vlans, version):
    vlans(TAGS["tagged"], OUT_TAGS["tagged"])
    rig.configure()
    frame = tagged(request(version), TAGS["tagged"])
    result = rig.run(frame)
    assert (result.outcome, result.frame) == ("vlan_passed", frame)


@BOTH
@pytest.mark.parametrize("tags", ["tagged", "qinq"])
def test_trace(rig, vlans, trace, tags, version):
    vlans(TAGS[tags], OUT_TAGS[tags])
    rig.configure(vlans=1)
    told = trace(version, device="seven", port=GATEWAY)
    assert told["device"]["name"] == "seven"
    assert told["before"]["vlan"] == [number for _, number in TAGS[tags]]
    assert "vlan" not in told["after"]
    told = trace(version, device="seven", port=WEB)
    assert told["after"]["vlan"] == [number for _, number in OUT_TAGS[tags]]
    assert told["next_hop"]["device"] == "nine"

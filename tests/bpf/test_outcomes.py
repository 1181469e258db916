"""One table: frame in, outcome, frame out; for every outcome, both families and both protocols where they apply."""

import itertools
from dataclasses import dataclass
from typing import Callable, Optional

import pytest
from scapy.layers.inet import IPOption_NOP

from bpf import frames as f
from bpf.frames import At, sends
from bpf.rig import (
    AT_EVERY_HOOK,
    BLACKHOLE,
    DSR,
    EMPTY,
    GATEWAY,
    LOCAL,
    LOST,
    PROHIBIT,
    SMALL,
    UNREACHABLE,
    set_forwarding,
)
from datapath.compile.layouts import MODE_DSR
from datapath.compile.outcomes import OUTCOMES

UNCHANGED = "unchanged"
V4, V6 = (4,), (6,)
ICMP, UDP, ONCE = ("icmp",), ("udp",), ("tcp",)
OPTIONS = [IPOption_NOP()] * 8
LONG = b"x" * 1300
OPTION = {"forwarding_modes": MODE_DSR, "dsr_dispatch": 1}


@dataclass(frozen=True)
class Case:
    name: str
    outcome: str
    frame: Callable[[At], bytes]
    after: object = None
    """Makes the frame expected from (At, frame); UNCHANGED; None where nothing leaves."""
    device: str = "in0"
    config: Optional[dict] = None
    versions: tuple = (4, 6)
    protocols: tuple = ("tcp", "udp")
    meta: int = 0
    """Bytes at the frame's begin that are metadata."""


FORWARDED = (
    Case("syn_to_vip", "request_new_flow", sends(), f.after_snat),
    Case("first_packet_in_midstream", "request_new_flow", sends(flags="PA"), f.after_snat),
    Case("request_with_ip_options", "request_new_flow", sends(options=OPTIONS), f.after_snat, versions=V4),
    Case("without_checksum", "request_new_flow", f.without_checksum, f.after_snat, versions=V4, protocols=UDP),
    Case("request_without_payload", "request_new_flow", sends(payload=b""), f.after_snat),
    Case("request_of_odd_length", "request_new_flow", sends(payload=b"x" * 101), f.after_snat),
    Case("request_with_ttl_2", "request_new_flow", sends(ttl=2), f.after_snat),
    Case("request_with_padding", "request_new_flow", f.padded, f.after_snat_padded),
    Case("backend_behind_gateway", "request_new_flow", sends(port=GATEWAY), f.after_snat_behind_gateway),
    Case("from_below_loopback", "request_new_flow", sends(source="126.255.255.255"), f.after_snat, versions=V4),
    Case("from_above_loopback", "request_new_flow", sends(source="128.0.0.0"), f.after_snat, versions=V4),
    Case("from_below_multicast", "request_new_flow", sends(source="223.255.255.255"), f.after_snat, versions=V4),
    Case("from_above_multicast", "request_new_flow", sends(source="240.0.0.0"), f.after_snat, versions=V4),
    Case("from_below_multicast6", "request_new_flow", sends(source="feff::"), f.after_snat, versions=V6),
    Case("ipv4_alone", "request_new_flow", sends(), f.after_snat, config={"enable_ipv6": 0}, versions=V4),
    Case("ipv6_alone", "request_new_flow", sends(), f.after_snat, config={"enable_ipv4": 0}, versions=V6),
    Case("first_fragment", "request_new_flow", f.fragment, f.after_snat),
    Case("destination_options", "request_new_flow", f.destination_options, f.after_snat, versions=V6),
    Case("icmp_error_about_reply", "icmp_error_forwarded", f.error_about_known_reply, f.after_error, protocols=UDP),
    Case(
        "icmp_error_for_another",
        "icmp_error_relayed",
        f.error_for_another,
        f.after_relay,
        config={"peers": 1},
        protocols=ICMP,
    ),
    Case("known_flow", "request_forwarded", f.known, f.after_snat),
    Case("backend_gone", "request_reselected", f.moved, f.after_move),
    Case("reply", "reply_forwarded", f.replies(), f.after_reply, device="out0"),
    Case(
        "reply_to_client_behind_router",
        "reply_forwarded",
        f.replies(source="far_client"),
        f.after_reply_to_far_client,
        device="out0",
    ),
    Case(
        "reply_to_unresolved_client",
        "reply_passed",
        f.replies(source="lost_client"),
        f.after_reply_for_the_stack,
        device="out0",
    ),
)

ANSWERED = (
    Case("echo_request_to_vip", "echo_answered", f.echo, f.after_echo, protocols=ICMP),
    Case("ttl_1", "ttl_expired_answered", sends(ttl=1), f.after_expiry),
    Case("ttl_0", "ttl_expired_answered", sends(ttl=0), f.after_expiry),
    Case("ttl_1_long", "ttl_expired_answered", sends(ttl=1, payload=LONG), f.after_expiry),
    Case("ttl_1_odd", "ttl_expired_answered", sends(ttl=1, payload=b"x" * 15), f.after_expiry),
    Case("reply_with_ttl_1", "ttl_expired_answered", f.replies(ttl=1), f.after_expiry, device="out0"),
    Case("empty_service", "no_backend_answered", sends(port=EMPTY), f.after_refusal),
    Case(
        "empty_with_ip_options", "no_backend_answered", sends(port=EMPTY, options=OPTIONS), f.after_refusal, versions=V4
    ),
    Case("empty_with_padding", "no_backend_answered", f.padded_to_empty, f.after_refusal_padded),
    Case("too_big", "too_big_answered", sends(port=SMALL, payload=LONG, dont_fragment=True), f.after_too_big),
)

PASSED = (
    Case("multicast_frame", "group_frame_passed", f.to_mac("01005e000001"), UNCHANGED),
    Case("broadcast_frame", "group_frame_passed", f.to_mac("ffffffffffff"), UNCHANGED),
    Case("vlan", "vlan_passed", f.vlan, UNCHANGED),
    Case("provider_vlan", "vlan_passed", f.provider_vlan, UNCHANGED, versions=V4, protocols=ONCE),
    Case("arp", "not_ip_passed", f.arp, UNCHANGED, versions=V4, protocols=ONCE),
    Case("ipv4_off", "family_disabled_passed", sends(), UNCHANGED, config={"enable_ipv4": 0}, versions=V4),
    Case("ipv6_off", "family_disabled_passed", sends(), UNCHANGED, config={"enable_ipv6": 0}, versions=V6),
    Case("fragment_to_node", "fragment_passed", lambda at: f.last_fragment(at, at.side.own), UNCHANGED, protocols=UDP),
    Case(
        "extensions_to_node", "extension_header_passed", lambda at: f.extended(at, at.side.own), UNCHANGED, versions=V6
    ),
    Case("extensions_unguarded", "extension_header_passed", f.extended, UNCHANGED, "in0", {"wildcard_entries": 0}, V6),
    Case("sctp_to_node", "protocol_passed", lambda at: f.sctp(at, at.side.own), UNCHANGED, protocols=ONCE),
    Case("sctp_unguarded", "protocol_passed", f.sctp, UNCHANGED, config={"wildcard_entries": 0}, protocols=ONCE),
    Case("echo_request_to_node", "icmp_passed", lambda at: f.echo(at, at.side.own), UNCHANGED, protocols=ICMP),
    Case("echo_request_with_code", "icmp_passed", lambda at: f.echo(at, code=1), UNCHANGED, protocols=ICMP),
    Case("icmp_error_to_vip", "icmp_passed", f.error_about_reply, UNCHANGED, protocols=ICMP),
    Case("neighbour_solicitation", "icmp_passed", f.neighbour_solicitation, UNCHANGED, versions=V6, protocols=ICMP),
    Case("to_the_node_itself", "no_service_passed", f.to_node(22), UNCHANGED),
    Case("to_the_node_at_a_snat_port", "no_service_passed", f.to_node(20000, "snat"), UNCHANGED),
    Case("unknown_port", "no_service_passed", sends(port=9999), UNCHANGED, config={"wildcard_entries": 0}),
)

DROPPED = (
    Case("shorter_than_announced", "truncated_dropped", f.shortened),
    Case("wrong_version", "malformed_ip_dropped", f.network_bytes(0, b"\x55", 0, b"\x50")),
    Case("short_ip_header", "malformed_ip_dropped", f.network_bytes(0, b"\x44", 0, b"\x40")),
    Case("total_below_header", "malformed_ip_dropped", f.network_bytes(2, b"\0\x13", 0, b"\0")),
    Case("short_transport", "malformed_transport_dropped", f.transport_bytes((12, b"\x40"), (4, b"\0\x07"))),
    Case("long_transport", "malformed_transport_dropped", f.transport_bytes((12, b"\xf0"), (4, b"\0\xff"))),
    Case("short_icmp", "malformed_transport_dropped", f.of_protocol(1, b"\x08\0\0"), versions=V4, protocols=ICMP),
    Case("short_icmp6", "malformed_transport_dropped", f.of_protocol(58, b"\x80\0\0"), versions=V6, protocols=ICMP),
    Case("from_multicast", "invalid_address_dropped", sends(source={4: "224.0.0.1", 6: "ff02::1"})),
    Case("from_loopback", "invalid_address_dropped", sends(source={4: "127.0.0.1", 6: "::1"})),
    Case("from_unspecified", "invalid_address_dropped", sends(source={4: "0.0.0.0", 6: "::"})),
    Case("error_to_multicast", "invalid_address_dropped", sends(ttl=1, source={4: "239.255.255.255", 6: "ff02::1"})),
    Case("echo_to_broadcast", "invalid_address_dropped", f.echo_from("255.255.255.255"), versions=V4, protocols=ICMP),
    Case("echo_to_multicast6", "invalid_address_dropped", f.echo_from("ff02::1"), versions=V6, protocols=ICMP),
    Case("from_mapped_address", "invalid_address_dropped", sends(source="::ffff:198.51.100.2"), versions=V6),
    Case("to_mapped_vip", "invalid_address_dropped", f.to_mapped_vip, versions=V6),
    Case("unknown_port_of_vip", "unknown_port_dropped", sends(port=9999)),
    Case("fragment_without_first", "fragment_unknown_dropped", f.last_fragment, protocols=UDP),
    Case("sctp", "unknown_protocol_dropped", f.sctp, protocols=ONCE),
    Case("extensions", "unknown_protocol_dropped", f.extended, versions=V6),
    Case("no_room_for_option", "no_room_dropped", sends(port=DSR, options=OPTIONS * 5), config=OPTION, versions=V4),
    Case("empty_unanswered", "no_backend_dropped", sends(port=EMPTY), config={"reject_without_backend": 0}),
    Case(
        "ports_used_up", "no_snat_port_dropped", f.out_of_ports, config={"snat_port_min": 20000, "snat_port_max": 20000}
    ),
    Case("backend_not_resolved", "no_neighbour_dropped", sends(port=LOST)),
    Case("backend_unreachable", "no_route_dropped", sends(port=UNREACHABLE)),
    Case("backend_behind_black_hole", "no_route_dropped", sends(port=BLACKHOLE)),
    Case("backend_prohibited", "no_route_dropped", sends(port=PROHIBIT)),
    Case("backend_on_this_node", "unsupported_route_dropped", sends(port=LOCAL)),
    Case("forwarding_off", "forwarding_disabled_dropped", f.forwarding_disabled),
    Case("too_big_to_fragment", "too_big_dropped", sends(port=SMALL, payload=LONG), versions=V4),
    Case("no_headroom", "answer_failed_dropped", f.behind_metadata, meta=212),
    Case("too_many_errors", "answer_limited_dropped", f.limited),
)

CASES = FORWARDED + ANSWERED + PASSED + DROPPED
PLACES = [
    pytest.param(case, version, protocol, id=f"{case.name}-ipv{version}-{protocol}")
    for case in CASES
    for version, protocol in itertools.product(case.versions, case.protocols)
]


@AT_EVERY_HOOK
@pytest.mark.parametrize(("case", "version", "protocol"), PLACES)
def test_outcome(rig, case, version, protocol):
    if case.meta and rig.hook != "xdp":
        pytest.skip("only XDP has metadata in front of a frame")
    rig.configure(**(case.config or {}))
    frame = case.frame(At(rig, version, protocol))
    try:
        result = rig.run(frame, case.device, case.meta)
    finally:
        if case.frame is f.forwarding_disabled:
            set_forwarding(rig.node, True)
    assert result.outcome == case.outcome
    if case.after == UNCHANGED:
        assert result.frame == frame
    elif case.after is not None:
        assert result.frame.hex() == case.after(At(rig, version, protocol), frame).hex()


def test_every_outcome_has_a_case():
    assert {case.outcome for case in CASES} == {outcome.name for outcome in OUTCOMES}

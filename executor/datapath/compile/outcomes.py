"""Every way in which the datapath can finish a packet: the one table behind the C enum, the counters and their texts.

An outcome's place in `OUTCOMES` is its index in map `outcomes_v1`, which survives upgrades of the program:
append, never reorder or reuse. `bpf/include/outcomes.h` is generated from here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """What becomes of the packet."""

    FORWARD = "forward"
    """Sent on to the next hop (XDP_REDIRECT)."""
    ANSWER = "answer"
    """Turned into an answer and sent back where it came from (XDP_REDIRECT)."""
    PASS = "pass"  # noqa: S105 - a verdict
    """Handed to the network stack (XDP_PASS)."""
    DROP = "drop"


@dataclass(frozen=True)
class Outcome:
    """One way to finish a packet."""

    name: str
    """As exported to Prometheus; the C name is `OUTCOME_` and this in capitals."""
    verdict: Verdict
    sentence: str


OUTCOMES: tuple[Outcome, ...] = (
    Outcome("request_forwarded", Verdict.FORWARD, "Packet of a known flow, sent to the flow's backend."),
    Outcome("request_new_flow", Verdict.FORWARD, "First packet of a flow, sent to the backend chosen for it."),
    Outcome(
        "request_reselected",
        Verdict.FORWARD,
        "Packet of a known flow that began anew: its backend is gone or takes no new connections, or its port is lost.",
    ),
    Outcome("reply_forwarded", Verdict.FORWARD, "Reply of a backend, sent to the client with the VIP as source."),
    Outcome("echo_answered", Verdict.ANSWER, "ICMP echo request to a VIP, answered."),
    Outcome(
        "ttl_expired_answered",
        Verdict.ANSWER,
        "TTL or hop limit used up on arrival, answered with ICMP time exceeded.",
    ),
    Outcome(
        "no_backend_answered",
        Verdict.ANSWER,
        "Service without a usable backend, answered with ICMP port unreachable.",
    ),
    Outcome(
        "too_big_answered",
        Verdict.ANSWER,
        "Packet larger than the next hop's MTU, answered with ICMP fragmentation needed or packet too big.",
    ),
    Outcome("group_frame_passed", Verdict.PASS, "Ethernet multicast or broadcast, passed to the stack."),
    Outcome("vlan_passed", Verdict.PASS, "Frame of a VLAN that is not served here, passed to the stack."),
    Outcome("not_ip_passed", Verdict.PASS, "Neither IPv4 nor IPv6, passed to the stack."),
    Outcome("family_disabled_passed", Verdict.PASS, "IP version that is switched off, passed to the stack."),
    Outcome("fragment_passed", Verdict.PASS, "IP fragment, passed to the stack."),
    Outcome("extension_header_passed", Verdict.PASS, "IPv6 packet with extension headers, passed to the stack."),
    Outcome("protocol_passed", Verdict.PASS, "Neither TCP, UDP nor ICMP, passed to the stack."),
    Outcome("icmp_passed", Verdict.PASS, "ICMP other than an echo request to a VIP, passed to the stack."),
    Outcome("no_service_passed", Verdict.PASS, "Destination is no frontend of a service, passed to the stack."),
    Outcome(
        "reply_passed",
        Verdict.PASS,
        "Reply of a backend, translated back and passed to the stack because only the stack can reach its next hop.",
    ),
    Outcome("truncated_dropped", Verdict.DROP, "Frame ends before the packet that its headers announce."),
    Outcome("malformed_ip_dropped", Verdict.DROP, "IP header that contradicts itself."),
    Outcome(
        "malformed_transport_dropped", Verdict.DROP, "TCP, UDP or ICMP header that contradicts the packet's length."
    ),
    Outcome(
        "invalid_address_dropped",
        Verdict.DROP,
        "Source that is no single host's, or an IPv4-mapped IPv6 address on the wire.",
    ),
    Outcome("unknown_port_dropped", Verdict.DROP, "Port of a VIP that belongs to no service."),
    Outcome("no_backend_dropped", Verdict.DROP, "Service without a usable backend, and answers are switched off."),
    Outcome("no_snat_port_dropped", Verdict.DROP, "No free source port towards the chosen backend."),
    Outcome("no_neighbour_dropped", Verdict.DROP, "MAC address of the backend's next hop is not resolved."),
    Outcome("no_route_dropped", Verdict.DROP, "Route is missing, unreachable, prohibited or a black hole."),
    Outcome(
        "unsupported_route_dropped",
        Verdict.DROP,
        "Route to the backend ends on this node or needs an encapsulation that only the stack can do.",
    ),
    Outcome("forwarding_disabled_dropped", Verdict.DROP, "Forwarding is switched off on the receiving device."),
    Outcome("too_big_dropped", Verdict.DROP, "Packet larger than the next hop's MTU that asks for fragmentation."),
    Outcome("answer_failed_dropped", Verdict.DROP, "Frame has no room for the ICMP error that was due."),
    Outcome(
        "answer_limited_dropped",
        Verdict.DROP,
        "ICMP error that was due or to be handed on, left out: this second had its share.",
    ),
    Outcome(
        "icmp_error_forwarded",
        Verdict.FORWARD,
        "ICMP error about a packet of a flow, translated and sent to the flow's other end.",
    ),
    Outcome("fragment_unknown_dropped", Verdict.DROP, "Fragment to a VIP whose datagram's first one was not seen."),
    Outcome(
        "unknown_protocol_dropped", Verdict.DROP, "Packet to a VIP of a transport protocol that no service can have."
    ),
    Outcome("no_room_dropped", Verdict.DROP, "Frame or IP header has no room for what the dispatch adds."),
    Outcome(
        "icmp_error_relayed",
        Verdict.FORWARD,
        "ICMP error about a reply of a flow that is not here, handed to another load balancer.",
    ),
)

NODE_OUTCOMES: tuple[Outcome, ...] = (
    Outcome("option_recorded", Verdict.PASS, "Packet with the option of direct server return: its service is noted."),
    Outcome("geneve_recorded", Verdict.PASS, "Packet in Geneve with the option: unpacked, its service is noted."),
    Outcome("geneve_unpacked", Verdict.PASS, "Packet in Geneve without the option, unpacked."),
    Outcome("ipip_unpacked", Verdict.PASS, "Packet in an IP tunnel, unpacked."),
    Outcome("direct_forgotten", Verdict.PASS, "Connection to the backend itself: what was noted of its ports is gone."),
    Outcome("request_passed", Verdict.PASS, "Other TCP or UDP packet that came in."),
    Outcome("geneve_foreign_passed", Verdict.PASS, "Geneve that is not the load balancer's."),
    Outcome("fragment_passed", Verdict.PASS, "IP fragment that tells nothing."),
    Outcome("other_host_passed", Verdict.PASS, "Frame that is not addressed to this node alone."),
    Outcome("protocol_passed", Verdict.PASS, "Neither IPv4 nor IPv6, an IP version that is switched off, or neither "
            "TCP nor UDP."),
    Outcome("malformed_passed", Verdict.PASS, "Headers that contradict themselves or the frame; the stack's to judge."),
    Outcome("change_failed_dropped", Verdict.DROP, "Packet that could not be unpacked or translated."),
    Outcome("reply_translated", Verdict.PASS, "Reply that leaves with the service's address as source."),
    Outcome("reply_fragment_translated", Verdict.PASS, "Further fragment of such a reply."),
    Outcome("reply_passed", Verdict.PASS, "Packet that leaves as it is."),
    Outcome("reply_error_translated", Verdict.PASS, "ICMP error of the node about a packet to a service."),
)  # fmt: skip
"""The same for the programs of the nodes that backends are on: map `node_outcomes_v1`, `NODE_OUTCOME_` in C."""

BANDWIDTH_OUTCOMES: tuple[Outcome, ...] = (
    Outcome("endpoint_marked", Verdict.PASS, "Packet of an endpoint, marked with its number."),
    Outcome("unknown_device_passed", Verdict.PASS, "Packet on a device that is no endpoint's."),
    Outcome("no_rate_passed", Verdict.PASS, "Packet that no rate is for."),
    Outcome("sent_at_once", Verdict.PASS, "Packet of an endpoint that keeps its rate; it may leave at once."),
    Outcome("departure_set", Verdict.PASS, "Packet of an endpoint that is ahead of its rate; fq lets it go when it is "
            "time."),
    Outcome("horizon_dropped", Verdict.DROP, "Packet that would have to wait until beyond the horizon."),
    Outcome("received", Verdict.PASS, "Packet to an endpoint, within its rate and burst."),
    Outcome("rate_dropped", Verdict.DROP, "Packet to an endpoint, beyond its rate and burst."),
    Outcome("endpoint_routed", Verdict.FORWARD, "Packet of an endpoint, marked and routed out of the node."),
)  # fmt: skip
"""The same for the programs of the bandwidth manager: map `bandwidth_outcomes_v1`, `BANDWIDTH_OUTCOME_` in C."""

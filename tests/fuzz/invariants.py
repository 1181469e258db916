"""What has to hold for every frame, whatever it is. A broken invariant is an AssertionError with a sentence."""

from bpf import oracle

DROP, PASS, REDIRECT = 1, 2, 4
VERDICTS = {"drop": DROP, "pass": PASS, "forward": REDIRECT, "answer": REDIRECT}
CHANGED = {
    PASS: {"reply_passed", "icmp_passed"},
    DROP: {
        "no_room_dropped",
        "answer_failed_dropped",
        "answer_limited_dropped",
        "no_neighbour_dropped",
        "no_route_dropped",
    },
}
"""Outcomes of frames that do not come back as they were: the lack of room is met when they have been translated, and an
error that another load balancer hands on has lost its tunnel before anything else is known of it.
"""
MOST_ADDED = 94
"""Outer IPv6, UDP, Geneve with its option, and Ethernet."""
MOST_ANSWERED = {4: 14 + 576, 6: 14 + 1280}
ETHERTYPES = {b"\x08\x00": 4, b"\x86\xdd": 6}
OPTIONS = (8, 24)
"""Bytes that the dispatch by option adds."""
GENEVE_PORT = b"\x17\xc1"


def check(before, verdict, after):
    """Cheap ones, for every frame."""
    if len(after) < len(before):
        before = inside(before)
    if verdict in (DROP, PASS):
        # Whether it may be changed is told by the counters (CHANGED).
        if verdict == PASS and after != before:
            assert len(after) == len(before), "passed with another length"
            network(before, after, 0)
    else:
        assert verdict == REDIRECT, f"verdict {verdict} of the program"
        assert len(after) <= len(before) + MOST_ADDED, f"{len(after) - len(before)} bytes were added"
        version, start, end = network(before, after, 0)
        if version == 4 and after[23] == 1:
            error = after[start] in (3, 11)
        else:
            error = version == 6 and after[20] == 58 and after[start] in (1, 2, 3)
        if error and after[:12] == before[6:12] + before[:6] and len(after) != len(before):
            assert len(after) <= MOST_ANSWERED[version], f"ICMP error of {len(after)} bytes"
            assert version == 6 or header_right(after, 14), "answer with a wrong header checksum"
            assert end == len(after), "answer whose IP header does not say its length"
        elif len(after) > len(before):
            inner_packet(before, after, version, start, end)


def inside(frame):
    """The packet in an IP tunnel of the same family, behind the frame's Ethernet header; any other frame as it is."""
    version = ETHERTYPES.get(frame[12:14])
    if version == 4 and frame[23] == 4:
        return frame[:14] + frame[14 + (frame[14] & 15) * 4 :]
    if version == 6:
        protocol, data, _ = oracle.transport_of(frame)
        if protocol == 41:
            return frame[:14] + frame[54 + int.from_bytes(frame[18:20], "big") - len(data) :]
    return frame


def network(before, after, at):
    """(version, offset of what follows the fixed header, end of the packet) of the IP packet in the frame at `at`."""
    version = ETHERTYPES.get(after[at + 12 : at + 14])
    assert version, f"Ethernet type {after[at + 12 : at + 14].hex()}"
    return packet(before, after, at + 14, version)


def packet(before, after, at, version):
    assert len(after) >= at + (20 if version == 4 else 40), "no room for an IP header"
    assert after[at] >> 4 == version, f"IP version {after[at] >> 4} where {version} is announced"
    if version == 4:
        start = at + (after[at] & 15) * 4
        end = at + int.from_bytes(after[at + 2 : at + 4], "big")
        assert at + 20 <= start <= end, "IPv4 header longer than the packet"
        # Sums are updated, so that a wrong one stays wrong.
        assert header_right(after, at) or not header_right(before, 14), "wrong header checksum"
    else:
        start = at + 40
        end = start + int.from_bytes(after[at + 4 : at + 6], "big")
    assert end <= len(after), f"IP packet ends at {end} of {len(after)} bytes"
    return version, start, end


def header_right(frame, at):
    """Whether an IPv4 header's checksum is: the sum of 16-bit words is the remainder of the whole number."""
    if frame[at] >> 4 != 4:
        return True
    return not int.from_bytes(frame[at : at + (frame[at] & 15) * 4], "big") % 0xFFFF


def inner_packet(before, after, version, start, end):
    """What a tunnel has in it; other frames that grew have the option, or are answers."""
    protocol = after[23 if version == 4 else 20]
    if protocol in (4, 41):
        assert version == 6 or header_right(after, 14), "wrong checksum of the outer header"
        *_, inner_end = packet(before, after, start, 4 if protocol == 4 else 6)
        assert inner_end <= end, "inner packet longer than the outer one"
    elif protocol == 17 and after[start + 2 : start + 4] == GENEVE_PORT and len(after) >= len(before) + 50:
        assert version == 6 or header_right(after, 14), "wrong checksum of the outer header"
        assert int.from_bytes(after[start + 4 : start + 6], "big") == end - start, "length of UDP"
        header = after[start + 8 : start + 16]
        assert header[0] & 0xC0 == 0, "Geneve version"
        assert header[2:] == b"\x65\x58\0\0\x02\0", f"Geneve header {header.hex()}"
        *_, inner_end = network(before, after, start + 16 + (header[0] & 63) * 4)
        assert inner_end <= end, "inner packet longer than the outer one"


def check_dearly(before, verdict, after):
    """For a sample: checksums over the payload of what gets no tunnel."""
    translated = verdict == REDIRECT or (verdict == PASS and after != before)
    if (
        translated
        and len(after) - len(before) in (0, *OPTIONS)
        and oracle.network_valid(before)
        and not fragmented(before)
    ):
        assert oracle.network_valid(after), "header is no longer right"
        if oracle.transport_of(before)[0] in (1, 6, 17, 58) and oracle.transport_valid(before):
            assert oracle.transport_valid(after), "checksum over the payload is no longer right"


def fragmented(frame):
    if frame[12] == 8:
        return bool(int.from_bytes(frame[20:22], "big") & 0x3FFF)
    return frame[20] in (0, 43, 44, 60)

"""No frame of any length or content crashes the program, leaves it malformed or goes where it must not."""

import ipaddress
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IPOption_NOP

from bpf import oracle
from bpf.frames import At, echo, fragment
from bpf.oracle import fragments
from bpf.rig import AT_EVERY_HOOK, DSR, EMPTY, SIDES, VERDICTS, WEB, backends_of, ether, ip, reply, request
from bpf.test_dsr import DISPATCHES, configure
from bpf.test_fragments import CHAINS, chained
from bpf.test_icmp_errors import error_about_reply

SHORTEST = 14
"""BPF_PROG_TEST_RUN takes no frame that is shorter than an Ethernet header; neither does a driver."""
SHORTEST_AT_TC = 54
"""There it wants all of an IP header too."""


def frames(rig):
    """A frame of every kind, by name."""
    found = {}
    for version in (4, 6):
        for protocol in ("tcp", "udp"):
            at = At(rig, version, protocol)
            found[f"request-{version}-{protocol}"] = (request(version, protocol), "in0")
            answer = reply(version, rig.run(request(version, protocol)), protocol)
            found[f"reply-{version}-{protocol}"] = (answer, "out0")
            found[f"empty-{version}-{protocol}"] = (request(version, protocol, port=EMPTY, payload=b"x" * 64), "in0")
            found[f"expired-{version}-{protocol}"] = (request(version, protocol, ttl=1), "in0")
            found[f"fragment-{version}-{protocol}"] = (fragment(at), "in0")
        found[f"echo-{version}"] = (echo(At(rig, version, "icmp")), "in0")
    found["options"] = (request(4, options=[IPOption_NOP()] * 8), "in0")
    return found


def allowed_ends():
    """Addresses that forwarded packets may have, by version: (sources, destinations) of requests and of replies."""
    ends = {}
    for version, side in SIDES.items():
        backends = {address for each in backends_of(version).values() for address, _ in each}
        ends[version] = ({side.snat}, backends, {side.vip})
    return ends


ENDS = allowed_ends()


def check(frame, result):
    """What has to hold for every frame, whatever it is."""
    if result.verdict == "drop":
        return
    if result.verdict == "pass" and result.outcome != "reply_passed":
        assert result.frame == frame
        return
    assert oracle.network_valid(result.frame) or not oracle.network_valid(frame)
    if result.outcome.endswith("answered"):
        check_answer(frame, result)
    else:
        check_forwarded(frame, result)


def addresses(frame):
    start, size = (26, 4) if frame[14] >> 4 == 4 else (22, 16)
    return tuple(str(ipaddress.ip_address(frame[at : at + size])) for at in (start, start + size))


def check_answer(frame, result):
    assert result.frame[:12] == frame[6:12] + frame[:6]
    source, destination = addresses(frame)
    assert addresses(result.frame) == (destination, source)
    if result.outcome != "echo_answered":
        assert oracle.network_valid(result.frame)
        assert oracle.transport_valid(result.frame)
    elif oracle.transport_valid(frame):
        assert oracle.transport_valid(result.frame)


def check_forwarded(frame, result):
    assert len(result.frame) == len(frame)
    snat, backends, vips = ENDS[4 if frame[14] >> 4 == 4 else 6]
    source, destination = addresses(result.frame)
    if result.outcome.startswith("request"):
        assert source in snat
        assert destination in backends
    else:
        assert source in vips
    hops = 0 if result.outcome == "reply_passed" else 1
    ttl = 22 if frame[14] >> 4 == 4 else 21
    assert result.frame[ttl] == frame[ttl] - hops
    if oracle.network_valid(frame):
        assert oracle.network_valid(result.frame)
        checked = not oracle.is_following_fragment(frame) and oracle.transport_valid(frame)
        assert not checked or oracle.transport_valid(result.frame)
        before, after = oracle.transport_of(frame)[1], oracle.transport_of(result.frame)[1]
        assert after[20:] == before[20:]


def test_truncated_at_every_length(rig):
    for name, (frame, device) in frames(rig).items():
        for length in range(SHORTEST, len(frame)):
            assert rig.run(frame[:length], device).outcome == "truncated_dropped", f"{name} cut at {length}"


def test_shortened_consistently(rig):
    """IP's own length shrinks too: the packet ends inside its transport header, the frame has the rest as padding."""
    for version in (4, 6):
        for protocol, header in (("tcp", 20), ("udp", 8)):
            frame = bytearray(request(version, protocol))
            for size in range(header):
                length = size + 20 if version == 4 else size
                at = 16 if version == 4 else 18
                frame[at : at + 2] = length.to_bytes(2, "big")
                assert rig.run(bytes(frame)).outcome == "malformed_transport_dropped", f"{version} {protocol} {size}"


def test_only_ethernet(rig):
    for ethertype in (0x0800, 0x86DD):
        frame = bytes(ether())[:12] + ethertype.to_bytes(2, "big")
        assert rig.run(frame).outcome == "truncated_dropped"


@settings(max_examples=1500, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def mutate(rig, kinds, data):
    name = data.draw(st.sampled_from(sorted(kinds)))
    frame, device = kinds[name]
    changed = bytearray(frame)
    changes = st.tuples(st.integers(0, len(frame) - 1), st.integers(0, 255))
    for offset, value in data.draw(st.lists(changes, max_size=4)):
        changed[offset] = value
    changed = bytes(changed)[: data.draw(st.integers(SHORTEST, len(frame)) | st.just(len(frame)))]
    changed += data.draw(st.binary(max_size=40))
    check(changed, rig.run(changed, device))


def test_mutated(rig):
    mutate(rig, frames(rig))


def frames_for_dsr():
    """A frame of every kind that direct server return looks into, by name."""
    found = {}
    for version in (4, 6):
        for protocol in ("tcp", "udp"):
            name = f"{version}-{protocol}"
            whole = request(version, protocol, port=DSR, payload=bytes(range(64)))
            found[f"request-{name}"] = whole
            found[f"error-{name}"] = error_about_reply(version, protocol)
            found[f"first-{name}"], found[f"following-{name}"], *_ = fragments(whole, 32)
    found["options"] = request(4, port=DSR, options=[IPOption_NOP()] * 8)
    found["extensions"] = chained(CHAINS["four"], "udp", DSR)
    return found


@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def mutate_for_dsr(rig, kinds, data):
    frame = kinds[data.draw(st.sampled_from(sorted(kinds)))]
    changed = bytearray(frame)
    changes = st.tuples(st.integers(12, len(frame) - 1), st.integers(0, 255))
    for offset, value in data.draw(st.lists(changes, max_size=4)):
        changed[offset] = value
    changed = bytes(changed)[: data.draw(st.integers(SHORTEST_AT_TC, len(frame)) | st.just(len(frame)))]
    changed += data.draw(st.binary(max_size=40))
    result = rig.run(changed)
    if result.outcome.endswith("passed"):
        assert result.frame == changed
    elif result.verdict == "redirect":
        assert oracle.network_valid(result.frame) or not oracle.network_valid(changed)
        if result.outcome.startswith("request"):
            assert len(result.frame) >= len(changed)


@AT_EVERY_HOOK
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_mutated_with_direct_server_return(rig, dispatch):
    configure(rig, dispatch)
    mutate_for_dsr(rig, frames_for_dsr())


@pytest.mark.parametrize("ethertype", [0x0800, 0x86DD])
def test_noise(rig, ethertype):
    """Random bytes behind a right destination, much faster than through the counters."""
    generator = random.Random(ethertype)
    for _ in range(20_000):
        frame = bytes(ether())[:12] + ethertype.to_bytes(2, "big") + generator.randbytes(generator.randrange(120))
        verdict, output = rig.push(frame)
        assert VERDICTS[verdict] in ("pass", "drop")
        assert verdict == 1 or output == frame


def test_random_headers_to_the_vip(rig):
    """Right addresses and ports, everything else random."""
    generator = random.Random(7)
    for _ in range(5_000):
        version = generator.choice((4, 6))
        side = SIDES[version]
        head = bytearray(bytes(ether() / ip(version, side.client, side.vip)))
        body = generator.randbytes(generator.randrange(80))
        for at in range(14, 26 if version == 4 else 22):
            if generator.random() < 0.3:
                head[at] = generator.randrange(256)
        frame = bytes(head) + generator.randbytes(2) + WEB.to_bytes(2, "big") + body
        verdict, output = rig.push(frame)
        assert verdict in VERDICTS
        if VERDICTS[verdict] == "redirect":
            assert oracle.network_valid(output) or not oracle.network_valid(frame)

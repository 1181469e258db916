import ipaddress
import struct

import pytest

from datapath.compile.hashing import Flow, Seeds, flow_hash, jhash_final, jhash_mix, murmur3_x64_128, seeds, slot_for
from datapath.state.model import Protocol

DEFAULT = seeds("JLfvgnHc2kaSUFaI")


def test_the_default_seed_is_three_big_endian_words():
    assert DEFAULT == (0x24B7EF82, 0x71DCDA46, 0x92505688)


@pytest.mark.parametrize(
    ("data", "seed", "halves"),
    [
        (b"", 0, (0, 0)),
        (b"hello", 0, (0xCBD8A7B341BD9B02, 0x5B1E906A48AE1D19)),
        (b"The quick brown fox jumps over the lazy dog", 0, (0xE34BBC7BBC071B6C, 0x7A433CA9C49A9347)),
        (b"[10.0.0.1:80/TCP,State:active]", DEFAULT.table, (0xC61A94CBC80E5006, 0x4AA5DDEF6F23E6EA)),
        (b"[[fd00::1]:80/TCP,State:active]", DEFAULT.table, (0x6368315903FCB21D, 0x71E69266A6F7F531)),
    ],
)
def test_murmur(data, seed, halves):
    assert murmur3_x64_128(data, seed) == halves


def test_murmur_agrees_with_its_verification_value():
    """SMHasher's check over all tail lengths: hash keys 0..i of length i with seed 256 - i, then hash the hashes."""
    hashes = b"".join(struct.pack("<QQ", *murmur3_x64_128(bytes(range(length)), 256 - length)) for length in range(256))
    final = struct.pack("<QQ", *murmur3_x64_128(hashes, 0))
    assert struct.unpack("<I", final[:4])[0] == 0x6384BA69


@pytest.mark.parametrize(("initial", "hashed"), [(0, 0x17770551), (1, 0xCD628161)])
def test_the_rounds_of_jhash_are_those_of_lookup3(initial, hashed):
    """The example in Bob Jenkins' lookup3.c: 30 bytes are two rounds and a final one."""
    text = b"Four score and seven years ago".ljust(36, b"\0")
    a = b = c = (0xDEADBEEF + 30 + initial) & 0xFFFFFFFF
    words = struct.unpack("<9I", text)
    for start in (0, 3):
        a, b, c = ((one + other) & 0xFFFFFFFF for one, other in zip((a, b, c), words[start : start + 3]))
        a, b, c = jhash_mix(a, b, c)
    a, b, c = ((one + other) & 0xFFFFFFFF for one, other in zip((a, b, c), words[6:]))
    assert jhash_final(a, b, c) == hashed


@pytest.mark.parametrize(
    ("seed", "source", "source_port", "port"),
    [
        (0xCAFE, "110.0.11.1", 22331, 56602),
        (0xCAFE, "110.0.11.1", 33441, 24364),
        (0xEB9F, "2001::1", 22331, 52625),
        (0xEB9F, "2001::1", 33441, 18056),
    ],
)
def test_the_flow_hash_gives_ciliums_tunnel_ports(seed, source, source_port, port):
    """Cilium's own tests of its tuple hash: the tunnel's source port is the hash folded to 16 raw bits."""
    flow = Flow(ipaddress.ip_address(source), source_port, 22330, Protocol.TCP)
    hashed = flow_hash(flow, Seeds(0, seed, seed))
    assert struct.unpack(">H", struct.pack("<H", (hashed >> 16) ^ (hashed & 0xFFFF)))[0] == port


def test_the_slot_of_a_packet():
    flow = Flow(ipaddress.ip_address("192.168.1.10"), 40000, 80, Protocol.TCP)
    assert flow_hash(flow, DEFAULT) == 0x05209851
    assert slot_for(flow, 251, DEFAULT) == 7
    assert slot_for(flow, 16381, DEFAULT) == 5594

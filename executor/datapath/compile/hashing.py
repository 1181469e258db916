"""The hashes that decide backends: MurmurHash3 builds the tables, Linux's jhash picks the slot.

Bit-identical to Cilium for equal input, so that a fleet may mix both; all arithmetic is modulo 2^64 or 2^32.
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

from datapath.spec.checks import decode_seed
from datapath.state.model import IPAddress, Protocol

_M32 = 0xFFFFFFFF
_M64 = 0xFFFFFFFFFFFFFFFF
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F


class Seeds(NamedTuple):
    """The three seeds in `bpf-lb-maglev-hash-seed`."""

    table: int
    """Seed of the permutations (MurmurHash3)."""
    flow4: int
    """Seed of the flow hash over IPv4 (jhash)."""
    flow6: int


@functools.lru_cache(maxsize=8)
def seeds(text: str) -> Seeds:
    """The seeds in 12 base64-coded bytes: three big-endian u32."""
    return Seeds(*struct.unpack(">III", decode_seed(text)))


def _rotate64(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _M64


def _finalize64(value: int) -> int:
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _M64
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _M64
    return value ^ (value >> 33)


def _scramble1(block: int) -> int:
    return _rotate64(block * _C1 & _M64, 31) * _C2 & _M64


def _scramble2(block: int) -> int:
    return _rotate64(block * _C2 & _M64, 33) * _C1 & _M64


def murmur3_x64_128(data: bytes, seed: int) -> tuple[int, int]:
    """MurmurHash3_x64_128 (Austin Appleby's reference): both 64-bit halves of the hash of `data`."""
    h1 = h2 = seed & _M32
    whole = len(data) & ~15
    for k1, k2 in struct.iter_unpack("<QQ", data[:whole]):
        h1 = (_rotate64(h1 ^ _scramble1(k1), 27) + h2) * 5 + 0x52DCE729 & _M64
        h2 = (_rotate64(h2 ^ _scramble2(k2), 31) + h1) * 5 + 0x38495AB5 & _M64
    tail = data[whole:]
    h2 ^= _scramble2(int.from_bytes(tail[8:], "little"))
    h1 ^= _scramble1(int.from_bytes(tail[:8], "little"))
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = (h1 + h2) & _M64
    h2 = (h2 + h1) & _M64
    h1 = _finalize64(h1)
    h2 = _finalize64(h2)
    h1 = (h1 + h2) & _M64
    return h1, (h2 + h1) & _M64


def _rotate32(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _M32


def jhash_mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    """Linux's `__jhash_mix` (Bob Jenkins' lookup3)."""
    a = (a - c & _M32) ^ _rotate32(c, 4)
    c = c + b & _M32
    b = (b - a & _M32) ^ _rotate32(a, 6)
    a = a + c & _M32
    c = (c - b & _M32) ^ _rotate32(b, 8)
    b = b + a & _M32
    a = (a - c & _M32) ^ _rotate32(c, 16)
    c = c + b & _M32
    b = (b - a & _M32) ^ _rotate32(a, 19)
    a = a + c & _M32
    c = (c - b & _M32) ^ _rotate32(b, 4)
    b = b + a & _M32
    return a, b, c


def jhash_final(a: int, b: int, c: int) -> int:
    """Linux's `__jhash_final`; the hash is c."""
    c = (c ^ b) - _rotate32(b, 14) & _M32
    a = (a ^ c) - _rotate32(c, 11) & _M32
    b = (b ^ a) - _rotate32(a, 25) & _M32
    c = (c ^ b) - _rotate32(b, 16) & _M32
    a = (a ^ c) - _rotate32(c, 4) & _M32
    b = (b ^ a) - _rotate32(a, 14) & _M32
    return (c ^ b) - _rotate32(b, 24) & _M32


def jhash_3words(a: int, b: int, c: int, initval: int) -> int:
    """Linux's `jhash_3words` (include/linux/jhash.h)."""
    start = initval + 0xDEADBEEF + (3 << 2)
    return jhash_final(a + start & _M32, b + start & _M32, c + start & _M32)


def jhash_ipv6(words: tuple[int, int, int, int], ports: int, protocol: int, seed: int) -> int:
    """Cilium's `hash_from_tuple_v6`: jhash over six words, the seed added before the last round only."""
    a, b, c = jhash_mix(*words[:3])
    a, b, c = jhash_mix(a + words[3] & _M32, b + ports & _M32, c + protocol & _M32)
    return jhash_final(a + seed & _M32, b, c)


class Flow(NamedTuple):
    """What the slot of a new flow depends on; the VIP's address is left out, as in Cilium."""

    source: IPAddress
    source_port: int
    destination_port: int
    protocol: Protocol


def flow_hash(flow: Flow, seed: Seeds) -> int:
    """The u32 that picks the slot.

    Address and ports enter as the packet's bytes read as little-endian words, on every machine.
    """
    ports = int.from_bytes(struct.pack(">HH", flow.source_port, flow.destination_port), "little")
    if flow.source.version == 4:
        (word,) = struct.unpack("<I", flow.source.packed)
        return jhash_3words(word, ports, flow.protocol.value, seed.flow4)
    words = struct.unpack("<IIII", flow.source.packed)
    return jhash_ipv6((words[0], words[1], words[2], words[3]), ports, flow.protocol.value, seed.flow6)


def slot_for(flow: Flow, table_size: int, seed: Seeds) -> int:
    """The slot of the table that the datapath looks at for a new flow."""
    return flow_hash(flow, seed) % table_size

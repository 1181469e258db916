"""Cheap changes to frames. All chance comes from the generator that is handed in: the same seed, the same frames."""

import ipaddress

from bpf.rig import DSR_RANDOM, SIDES, WEB
from datapath.compile.layouts import pack_address
from fuzz.runner import LONGEST, SHORTEST

INTERESTING = (
    0,
    1,
    2,
    4,
    5,
    6,
    17,
    41,
    44,
    58,
    60,
    0x3F,
    0x40,
    0x45,
    0x46,
    0x4F,
    0x60,
    0x7F,
    0x80,
    0x81,
    0x86,
    0xFE,
    0xFF,
)
WORDS = (0, 1, 7, 8, 19, 20, 21, 28, 39, 40, 0x1FFF, 0x2000, 0x3FFF, 0x4000, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
PROTOCOLS = (0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 255)
HEADERS = 80
"""Most changes go where headers are."""


def place(chance, frame):
    """An offset, mostly among the headers."""
    size = len(frame)
    return int(chance() * (min(size, HEADERS) if chance() < 0.9 else size))


def flip(chance, frame, _):
    frame[place(chance, frame)] ^= 1 << int(chance() * 8)


def overwrite(chance, frame, _):
    frame[place(chance, frame)] = INTERESTING[int(chance() * len(INTERESTING))]


def overwrite_word(chance, frame, _):
    at = min(place(chance, frame), len(frame) - 2)
    frame[at : at + 2] = WORDS[int(chance() * len(WORDS))].to_bytes(2, "big")


def randomise(chance, frame, _):
    frame[place(chance, frame)] = int(chance() * 256)


def truncate(chance, frame, _):
    del frame[max(SHORTEST, int(chance() * len(frame))) :]


def extend(chance, frame, _):
    frame += bytes(int(chance() * 60))


def insert(chance, frame, _):
    at = place(chance, frame)
    frame[at:at] = bytes(4 * (1 + int(chance() * 4)))


def remove(chance, frame, _):
    at = max(SHORTEST, place(chance, frame))
    del frame[at : at + 4 * (1 + int(chance() * 4))]


def splice(chance, frame, other):
    """Go on with the rest of another frame."""
    at, start = place(chance, frame), place(chance, other)
    frame[at:] = other[start:]


def embed(chance, frame, other):
    """Put another frame's packet behind the headers."""
    at = max(SHORTEST, place(chance, frame))
    frame[at:] = other[14:]


def lie_about_length(chance, frame, _):
    if len(frame) < 40:
        return
    at = 16 if frame[12] == 8 else 18
    value = (
        int.from_bytes(frame[at : at + 2], "big") + int(chance() * 17) - 8 if chance() < 0.7 else int(chance() * 65536)
    )
    frame[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")


def change_protocol(chance, frame, _):
    if len(frame) > 24:
        frame[23 if frame[12] == 8 else 20] = PROTOCOLS[int(chance() * len(PROTOCOLS))]


def change_hops(chance, frame, _):
    if len(frame) > 24:
        frame[22 if frame[12] == 8 else 21] = int(chance() * 4)


def change_fragment(chance, frame, _):
    if len(frame) > 24 and frame[12] == 8:
        frame[20:22] = int(chance() * 65536).to_bytes(2, "big")


def change_ports(chance, frame, _):
    """Another client's port, which makes flows; or another service."""
    if len(frame) < 60:
        return
    at = 14 + (frame[14] & 15) * 4 if frame[12] == 8 else 54
    if chance() < 0.6:
        frame[at : at + 2] = int(chance() * 65536).to_bytes(2, "big")
    else:
        frame[at + 2 : at + 4] = (WEB - 1 + int(chance() * (DSR_RANDOM - WEB + 3))).to_bytes(2, "big")


ADDRESSES = {
    version: [
        pack_address(address)[-size:]
        for address in map(
            ipaddress.ip_address,
            (side.vip, side.client, side.far_client, side.lost_client, side.snat, side.own, side.backend.format(11)),
        )
    ]
    for (version, side), size in zip(SIDES.items(), (4, 16))
}


def change_address(chance, frame, _):
    version, start, size = (4, 26, 4) if frame[12] == 8 else (6, 22, 16)
    if len(frame) < start + 2 * size:
        return
    at = start + (size if chance() < 0.5 else 0)
    choice = ADDRESSES[version]
    frame[at : at + size] = choice[int(chance() * len(choice))]


MUTATIONS = (
    *(flip, flip, overwrite, overwrite, overwrite_word, randomise, truncate, extend, insert, remove, splice, embed),
    *(lie_about_length, change_protocol, change_hops, change_fragment, change_ports, change_ports, change_ports),
    change_address,
)


def correct_length(frame):
    """Have the IP header announce what the frame has."""
    if len(frame) < 54:
        return
    if frame[12] == 8:
        frame[16:18] = (len(frame) - 14).to_bytes(2, "big")
    elif frame[12] == 0x86:
        frame[18:20] = (len(frame) - 54).to_bytes(2, "big")


def correct_checksum(frame):
    """Of an IPv4 header."""
    size = (frame[14] & 15) * 4 if len(frame) > 33 and frame[12] == 8 else 0
    if 20 <= size <= len(frame) - 14:
        frame[24:26] = b"\0\0"
        total = int.from_bytes(frame[14 : 14 + size], "big") % 0xFFFF
        frame[24:26] = (0xFFFF - total).to_bytes(2, "big")


def stream(generator, seeds):
    """(frame, device) without end."""
    chance = generator.random
    count, kinds = len(seeds), len(MUTATIONS)
    while True:
        frame, device = seeds[int(chance() * count)]
        draw = chance()
        if draw < 0.1:
            yield frame, device
            continue
        if draw < 0.13:
            head = frame[: 14 if chance() < 0.5 else 54]
            yield head + generator.randbytes(int(chance() * 120)), device
            continue
        frame = bytearray(frame)
        while True:
            MUTATIONS[int(chance() * kinds)](chance, frame, seeds[int(chance() * count)][0])
            if len(frame) < SHORTEST:
                frame += bytes(SHORTEST - len(frame))
            if chance() < 0.5:
                break
        del frame[LONGEST:]
        draw = chance()
        if draw < 0.3:
            correct_length(frame)
        if draw < 0.6:
            correct_checksum(frame)
        yield bytes(frame), device

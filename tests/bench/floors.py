"""The yardsticks of programs/floors.bpf.c, with a VIP and 100 real servers."""

import ipaddress
import struct
from contextlib import contextmanager

from bench import programs
from bench.measure import Target
from bench.node import PORT, TABLE_SIZE, VIP
from datapath.kernel import libbpf

REALS = 100
PROTOCOLS = (6, 17)


@contextmanager
def loaded():
    """Name -> `Target`."""
    with programs.own("floors") as obj:
        obj.load()
        _fill(obj)
        yield {
            name: Target(name, obj.program_fd(name), floor=True, moves_head=name in ("shift", "slb"))
            for name in ("tx", "shift", "min", "slb")
        }


def _fill(obj):
    vips, ring, reals = (obj.map_fd(name) for name in ("vips", "ring", "reals"))
    for protocol in PROTOCOLS:
        key = ipaddress.ip_address(VIP[4]).packed + struct.pack(">HBx", PORT, protocol)
        libbpf.map_update(vips, key, bytes.fromhex("0200000000fe0000"))
    for number in range(REALS):
        libbpf.map_update(reals, struct.pack("=I", number), bytes((10, 0, 1, 101 + number)))
    # No order that a processor could foresee, and every server as often as the others.
    slots = [slot * 40503 % TABLE_SIZE % REALS for slot in range(TABLE_SIZE)]
    keys, values = (struct.pack(f"={TABLE_SIZE}I", *numbers) for numbers in (range(TABLE_SIZE), slots))
    written, error = libbpf.map_update_batch(ring, keys, values, TABLE_SIZE)
    assert (written, error) == (TABLE_SIZE, 0)

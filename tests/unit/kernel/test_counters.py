import struct

from datapath.kernel.counters import counters


def test_summed_over_cpus_and_without_zeros():
    values = {1: (1, 100, 2, 200, 0, 0), 2: (0,) * 6, 7: (2**63, 0, 2**63, 1, 0, 0)}
    entries = [(number.to_bytes(4, "little"), struct.pack("=6Q", *value)) for number, value in values.items()]
    assert counters(entries) == {1: (3, 300), 7: (2**64, 1)}

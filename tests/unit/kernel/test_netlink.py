import errno
import socket
import struct

import pytest

from datapath.kernel import netlink


def test_attributes_are_padded_and_found_again():
    packed = netlink.attribute(1, b"abc") + netlink.attribute(5 | 0x8000, b"") + netlink.attribute(7, b"12345678")
    assert len(packed) == 8 + 4 + 12
    assert netlink.attributes(packed) == {1: b"abc", 5: b"", 7: b"12345678"}


@pytest.mark.parametrize("broken", [b"\0\0\1\0", b"\3\0\1\0", b"\1"])
def test_broken_attributes_end_the_walk(broken):
    assert netlink.attributes(netlink.attribute(1, b"abc") + broken) == {1: b"abc"}


def test_answers_come_in_the_order_of_the_requests(node):
    def route(last):
        header = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0)
        return netlink.RTM_GETROUTE, 0, header + netlink.attribute(1, last)

    wanted = [bytes([10, 9, number // 250, number % 250 + 3]) for number in range(250)] * 4
    # Every third one is without route.
    asked = [bytes([192, 168, 0, 1]) if number % 3 == 0 else address for number, address in enumerate(wanted)]
    for number, (error, body) in enumerate(netlink.exchange([route(address) for address in asked])):
        if number % 3 == 0:
            assert (error, body) == (errno.ENETUNREACH, b"")
        else:
            assert error == 0
            assert netlink.attributes(body[12:])[1] == asked[number]


def test_a_refused_dump():
    with pytest.raises(OSError, match="Operation not supported"):
        netlink.dump(9999, bytes(16))

"""Answers about frontends are remembered, and never a moment too long."""

import ipaddress

import pytest

from bpf.rig import AT_EVERY_HOOK, PROTOCOLS, SIDES, WEB, request
from datapath.compile import layouts
from datapath.compile.layouts import ServiceKey, pack_address
from datapath.plan import operations as ops

BOTH = pytest.mark.parametrize("version", [4, 6])
UNUSED = 4444
XDP_TX = 3


def frontend(version, protocol="tcp", port=WEB):
    key = ServiceKey(port=port, protocol=PROTOCOLS[protocol])
    key.address[:] = pack_address(ipaddress.ip_address(SIDES[version].vip))
    return bytes(key)


def remove(rig, key):
    rig.execute(ops.DeleteEntry(layouts.SERVICES, key))


def value(rig, key):
    return next(content for name, content in rig.entries(layouts.SERVICES) if name == key)


@BOTH
@AT_EVERY_HOOK
def test_a_service_that_goes_and_comes(rig, version):
    key = frontend(version)
    known = value(rig, key)
    for _ in range(3):
        assert rig.run(request(version)).outcome.startswith("request_")
        remove(rig, key)
        assert rig.run(request(version)).outcome == "unknown_port_dropped"
        rig.execute(ops.PutEntry(layouts.SERVICES, key, known))


@BOTH
@AT_EVERY_HOOK
def test_a_vip_that_goes_and_comes(rig, version):
    address = pack_address(ipaddress.ip_address(SIDES[version].vip))
    frame = request(version, port=UNUSED)
    for _ in range(3):
        assert rig.run(frame).outcome == "unknown_port_dropped"
        rig.execute(ops.DeleteEntry(layouts.ADDRESSES, address))
        assert rig.run(frame).outcome == "no_service_passed"
        rig.execute(ops.PutEntry(layouts.ADDRESSES, address, layouts.ADDRESS_VIP.to_bytes(4, "little")))


def place(version, port, protocol=6):
    """Where a frontend's answer is remembered, as the program computes it."""
    word = int.from_bytes(ipaddress.ip_address(SIDES[version].vip).packed[-4:], "little")
    swapped = int.from_bytes(port.to_bytes(2, "big"), "little")
    return ((word + (swapped << 8) + protocol) * 2654435769 & 0xFFFFFFFF) >> 22


@BOTH
@AT_EVERY_HOOK
def test_frontends_that_share_a_place(rig, version):
    """They drive each other out, and none gets another's answer."""
    ports = [port for port in range(1, 65536) if place(version, port) == place(version, WEB)]
    assert len(ports) > 10, "the test computes places as the program does"
    for port in ports[:5]:
        if port != WEB:
            assert rig.run(request(version, port=port)).outcome == "unknown_port_dropped"
        assert rig.run(request(version)).outcome.startswith("request_")


@BOTH
def test_without_redirect_where_every_driver_transmits(rig, version):
    """Only towards the device that the frame came by."""
    if rig.receiving("out0") != rig.devices["out0"]:
        pytest.skip("this kernel runs frames as if they came in by the loopback device")
    out, back = request(version), request(version)
    rig.configure(transmit=1)
    assert rig.push(out, "in0")[0] == 4
    assert rig.push(back, "out0")[0] == XDP_TX
    rig.configure(transmit=0)
    assert rig.push(back, "out0")[0] == 4


def test_generation_moves_with_every_change(rig):
    key = frontend(4)

    def generation():
        ((_, number),) = rig.entries(layouts.GENERATION)
        return int.from_bytes(number, "little")

    before = generation()
    rig.execute(ops.PutEntry(layouts.SERVICES, key, value(rig, key)))
    assert generation() == before + 1
    rig.run(request(4))
    assert generation() == before + 1

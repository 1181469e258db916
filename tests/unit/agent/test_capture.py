"""The options of `datapath capture`, as the agent reads them."""

import ipaddress

import pytest

from datapath.agent.capture import parse
from datapath.compile.layouts import pack_address
from datapath.spec.errors import SpecErrors

DEVICES = {"eth0": 2, "eth1": 3}


def test_nothing_asked_for_is_everything():
    seconds, wanted = parse({}, DEVICES)
    assert (seconds, wanted.enabled, wanted.snaplen) == (60, 1, 65535)
    assert (wanted.port, wanted.device, wanted.protocol) == (0, 0, 0)
    assert bytes(wanted.mask) == bytes(16)


def test_every_option():
    asked = {"seconds": "5", "snaplen": "60", "port": "80", "device": "eth1", "protocol": "TCP"}
    seconds, wanted = parse(asked, DEVICES)
    assert (seconds, wanted.snaplen, wanted.device, wanted.protocol) == (5, 60, 3, 6)
    assert wanted.port == 80


@pytest.mark.parametrize(
    ("host", "base", "ones"),
    [
        ("192.0.2.10", "192.0.2.10", 128),
        ("192.0.2.10/24", "192.0.2.0", 120),
        ("0.0.0.0/0", "0.0.0.0", 96),
        ("2001:db8::1", "2001:db8::1", 128),
        ("2001:db8::1/33", "2001:db8::", 33),
        ("::/0", "::", 0),
    ],
)
def test_hosts_and_networks(host, base, ones):
    _, wanted = parse({"host": host}, DEVICES)
    assert f"{int.from_bytes(bytes(wanted.mask), 'big'):0128b}" == "1" * ones + "0" * (128 - ones)
    assert bytes(wanted.address) == bytes(pack_address(ipaddress.ip_address(base)))


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(SpecErrors) as refused:
        parse({"device": "eth9", "protocol": "tpc", "host": "vip", "port": "0", "seconds": "0"}, DEVICES)
    told = str(refused.value)
    missing = ("--device", "--protocol", "--host", "--port", "--seconds", "tcp")
    assert [each for each in missing if each not in told] == []

import ipaddress

import pytest

from datapath.state.model import Backend, Frontend, Protocol


@pytest.mark.parametrize(("address", "text"), [("192.0.2.10", "192.0.2.10:80"), ("2001:db8::10", "[2001:db8::10]:80")])
def test_endpoints_read_as_they_are_written(address, text):
    ip = ipaddress.ip_address(address)
    assert str(Backend(ip, 80)) == text
    assert str(Frontend(ip, 80, Protocol.UDP)) == f"{text}/UDP"

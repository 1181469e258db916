import pytest

from datapath.cli import drops
from datapath.cli.errors import REFUSED, Failure

COUNTED = {
    "seconds": 10.0,
    "drops": [
        {"reason": "NO_SOCKET", "location": "udp_queue_rcv", "protocol": "IPv4", "packets": 1234},
        {"reason": None, "location": "tcp_v4_rcv", "protocol": "IPv6", "packets": 1},
    ],
    "tcp": [
        {"service": "web", "retransmits": 3, "samples": 12, "mean_us": 20500, "min_us": 20001, "max_us": 31000},
        {"service": None, "retransmits": 0, "samples": 0, "mean_us": None, "min_us": None, "max_us": None},
    ],
}


def service(name, frontends, backends):
    return {"name": name, "frontends": frontends, "backends": [{"backend": each} for each in backends]}


def test_endpoints_of_services():
    services = [
        service("web", ["192.0.2.10:80/TCP", "[2001:db8::10]:80/TCP"], ["203.0.113.11:8080", "[2001:db8:2::11]:8080"]),
        service("dns", ["192.0.2.10:53/UDP"], []),
    ]
    assert drops.endpoints(services) == {
        ("192.0.2.10", 80): "web",
        ("2001:db8::10", 80): "web",
        ("203.0.113.11", 8080): "web",
        ("2001:db8:2::11", 8080): "web",
    }


def test_frontend_goes_before_backend():
    first = service("first", ["192.0.2.10:80/TCP"], ["192.0.2.20:80"])
    second = service("second", ["192.0.2.20:80/TCP"], ["203.0.113.11:8080"])
    assert drops.endpoints([first, second])[("192.0.2.20", 80)] == "second"


def test_text():
    lines = [line.split() for line in drops.render(COUNTED).splitlines()]
    assert ["1,234", "NO_SOCKET", "udp_queue_rcv", "IPv4"] in lines
    assert ["1", "-", "tcp_v4_rcv", "IPv6"] in lines
    assert ["web", "3", "12", "20.001", "20.500", "31.000"] in lines
    assert ["(no", "service)", "0", "0", "-", "-", "-"] in lines


def test_text_without_drops():
    assert "none" in drops.render({**COUNTED, "drops": []}).splitlines()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 3601])
def test_time_that_is_none(seconds):
    with pytest.raises(Failure) as caught:
        drops.run(None, seconds, watch=False, output="text")
    assert caught.value.code == REFUSED
    assert caught.value.errors[0]["path"] == "--seconds"

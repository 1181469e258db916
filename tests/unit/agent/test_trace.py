"""The words of `datapath trace`: what describes a packet, and what does not."""

import pytest

from datapath.agent.trace import parse
from datapath.spec.errors import SpecErrors
from datapath.state.model import Protocol

WORDS = {"source": "198.51.100.2:40000", "destination": "192.0.2.10:80/tcp"}


def test_defaults():
    packet = parse(WORDS)
    assert (str(packet.source), packet.source_port) == ("198.51.100.2", 40000)
    assert (str(packet.destination), packet.destination_port, packet.protocol) == ("192.0.2.10", 80, Protocol.TCP)
    assert (packet.tcp_flags, packet.ttl, packet.length) == (0x02, 64, 40)


def test_everything_said():
    words = {"source": "[2001:db8::2]:1", "destination": "[2001:db8::10]:53/UDP", "ttl": "0", "length": "1500"}
    packet = parse(words)
    assert (packet.source.version, packet.protocol, packet.ttl, packet.length) == (6, Protocol.UDP, 0, 1500)
    assert parse({**WORDS, "tcp_flags": "syn,ack"}).tcp_flags == 0x12


@pytest.mark.parametrize(
    ("words", "path", "message"),
    [
        ({"source": "198.51.100.2"}, "source", "has no port"),
        ({"source": ""}, "source", "is missing"),
        ({"source": "198.51.100.2:0"}, "source", "out of range"),
        ({"source": "224.0.0.1:5"}, "source", "no unicast address"),
        ({"source": "[2001:db8::2]:40000"}, "source", "IPv6 cannot be sent to IPv4"),
        ({"destination": "192.0.2.10:80"}, "destination", "has no protocol"),
        ({"destination": "192.0.2.10/TCP"}, "destination", "has no port"),
        ({"destination": "192.0.2.10:80/TPC"}, "destination", "unknown protocol 'TPC'"),
        ({"destination": "web:80/TCP"}, "destination", "not an IP address"),
        ({"tcp_flags": "Q"}, "--tcp-flags", "unknown TCP flags"),
        ({"destination": "192.0.2.10:80/UDP", "tcp_flags": "S"}, "--tcp-flags", "UDP has no TCP flags"),
        ({"ttl": "256"}, "--ttl", "out of range"),
        ({"ttl": "x"}, "--ttl", "not an integer"),
        ({"length": "39"}, "--length", "out of range"),
        ({"length": "9000"}, "--length", "out of range"),
    ],
)
def test_what_is_refused(words, path, message):
    with pytest.raises(SpecErrors) as caught:
        parse({**WORDS, **words})
    (error,) = caught.value.errors
    assert error.path == path
    assert message in error.message


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(SpecErrors) as caught:
        parse({"source": "x", "destination": "192.0.2.10:80/TPC", "ttl": "-1", "tcp_flags": "Q"})
    assert {error.path for error in caught.value.errors} == {"source", "destination", "--ttl", "--tcp-flags"}
    assert next(error.nearest for error in caught.value.errors if error.path == "destination") == "TCP"

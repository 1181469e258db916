"""Thousands of requests through the load balancers, judged by clients, backends' answers and captures alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapReader

from lib import lab

COUNT = 2000
BACKEND_PORTS = {8080, 8053}
CLIENT = {"198.18.1.10", "2001:db8:0:1::10"}
BE1 = {"198.18.21.10", "2001:db8:0:21::10"}
SNAT_PORTS = range(1024, 30000)
"""Health checks come from the same addresses, and from ports above."""


def packets(path: Path):
    with PcapReader(str(path)) as reader:
        return [packet for packet in reader if IP in packet or IPv6 in packet]


def network(packet):
    return packet[IPv6] if IPv6 in packet else packet[IP]


def hop_limit(packet):
    return packet[IPv6].hlim if IPv6 in packet else packet[IP].ttl


def transport(packet):
    return packet[TCP] if TCP in packet else packet.getlayer(UDP)


def balanced(seen):
    """The packets that the load balancers sent to a backend for clients."""
    return [
        packet
        for packet in seen
        if transport(packet)
        and transport(packet).dport in BACKEND_PORTS
        and transport(packet).sport in SNAT_PORTS
        # An answer to a source port that is a backend's own number looks alike.
        and network(packet).src not in BE1
    ]


def answers(seen):
    """What the client was sent."""
    return [packet for packet in seen if transport(packet) and network(packet).dst in CLIENT]


@pytest.fixture(scope="module")
def traffic():
    """Requests to all four services, with captures at the client and at every backend."""
    with (
        lab.capture("client", "eth0", "net 192.0.2.0/24 or net 2001:db8:0:ff::/64", "forwarding") as at_client,
        lab.capture("be1", "eth0", "tcp port 8080 or udp port 8053", "forwarding") as at_be1,
    ):
        report = lab.load("--count", COUNT, *lab.TARGETS)
    return {"report": report, "client": packets(at_client), "be1": packets(at_be1)}


@pytest.mark.parametrize("target", lab.TARGETS)
def test_every_request_is_answered(traffic, target):
    counts = traffic["report"][target]
    assert counts["failures"] == []
    assert sum(counts["backends"].values()) == COUNT


@pytest.mark.parametrize("target", lab.TARGETS)
def test_backends_take_equal_shares(traffic, target):
    backends = traffic["report"][target]["backends"]
    assert set(backends) == set(lab.BACKENDS)
    # Five standard deviations of a binomial distribution with p = 1/3.
    assert all(abs(count - COUNT / 3) < 5 * (COUNT * 2 / 9) ** 0.5 for count in backends.values()), backends


@pytest.mark.parametrize("target", lab.TARGETS)
def test_both_load_balancers_take_part_with_their_own_addresses(traffic, target):
    sources = set(traffic["report"][target]["sources"])
    version = ":" if "[" in target else "."
    assert sources == {address for node in lab.LOAD_BALANCERS for address in lab.SNAT[node] if version in address}


def test_client_hears_only_the_vips(traffic):
    assert {network(packet).src for packet in answers(traffic["client"])} == {lab.VIP4, lab.VIP6}


def test_backend_hears_only_the_load_balancers(traffic):
    heard = {network(packet).src for packet in traffic["be1"] if network(packet).src not in BE1 and transport(packet)}
    assert heard == set().union(*lab.SNAT.values())


def test_every_router_on_the_way_took_one_hop(traffic):
    # 64 at the sender; router, load balancer and router again take one each.
    assert {hop_limit(packet) for packet in balanced(traffic["be1"])} == {61}
    assert {hop_limit(packet) for packet in answers(traffic["client"])} == {61}


@pytest.mark.parametrize("network_layer", [IP, IPv6])
@pytest.mark.parametrize("transport_layer", [TCP, UDP])
@pytest.mark.parametrize(("place", "choose"), [("client", answers), ("be1", balanced)])
def test_checksums_are_right(traffic, place, choose, network_layer, transport_layer):
    seen = [packet for packet in choose(traffic[place]) if network_layer in packet and transport_layer in packet][:200]
    assert len(seen) >= 100
    assert [packet.summary() for packet in seen if not checksums_are_right(packet, transport_layer)] == []


def checksums_are_right(packet, transport_layer):
    """Whether scapy, when it computes them anew, comes to the same."""
    anew = packet.copy()
    del anew[transport_layer].chksum
    if IP in anew:
        del anew[IP].chksum
    return bytes(anew) == bytes(packet)


@pytest.mark.parametrize("host", [lab.VIP4, f"[{lab.VIP6}]"])
def test_curl(host):
    backends = lab.curl(host, COUNT)
    assert sum(backends.values()) == COUNT
    assert set(backends) == set(lab.BACKENDS)


@pytest.mark.parametrize("host", [lab.VIP4, f"[{lab.VIP6}]"])
def test_megabytes_arrive_as_they_were_sent(host):
    sent = lab.shell("be1", "sha256sum < /usr/bin/python3.11")
    assert lab.shell("client", f"curl --silent --globoff http://{host}/large | sha256sum") == sent


@pytest.mark.parametrize(
    ("host", "client", "backends", "ports"),
    [
        (lab.VIP4, "198.18.1.10", "198.18.2{}.10", 61000),
        (f"[{lab.VIP6}]", "[2001:db8:0:1::10]", "2001:db8:0:2{}::10", 62000),
    ],
)
@pytest.mark.parametrize("number", range(1, 7))
def test_a_request_reaches_the_backend_that_was_traced(host, client, backends, ports, number):
    # A port is used once only: a connection that the client closed first keeps it for a minute, for both families.
    port = ports + number
    # The router chooses the load balancer; both send the flow to the same backend.
    told = [lab.datapath(node, "trace", f"{client}:{port}", f"{host}:80/TCP") for node in lab.LOAD_BALANCERS]
    request = ("curl", "--silent", "--globoff", "--header", "Connection: close", "--local-port", str(port))
    backend = lab.run("client", *request, f"http://{host}/").out.split()[0]
    assert [each["after"]["destination"] for each in told] == [backends.format(backend.removeprefix("be"))] * 2
    assert [each["disagreements"] for each in told] == [[], []]


@pytest.mark.parametrize("address", [lab.VIP4, lab.VIP6])
def test_vips_answer_pings(address):
    assert "3 received" in lab.run("client", "ping", "-c", "3", "-i", "0.2", "-W", "2", address).out


def test_unknown_port_of_a_vip_is_not_answered():
    result = lab.run("client", "curl", "--silent", "--max-time", "1", f"http://{lab.VIP4}:81/", check=False)
    assert result.code == 28, "curl's code for a time-out: neither an answer nor a refusal"


@pytest.mark.parametrize("node", lab.LOAD_BALANCERS)
def test_traffic_to_the_load_balancer_itself_passes(node):
    for address in lab.SNAT[node]:
        assert lab.shell("client", f"exec bash -c 'read -t 5 line < /dev/tcp/{address}/22; echo $line'").startswith(
            "SSH-2.0"
        )


@pytest.mark.parametrize("address", [lab.VIP4, lab.VIP6])
def test_a_packet_that_dies_at_the_load_balancer_is_reported(address):
    assert lab.run("client", "python3", "-", address, stdin=LAST_HOP).out.strip() == address


LAST_HOP = """
import select, socket, sys
if ":" in sys.argv[1]:
    family, level, receive_errors, hop_limit, icmp_type, address = 10, socket.IPPROTO_IPV6, 25, 16, 3, slice(8, 24)
else:
    family, level, receive_errors, hop_limit, icmp_type, address = 2, socket.IPPROTO_IP, 11, 2, 11, slice(4, 8)
client = socket.socket(family, socket.SOCK_DGRAM)
client.setsockopt(level, receive_errors, 1)
client.setsockopt(level, hop_limit, 2)
client.sendto(b"x", (sys.argv[1], 53))
poll = select.poll()
poll.register(client, 0)
assert poll.poll(3000), "no ICMP error came"
error = client.recvmsg(100, 1000, socket.MSG_ERRQUEUE)[1][0][2]
# struct sock_extended_err, 16 bytes with the ICMP type at 5, then the address of who sent the error.
assert error[5] == icmp_type, f"ICMP type {error[5]}"
print(socket.inet_ntop(family, error[16:][address]))
"""

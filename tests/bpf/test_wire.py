"""Real sockets through real devices: what BPF_PROG_TEST_RUN cannot show is that frames leave and arrive."""

import contextlib
import os
import socket
import threading

import pytest

from bpf.oracle import slot_hash
from bpf.rig import BACKEND_MACS, CLIENT_MAC, EMPTY, MACS, PROTOCOLS, SIDES, TABLE_SIZE, WEB
from netns.topology import attach_pass

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
BACKEND_MAC = BACKEND_MACS[11]
ROUNDS = 60


@pytest.fixture
def wire(rig):
    """The peer of both links is a client and both backends."""
    node, peer = rig.node, rig.peer
    for device, mac in (("in0", CLIENT_MAC), ("out0", BACKEND_MAC)):
        peer.run(f"ip link set {device}-peer address {mac}")
        peer.run(f"sysctl -qw net.ipv6.conf.{device}-peer.disable_ipv6=0")
    for version, side in SIDES.items():
        prefix, more = {4: (24, ""), 6: (64, " nodad")}[version]
        for device, address in (
            ("in0", side.client),
            *(("out0", side.backend.format(host)) for host in BACKEND_MACS),
        ):
            peer.run(f"ip address replace {address}/{prefix} dev {device}-peer{more}")
        peer.run(f"ip route replace {side.vip} via {side.own}")
        node.run(f"ip neighbour replace {side.backend.format(12)} lladdr {BACKEND_MAC} dev out0 nud permanent")
    links = [attach_pass(peer, f"{device}-peer") for device in MACS]
    yield rig
    for link in links:
        os.close(link)
    for device in MACS:
        peer.run(f"sysctl -qw net.ipv6.conf.{device}-peer.disable_ipv6=1")
    for side in SIDES.values():
        node.run(f"ip neighbour replace {side.backend.format(12)} lladdr {BACKEND_MACS[12]} dev out0 nud permanent")


@contextlib.contextmanager
def backends(rig, version, protocol):
    """Backends that answer with their own address and what they were told."""
    stop = threading.Event()
    threads = []
    with contextlib.ExitStack() as stack:
        for host in BACKEND_MACS:
            address = SIDES[version].backend.format(host)
            with rig.peer:
                server = stack.enter_context(socket.socket(FAMILIES[version], TYPES[protocol]))
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind((address, 8080))
            server.settimeout(0.1)
            if protocol == "tcp":
                server.listen(ROUNDS)
            serve = serve_tcp if protocol == "tcp" else serve_udp
            threads.append(threading.Thread(target=serve, args=(server, address.encode(), stop)))
            threads[-1].start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def serve_tcp(server, name, stop):
    while not stop.is_set():
        with contextlib.suppress(socket.timeout):
            connection, _ = server.accept()
            with connection:
                connection.settimeout(5)
                connection.sendall(name + b" " + connection.recv(100))


def serve_udp(server, name, stop):
    while not stop.is_set():
        with contextlib.suppress(socket.timeout):
            data, client = server.recvfrom(100)
            server.sendto(name + b" " + data, client)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_requests_are_answered_by_the_backend_of_their_slot(wire, version, protocol):
    side = SIDES[version]
    answers, predicted = [], []
    with backends(wire, version, protocol):
        for number in range(ROUNDS):
            with wire.peer, socket.socket(FAMILIES[version], TYPES[protocol]) as client:
                client.settimeout(5)
                client.bind((side.client, 0))
                client.connect((side.vip, WEB))
                client.sendall(b"%d" % number)
                answers.append(client.recv(100))
                port = client.getsockname()[1]
            slot = slot_hash(side.client, port, WEB, PROTOCOLS[protocol]) % TABLE_SIZE
            predicted.append(f"{side.backend.format(11 + slot % 2)} {number}".encode())
    assert answers == predicted


@pytest.mark.parametrize("version", [4, 6])
def test_vip_answers_ping(wire, version):
    assert "3 received" in wire.peer.run(f"ping -c 3 -i 0.01 -W 2 {SIDES[version].vip}")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_service_without_backends_refuses(wire, version, protocol):
    def ask():
        with wire.peer, socket.socket(FAMILIES[version], TYPES[protocol]) as client:
            client.settimeout(5)
            client.connect((SIDES[version].vip, EMPTY))
            client.send(b"x")
            client.recv(1)

    with pytest.raises(ConnectionRefusedError):
        ask()

"""A load balancer between a client and a backend, set up by the executor's own stages from a document.

    client 10.8.0.2 eth0 ------ eth0 10.8.0.1 node 10.9.0.1 eth1 ------ eth0 10.9.0.2 backend
           fd08::2                   fd08::1       fd09::1                   fd09::2

Addresses are on devices of the test's choice: it may want them on VLANs.
"""

import os
import socket
import struct
import threading
from contextlib import contextmanager

from datapath.compile import compile_state, targets
from datapath.kernel import Kernel
from datapath.plan import plan
from datapath.sources.merge import merge as merge_health
from datapath.spec.document import merge
from datapath.state.model import DesiredState
from netns.topology import NetNS, attach_pass, kernel_at_least, veth, wait_for

OPTIONS = {"datapath-snat-port-range": "1024-9999", "bpf-lb-maglev-table-size": 251}
PORT = 8080
VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}
BACKEND = {4: "10.9.0.2", 6: "fd09::2"}
SIDES = (("client", "eth0", 8, 2), ("node", "eth0", 8, 1), ("node", "eth1", 9, 1), ("backend", "eth0", 9, 2))
"""(namespace, device, network, host) of each end of a link."""


def reach(kernel, document):
    """Have the kernel hold what a document asks for, and nothing that another asked for; returns what it then holds."""
    merged = merge_health(merge(DesiredState(), document))
    have = kernel.read()
    facts = kernel.facts(None, targets(merged), probe_native=True)
    want = compile_state(merged, facts, have, kernel.build_id()).state
    kernel.execute(plan(want, have).operations)
    reached = kernel.read()
    assert plan(want, reached).operations == ()
    return reached


class Balanced:
    """The three namespaces and what executors made of them."""

    def __init__(self, pins):
        self.client, self.node, self.backend = NetNS(), NetNS(), NetNS()
        veth(self.client, "eth0", self.node, "eth0")
        veth(self.node, "eth1", self.backend, "eth0")
        # The load balancer leaves replies of direct server return to the node's stack, which forwards IPv6 only so.
        self.node.run("sysctl -qw net.ipv6.conf.all.forwarding=1")
        ends = () if kernel_at_least(5, 13) else (self.client, self.backend)
        self._links = [attach_pass(namespace, "eth0") for namespace in ends]
        self._pins = pins

    def close(self):
        for link in self._links:
            os.close(link)
        for namespace in (self.client, self.node, self.backend):
            namespace.close()

    def address(self, device_of):
        """Give all ends their addresses; `device_of` makes of an end (namespace, device, network) the device's name."""
        for side, device, net, host in SIDES:
            namespace = getattr(self, side)
            name = device_of(namespace, device, net)
            namespace.run(f"ip address add 10.{net}.0.{host}/24 dev {name}")
            namespace.run(f"ip address add fd0{net}::{host}/64 dev {name} nodad")
        for net, namespace in ((8, self.client), (9, self.backend)):
            namespace.run(f"ip route add default via 10.{net}.0.1")
            namespace.run(f"ip -6 route add default via fd0{net}::1")

    def apply(self, document, side="node"):
        """Have the executor of one side hold a document; returns what its kernel then has."""
        with getattr(self, side):
            return reach(Kernel(self._pins / side), document)


def services_of(version):
    """The VIP's port 80, by TCP and by UDP."""
    end = "{}" if version == 4 else "[{}]"
    vip, backend = end.format(VIPS[version]), end.format(BACKEND[version])
    return [(f"{vip}:80/{kind}", f"{backend}:{PORT}") for kind in ("TCP", "UDP")]


def document(services, **options):
    """`services`: [(frontend, backend)], ADDR:PORT/PROTO each."""
    items = [
        {"name": f"s{number}", "frontends": [frontend], "backends": [backend]}
        for number, (frontend, backend) in enumerate(services)
    ]
    values = {**OPTIONS, **{name.replace("_", "-"): value for name, value in options.items()}}
    return {"options": {"config": values}, "services": {"items": items}}


@contextmanager
def echo(namespace, address):
    """Servers on PORT that send back what they get, by TCP and UDP; yields nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace:
        stream, datagrams = (socket.socket(family, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))
    with stream, datagrams:
        for opened in (stream, datagrams):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((address, PORT))
        stream.listen()
        jobs = (_accept, stream), (_answer, datagrams)
        # A connection that broke down may hold the first one for ever.
        threads = [threading.Thread(target=work, args=(opened,), daemon=True) for work, opened in jobs]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stream.shutdown(socket.SHUT_RDWR)
            with namespace, socket.socket(family, socket.SOCK_DGRAM) as waker:
                waker.sendto(b"", (address, PORT))
            for thread in threads:
                thread.join(1)


def _accept(stream):
    while True:
        try:
            connection, _ = stream.accept()
        except OSError:
            return
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)


def _answer(datagrams):
    while True:
        data, sender = datagrams.recvfrom(65536)
        if not data:
            return
        datagrams.sendto(data, sender)


def transfer(namespace, address, port, data):
    """Have TCP data sent back; returns the segment size of the way there."""
    with namespace, wait_for(lambda: _connected(address, port), 10, "a connection") as connection:
        writer = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
        writer.start()
        received = bytearray()
        while part := connection.recv(65536):
            received += part
        writer.join()
        assert received == data
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return struct.unpack_from("I", info, 16)[0]


def _connected(address, port):
    try:
        return socket.create_connection((address, port), timeout=5)
    except OSError:
        return None


def datagram(namespace, address, port, size):
    """Have a datagram sent back that may not be fragmented."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace:
        client = socket.socket(family, socket.SOCK_DGRAM)
    with client:
        if family == socket.AF_INET:
            client.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        client.settimeout(0.5)
        client.connect((address, port))
        data = bytes(number & 255 for number in range(size))

        def asked():
            client.send(data)
            try:
                return client.recv(65536)
            except TimeoutError:
                return None

        assert wait_for(asked, 10, "an answer") == data

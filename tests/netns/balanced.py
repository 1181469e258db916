"""A load balancer between a client and a backend, set up by the executor's own stages from a document.

    client eth0 ------ eth0 node eth1 ------ eth0 backend

Addresses are the test's: it may want them on VLANs.
"""

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
from netns.topology import NetNS, veth, wait_for

OPTIONS = {"datapath-snat-port-range": "1024-9999", "bpf-lb-maglev-table-size": 251}
PORT = 8080


class Balanced:
    """The three namespaces and what the executor made of the middle one."""

    def __init__(self, pins):
        self.client, self.node, self.backend = NetNS(), NetNS(), NetNS()
        veth(self.client, "eth0", self.node, "eth0")
        veth(self.node, "eth1", self.backend, "eth0")
        self._pins = pins

    def close(self):
        for namespace in (self.client, self.node, self.backend):
            namespace.close()

    def apply(self, namespace, document, name="node"):
        """Have an executor of that namespace hold a document; returns what the kernel then has."""
        with namespace:
            kernel = Kernel(self._pins / name)
            merged = merge_health(merge(DesiredState(), document), {})
            have = kernel.read()
            facts = kernel.facts(None, targets(merged), probe_native=True)
            want = compile_state(merged, facts, have, kernel.build_id()).state
            kernel.execute(plan(want, have).operations)
            reached = kernel.read()
            assert plan(want, reached).operations == ()
        return reached


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
        threads = [
            threading.Thread(target=work, args=(opened,)) for work, opened in ((_accept, stream), (_answer, datagrams))
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stream.shutdown(socket.SHUT_RDWR)
            with namespace, socket.socket(family, socket.SOCK_DGRAM) as waker:
                waker.sendto(b"", (address, PORT))
            for thread in threads:
                thread.join()


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

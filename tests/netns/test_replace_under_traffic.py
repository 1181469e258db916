"""The load balancer's program is replaced, resized and restarted under traffic: every packet meets a program.

sender 10.9.0.2 eth0 ------ eth0 10.9.0.1 node (XDP, native) -> UDP receiver
"""

import socket
import struct
import threading
from pathlib import Path

import pytest

from datapath.compile import layouts
from datapath.kernel import Kernel, ObjectSource
from datapath.kernel.errors import KernelError
from datapath.plan.operations import PrepareMaps, SwapLoadBalancer
from netns.topology import NetNS, bpffs, compile_object, veth, wait_for

SOURCES = Path(__file__).parents[1] / "unit" / "kernel" / "objects"
LENGTH = 14 + 20 + 8 + 58
"""Of our frames; nothing else on this wire has it."""


SO_RCVBUFFORCE = 33


class Traffic:
    """Sends UDP datagrams until told to stop, a window of 64 at a time, so that no queue overflows."""

    def __init__(self, node, sender):
        with node:
            self.receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.receiver.bind(("10.9.0.1", 9000))
            # A window of frames, each of which takes a page behind native XDP.
            self.receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
            self.receiver.settimeout(1)
        with sender:
            self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sent = self.received = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._work)

    def _work(self):
        while not self.stopping.is_set():
            for _ in range(64):
                self.sender.sendto(bytes(58), ("10.9.0.1", 9000))
            self.sent += 64
            try:
                while self.received < self.sent:
                    self.receiver.recv(100)
                    self.received += 1
            except TimeoutError:
                return

    def __enter__(self):
        self.thread.start()
        wait_for(lambda: self.received > 500, what="traffic")
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        self.sender.close()
        self.receiver.close()


@pytest.fixture
def topology(tmp_path):
    node, sender = NetNS(), NetNS()
    veth(node, "eth0", sender, "eth0")
    node.run("ip address add 10.9.0.1/24 dev eth0")
    sender.run("ip address add 10.9.0.2/24 dev eth0")
    # Only our datagrams shall be on the wire.
    for namespace in (node, sender):
        namespace.run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1")
    objects = tmp_path / "objects"
    objects.mkdir()
    for name in ("xdp_lb", "tc_lb"):
        compile_object(SOURCES / f"{name}.bpf.c", objects).rename(objects / f"{name}.bpf.o")
    with bpffs(tmp_path / "bpf") as mounted, node:
        yield Kernel(mounted / "datapath", ObjectSource(objects)), node, sender
    node.close()
    sender.close()


def config(outcome=0, broken=0, table_size=251, verdict=2):
    return struct.pack("=4I", verdict, outcome, broken, table_size)


def test_every_packet_meets_the_old_or_the_new_program(topology):
    kernel, node, sender = topology
    kernel.execute([PrepareMaps({}, 251), SwapLoadBalancer(config(), {"eth0": "native"})])
    node.run("ping -c 1 -W 2 10.9.0.2")
    with Traffic(node, sender) as traffic:
        for number in range(100):
            kernel.execute([SwapLoadBalancer(config(outcome=number % 4), {"eth0": "native"})])
    assert traffic.sent == traffic.received
    counts = kernel.counters(layouts.OUTCOMES)
    assert len(counts) == 4
    packets = sum(packets for packets, _ in counts.values())
    # ping and ARP besides: a handful, and each counted once.
    assert 0 <= packets - traffic.sent < 20


def test_refused_programs_and_resizes_lose_nothing(topology):
    kernel, node, sender = topology
    kernel.execute([PrepareMaps({}, 251), SwapLoadBalancer(config(), {"eth0": "native"})])
    flows = [(number.to_bytes(4, "little"), bytes(8)) for number in range(500)]
    kernel._maps.put(layouts.FLOWS_TCP, flows)
    with Traffic(node, sender) as traffic:
        for number in range(20):
            sizes = {layouts.SERVICES: 10 + number, layouts.FLOWS_TCP: 8192 + number % 2 * 8192}
            table_size = 251 if number % 2 else 509
            kernel.execute(
                [PrepareMaps(sizes, table_size), SwapLoadBalancer(config(table_size=table_size), {"eth0": "native"})]
            )
            with pytest.raises(KernelError):
                kernel.execute([SwapLoadBalancer(config(broken=1, table_size=table_size), {"eth0": "native"})])
    assert traffic.sent == traffic.received
    assert dict(kernel._maps.entries(layouts.FLOWS_TCP)) == dict(flows)
    assert kernel.read().load_balancer.foreign == {}


def test_between_xdp_and_tc_every_packet_meets_a_program(topology):
    """Generic XDP: a native one's coming and going resets the queues of a veth."""
    kernel, node, sender = topology
    # The verdict that lets packets through.
    hooks = [("generic", 2), ("tc", 0)]
    mode, verdict = hooks[0]
    kernel.execute([PrepareMaps({}, 251), SwapLoadBalancer(config(verdict=verdict), {"eth0": mode})])
    with Traffic(node, sender) as traffic:
        for number in range(1, 60):
            mode, verdict = hooks[number % 2]
            kernel.execute([SwapLoadBalancer(config(verdict=verdict), {"eth0": mode})])
    assert traffic.sent == traffic.received
    packets = sum(packets for packets, _ in kernel.counters(layouts.OUTCOMES).values())
    # While both are attached a packet meets both.
    assert packets >= traffic.sent
    have = kernel.read().load_balancer
    assert (dict(have.attachments), have.foreign) == ({"eth0": "tc"}, {})

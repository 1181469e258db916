"""Traffic by iperf3, what of it arrives, and how long small requests take meanwhile."""

import contextlib
import math
import os
import selectors
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from netns.topology import wait_for

_HEADERS = 14 + 20 + 20 + 12
"""Ethernet, IPv4, TCP with timestamps."""
_PAYLOAD = 1500 - 20 - 20 - 12
_QUIET = 0.3
_APART = 0.01
"""Seconds that counters and the time of a sample may be apart."""
LEAST, MOST = 0.95, 1.05
"""Of a rate that is set."""
_REQUEST = struct.Struct("=I60s")
"""Its number, and padding."""


@dataclass(frozen=True)
class Sample:
    """Counters of a device."""

    when: float
    packets: int
    bytes: int


def tcp_rate(before, after):
    """Bits a second of whole frames.

    A packet that stands for many (GSO) is counted with one header; on a wire each of its frames has one. Bulk TCP fills
    them.
    """
    payload = (after.bytes - before.bytes) - (after.packets - before.packets) * _HEADERS
    return payload * (_PAYLOAD + _HEADERS) / _PAYLOAD * 8 / (after.when - before.when)


def rate(before, after):
    """Bits a second, where each packet is one frame."""
    return (after.bytes - before.bytes) * 8 / (after.when - before.when)


def reaching(measure, enough, attempts=3):
    """What `measure` finds, again where that is not enough.

    An emulated machine that others keep from running sends less, and has nothing to make up for it with.
    """
    for _ in range(attempts):
        found = measure()
        if enough(found):
            break
    return found


class Received:
    """What eth0 of a namespace got; without a command, which would take as long as many packets."""

    def __init__(self, namespace):
        with namespace:
            self._file = os.open("/proc/thread-self/net/dev", os.O_RDONLY)

    def close(self):
        os.close(self._file)

    def read(self):
        # Counters and a clock that others came between would make a rate that never was.
        taken = _APART
        while taken >= _APART:
            begin = time.monotonic()
            raw = os.pread(self._file, 4096, 0)
            when = time.monotonic()
            taken = when - begin
        lines = raw.decode().splitlines()
        (words,) = [line.split(":")[1].split() for line in lines if line.strip().startswith("eth0:")]
        return Sample(when, int(words[1]), int(words[0]))

    def idle(self):
        before = self.read()
        time.sleep(_QUIET)
        return self.read().packets - before.packets <= 2

    def over(self, seconds):
        """Samples at both ends of a time."""
        before = self.read()
        time.sleep(seconds)
        return before, self.read()


def retransmitted(namespace):
    """TCP segments that a namespace sent again so far."""
    with namespace:
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = [line.split() for line in lines if line.startswith("Tcp:")]
    return int(values[names.index("RetransSegs")])


@contextlib.contextmanager
def iperf(node, name, *options):
    """iperf3 from an endpoint to its peer, under way, until the block ends."""
    peer, container, received = node.peers[name], node.containers[name], node.received[name]
    server = peer.start("iperf3", "-s", "--forceflush", stdout=subprocess.PIPE, text=True)
    sender = None
    try:
        assert any("listening" in line for line in server.stdout)
        before = received.read().packets
        command = ("iperf3", "-c", node.addresses[name], "-t", "600", *options)
        sender = container.start(*command, stdout=subprocess.DEVNULL)
        wait_for(lambda: received.read().packets > before + 100, 20, "traffic of iperf3")
        yield
        assert sender.poll() is None, "iperf3 ended early"
    finally:
        # The receiver first: what senders have left is worth nothing then, and they stop at once.
        for process in filter(None, (server, sender)):
            process.kill()
            process.wait()
        server.stdout.close()


@dataclass
class Requests:
    """Small UDP requests of an endpoint, which its peer answers."""

    client: socket.socket
    server: socket.socket
    sent: list[float] = field(default_factory=list)
    seconds: dict[int, float] = field(default_factory=dict)
    """Of those that were answered, by their number."""

    def send(self):
        self.sent.append(time.monotonic())
        # A socket whose queue is full loses the request as a network would.
        with contextlib.suppress(BlockingIOError):
            self.client.send(_REQUEST.pack(len(self.sent) - 1, b""))

    def answer(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                message, sender = self.server.recvfrom(_REQUEST.size)
                self.server.sendto(message, sender)

    def take(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                number, _ = _REQUEST.unpack(self.client.recv(_REQUEST.size))
                self.seconds.setdefault(number, time.monotonic() - self.sent[number])

    @property
    def lost(self):
        return len(self.sent) - len(self.seconds)

    def percentile(self, share):
        """Seconds; infinite where that one was lost."""
        ordered = sorted(self.seconds.values()) + [math.inf] * self.lost
        return ordered[math.ceil(share * len(ordered)) - 1]


@contextlib.contextmanager
def requests(node, name):
    """Sockets for requests of an endpoint."""
    with node.peers[name]:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with node.containers[name]:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind(("0.0.0.0", 7))
        client.connect((node.addresses[name], 7))
        server.setblocking(False)
        client.setblocking(False)
        yield Requests(client, server)


EVERY = 0.02
"""Seconds between requests: sent by the clock, whatever became of those before."""


def ask(all_requests, more, patience):
    """Send requests of each while `more()`, and wait for answers, not longer than `patience` after the last one.

    One thread does both sides, before all others on the CPU: what the kernel does with packets is measured, and not
    whose turn it is.
    """
    with selectors.DefaultSelector() as selector, _at_once():
        for one in all_requests:
            selector.register(one.server, selectors.EVENT_READ, one.answer)
            selector.register(one.client, selectors.EVENT_READ, one.take)
        due = time.monotonic()
        while more():
            for one in all_requests:
                one.send()
            # A machine that stood still does not make up for it.
            due = max(due + EVERY, time.monotonic())
            _serve(selector, lambda due=due: time.monotonic() >= due, due)
        end = time.monotonic() + patience
        _serve(selector, lambda: time.monotonic() >= end or not any(one.lost for one in all_requests), end)


@contextlib.contextmanager
def _at_once():
    """Have this thread run as soon as there is something to do for it."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _serve(selector, done, until):
    while not done():
        for key, _ in selector.select(max(0.0, until - time.monotonic())):
            key.data()

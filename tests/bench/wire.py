"""Frames a second on a veth: the load balancer beside yardsticks and what the kernel itself has, in the same rounds.

Each has namespaces of its own (`live.Forwarder`) and gets its frames by `out0`, by which it sends them on as well, as a
load balancer with a single network card. What the frames cost on the way is in all figures.
"""

import os
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import frames, live
from bench.cases import MANY
from bench.node import BACKENDS, VIP, backend, make_namespaces
from bench.report import KERNEL, NFT, PRODUCT, PRODUCT_TC, SLB
from bench.wrapper import Order

DEVICE = "out0"
DISPATCH = "ipip"
ENCAPSULATED = (SLB, PRODUCT, PRODUCT_TC)
TUNNEL = 20
"""Bytes of the outer IPv4 header."""
ONE_CORE, OWN_CORE = "wire, all on one core", "wire, generator on another core"
FLOWS = {1: "one flow", MANY: "128k flows at random"}
GOALS = {1: (0.85, 4), MANY: (0.80, 4)}
"""Flows -> least shares of the frames of the stateless load balancer, and of nft's, that the load balancer forwards."""
FRAMES = 2
"""Frames of a sample, in those of a sample of the packet cases."""
WARM = 10_000
CONNTRACK = Path("/proc/sys/net/netfilter/nf_conntrack_max")
FORWARDING = {
    "ip_forward": 1,
    # Requests come by another device than the one that leads to clients, and leave by that which they came by.
    "conf.all.rp_filter": 0,
    f"conf.{DEVICE}.rp_filter": 0,
    "conf.all.send_redirects": 0,
    f"conf.{DEVICE}.send_redirects": 0,
}
RULES = """
table ip balance {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr {vip} udp dport 80 dnat to jhash ip saddr . udp sport mod {count} map {{ {backends} }}
    }}
}}
"""


class WireError(AssertionError):
    """Frames were lost, or are not what they have to be."""


@dataclass
class Result:
    """Samples of one forwarder with one kind of traffic."""

    name: str
    cores: str
    flows: int
    traffic: str
    samples: list[live.Sample] = field(default_factory=list)


@contextmanager
def yardstick(target):
    """A forwarder with nothing but a program, `measure.Target`."""
    with namespaces(target.name) as made, ExitStack() as stack:
        with made.namespace:
            stack.enter_context(live.attached(target.program, DEVICE))
        yield made


@contextmanager
def kernel():
    """The kernel's forwarding: one route, one next hop."""
    with namespaces(KERNEL) as made:
        _forwarding(made.namespace)
        made.namespace.run(f"ip route add {VIP[4]}/32 via {backend(4, BACKENDS[0])} dev {DEVICE}")
        yield made


@contextmanager
def nft():
    """DNAT to 100 backends by a hash of the source, with conntrack. MissingError where there is none."""
    try:
        room = int(CONNTRACK.read_text())
    except OSError as e:
        raise live.MissingError(f"{NFT}: {e}") from e
    if room < MANY:
        raise live.MissingError(f"{NFT}: nf_conntrack_max is {room}")
    with namespaces(NFT) as made:
        _forwarding(made.namespace)
        chosen = ", ".join(f"{slot} : {backend(4, number)}" for slot, number in enumerate(BACKENDS))
        rules = RULES.format(backends=chosen, vip=VIP[4], count=len(BACKENDS))
        with made.namespace:
            try:
                subprocess.run(("nft", "-f", "-"), input=rules, text=True, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as e:
                raise live.MissingError(f"{NFT}: {getattr(e, 'stderr', None) or e}") from e
            # Flows of a case stay known while the others have their turn.
            Path("/proc/sys/net/netfilter/nf_conntrack_udp_timeout").write_text("600")
        yield made


@contextmanager
def namespaces(name):
    namespace, peer = make_namespaces()
    try:
        yield live.Forwarder(name, namespace, peer)
    finally:
        namespace.close()
        peer.close()


def _forwarding(namespace):
    for name, value in FORWARDING.items():
        namespace.run(f"sysctl -q -w net.ipv4.{name}={value}")


class Rounds:
    """Measures forwarders beside each other."""

    def __init__(self, generator, forwarders, effort):
        self.generator = generator
        self.forwarders = forwarders
        self.rounds = effort.rounds
        self.frames = FRAMES * effort.repeat

    def measured(self, cores, kinds=tuple(FLOWS), clocks=None):
        """A `Result` for each forwarder and number of flows; `clocks` tells the seconds of a core of its own."""
        found = []
        for flows in kinds:
            results = {each.name: Result(each.name, cores, flows, FLOWS[flows]) for each in self.forwarders}
            for _ in range(self.rounds):
                for each in self.forwarders:
                    results[each.name].samples.append(self._sample(each, flows, clocks))
            found += results.values()
        return found

    def _sample(self, forwarder, flows, clocks):
        traffic = partial(forwarder.requests, DEVICE, frames.datagram(DEVICE), flows=flows)
        how = {"window": live.WINDOW, "clock": clocks[forwarder.name] if clocks else time.thread_time}
        # Caches are filled, connections tracked: as they are while traffic flows.
        self.generator.send(forwarder, traffic(order=Order.SEQUENTIAL), max(flows, WARM), **how)
        sample = self.generator.send(forwarder, traffic(order=Order.MIXED), self.frames, **how)
        length = len(frames.datagram(DEVICE)) + (TUNNEL if forwarder.name in ENCAPSULATED else 0)
        # The namespaces' own devices say a word now and then.
        if sample.counted < sample.sent * 0.999 or abs(sample.bytes / (sample.counted * length) - 1) > 0.01:
            raise WireError(f"{forwarder.name}: of frames of {length} bytes came {sample}")
        return sample


@contextmanager
def own_core(forwarders, cpu, others):
    """Each forwarder's NAPI as a thread on `cpu`, this one on `others`; name -> that thread's clock, in seconds.

    MissingError where there is no other CPU or the kernel (before 5.12) has no such threads.
    """
    if not others:
        raise live.MissingError(f"{OWN_CORE}: there is only one CPU")
    affinity = os.sched_getaffinity(0)
    with ExitStack() as stack:
        clocks = {}
        for each in forwarders:
            thread = stack.enter_context(_threaded(each.namespace))
            os.sched_setaffinity(thread, {cpu})
            clocks[each.name] = partial(live.thread_seconds, thread)
        os.sched_setaffinity(0, others)
        stack.callback(os.sched_setaffinity, 0, affinity)
        yield clocks


@contextmanager
def _threaded(namespace):
    """The id of the thread that polls the device while the block runs."""
    before = live.napi_threads()
    try:
        _switch_threads(namespace, 1)
    except (OSError, subprocess.CalledProcessError) as e:
        raise live.MissingError(f"{OWN_CORE}: {e}") from e
    try:
        new = live.napi_threads() - before
        if len(new) != 1:
            raise live.MissingError(f"{OWN_CORE}: {len(new)} threads poll {DEVICE}")
        yield new.pop()
    finally:
        _switch_threads(namespace, 0)


def _switch_threads(namespace, on):
    # sysfs shows the devices of the namespace that it is mounted in.
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, namespace:
        subprocess.run(("mount", "-t", "sysfs", "sysfs", directory), check=True)
        try:
            Path(directory, "class/net", DEVICE, "threaded").write_text(str(on))
        finally:
            subprocess.run(("umount", "-l", directory), check=True)


@contextmanager
def peers(tell):
    """What the kernel has itself; `tell` hears what cannot be had."""
    with ExitStack() as stack:
        found = [stack.enter_context(kernel())]
        try:
            found.append(stack.enter_context(nft()))
        except live.MissingError as e:
            tell(str(e))
        yield found

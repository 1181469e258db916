"""The executor's own work: tables, changes of health, apply."""

import contextlib
import ipaddress
import statistics
import time
from dataclasses import dataclass
from typing import Optional

from bench.node import agent_in, make_namespaces
from datapath.compile import maglev
from datapath.plan.operations import PutLut
from datapath.state.merged import HealthKey
from datapath.state.model import Backend, Protocol

SEED = 0x5EED
BACKENDS_EACH = 10
POOL = 100
"""Addresses that the backends of all services share; ports tell services apart."""
TABLES = ((16381, 100, 2), (65521, 1000, 10))
"""(slots, backends, goal in milliseconds)"""


@dataclass(frozen=True)
class Duration:
    """Samples of one job: (wall clock, this process' CPU time), in milliseconds."""

    name: str
    samples: tuple[tuple[float, float], ...]
    writes: Optional[int] = None
    """System calls that wrote maps, of one run."""
    goal: Optional[float] = None

    @property
    def minimum(self):
        return min(wall for wall, _ in self.samples)

    @property
    def median(self):
        return statistics.median(wall for wall, _ in self.samples)

    @property
    def cpu(self):
        """The least that one round took: what others on the machine do disturbs it least."""
        return min(cpu for _, cpu in self.samples)


def timed(job, rounds, prepare=lambda: None):
    """Samples of `rounds` runs of `job`; `prepare` goes before each."""
    samples = []
    for _ in range(rounds):
        prepare()
        wall, cpu = time.perf_counter(), time.process_time()
        job()
        samples.append(((time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000))
    return tuple(samples)


def members(count):
    found = []
    for number in range(count):
        backend = Backend(ipaddress.IPv4Address(f"10.{number >> 8}.{number & 255}.1"), 8080)
        found.append(maglev.Member(maglev.hash_string(backend, Protocol.TCP), 100, number + 1))
    return found


def tables(rounds):
    """Computing Maglev tables, hashes of the backends known and not."""
    for size, count, goal in TABLES:
        chosen = members(count)
        for name, prepare in (("", lambda: None), (", backends never seen", maglev._hashes.cache_clear)):
            job = timed(lambda: maglev.table(chosen, size, SEED), rounds, prepare)  # noqa: B023 - runs at once
            yield Duration(f"Maglev table {size} x {count}{name}: compute", job, goal=goal)


def document(count):
    """`count` services of 10 backends each, all with health checks."""
    pool = [str(ipaddress.IPv4Address("10.0.1.101") + number) for number in range(POOL)]
    items = [
        {
            "name": f"service{number}",
            "frontends": [f"{ipaddress.IPv4Address('192.0.2.1') + number % 250}:{80 + number // 250}/TCP"],
            "backends": [
                f"{pool[(number + each) % POOL]}:{1024 + number + each // POOL}" for each in range(BACKENDS_EACH)
            ],
            "health_check": {"type": "tcp", "interval": "10s", "timeout": "1s"},
        }
        for number in range(count)
    ]
    values = {"algorithm": "maglev", "devices": ["in0", "out0"], "ct_tcp_max": 4096, "ct_any_max": 4096}
    return {"options": {"values": values}, "services": {"items": items, "purge": True}}


@contextlib.contextmanager
def agent():
    namespace, peer = make_namespaces()
    try:
        with agent_in(namespace) as made:
            yield made
    finally:
        namespace.close()
        peer.close()


def state(count, rounds):
    """Apply, nothing to apply, a change of health, a push of a table."""
    wanted = document(count)
    with agent() as one:
        reports = []
        took = timed(lambda: reports.append(one.apply(wanted)), 1)
        name = f"apply of {count} services x {BACKENDS_EACH} backends, from nothing"
        yield Duration(name, took, reports[0].map_writes)
        again = one.apply(wanted)
        assert not again.rows, again.rows[:3]
        same = timed(lambda: one.apply(wanted), max(2, rounds // 4))
        yield Duration(f"the same again: nothing to change, of {count} services", same, again.map_writes)
        key = HealthKey("service7", ipaddress.ip_address("10.0.1.108"), 1031)
        health = {"healthy": True}

        def flip():
            health["healthy"] = not health["healthy"]
            one.health_changed({key: health["healthy"]})

        writes = one.kernel.map_writes
        flips = timed(flip, 2 * max(rounds, 2))
        per_flip = (one.kernel.map_writes - writes) // len(flips)
        assert per_flip > 0
        yield Duration(f"one backend changes health, among {count} services", flips, per_flip, 20)
        table = maglev.table(members(POOL), 16381, SEED).tobytes()
        push = timed(lambda: one.kernel.execute([PutLut(1, table)]), rounds)
        yield Duration("a table of 16381 slots to the kernel", push, 1)


def measured(count, rounds):
    """All rows."""
    return [*tables(rounds), *state(count, rounds)]

"""Health checks of backends, and what is known of their health.

A backend that nothing is known about counts as healthy until `fall` checks in a row failed: a load balancer that
starts beside working backends must not answer "nobody" first. A backend that is known to be unhealthy stays so,
over restarts of the daemon too (`HealthMemory`), until `rise` checks in a row succeeded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import random
import time
from collections.abc import Awaitable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Union

from datapath.sources import checks
from datapath.sources.batches import Batches
from datapath.sources.store import write_atomic
from datapath.state.merged import HealthKey
from datapath.state.model import HealthCheck, Service

log = logging.getLogger(__name__)

Deliver = Callable[[Mapping[HealthKey, bool]], Awaitable[None]]


@dataclass(frozen=True)
class Target:
    """A backend to be checked."""

    key: HealthKey
    check: HealthCheck


@dataclass(frozen=True)
class HealthResult:
    """What is known about a backend."""

    healthy: bool
    reason: str
    """Of the last check that did not succeed, while that is the last one."""
    since: float
    """When `healthy` took its value, in seconds since the epoch."""
    checked: Optional[float]
    """When the last check ended, in seconds since the epoch; None before the first."""
    streak: int
    """Checks in a row that contradict `healthy`."""


def targets(services: Iterable[Service]) -> list[Target]:
    """What is to be checked: every backend of every service that has a health check."""
    return [
        Target(HealthKey(service.name, backend.address, backend.port), service.health_check)
        for service in services
        if service.health_check is not None
        for backend in service.backends
    ]


class Judge:
    """Turns answers of single checks into health: `fall` failures make unhealthy, `rise` successes healthy."""

    __slots__ = ("healthy", "streak")

    def __init__(self, healthy: bool = True) -> None:
        self.healthy = healthy
        self.streak = 0

    def observe(self, answer: bool, check: HealthCheck) -> bool:
        """Take one answer; True when `healthy` changed by it."""
        if answer == self.healthy:
            self.streak = 0
            return False
        self.streak += 1
        if self.streak < (check.fall if self.healthy else check.rise):
            return False
        self.healthy = answer
        self.streak = 0
        return True


class _Watch:
    """One backend under check: a timer for the next start and the attempt under way, nothing else."""

    __slots__ = ("attempt", "checked", "judge", "next_start", "reason", "since", "target", "timer")

    def __init__(self, target: Target, judge: Judge) -> None:
        self.target = target
        self.judge = judge
        self.since = time.time()
        self.checked: Optional[float] = None
        self.reason = ""
        self.next_start = 0.0
        self.timer: Optional[asyncio.TimerHandle] = None
        self.attempt: Optional[Union[checks.TcpAttempt, checks.HttpAttempt]] = None

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.attempt is not None:
            self.attempt.cancel()
            self.attempt = None


class HealthChecker:
    """Checks all targets on the running event loop and delivers changes of health in batches.

    Neither a task nor a thread per backend: starts are timers, spread over the interval, so that thousands of
    targets cost their system calls and the API is served in between.
    """

    def __init__(self) -> None:
        self._watches: dict[HealthKey, _Watch] = {}
        self._batches: Batches[HealthKey, bool] = Batches()
        self._clients = checks.HttpClients()

    def update(self, wanted: Iterable[Target], unhealthy: Container[HealthKey] = ()) -> None:
        """Check these targets from now on; what is known about those that stay is kept, new ones start as told."""
        # A new dictionary, complete before it is seen: `results` may run in another thread.
        old, new = dict(self._watches), {}
        for target in wanted:
            watch = old.pop(target.key, None)
            if watch is None:
                watch = _Watch(target, Judge(healthy=target.key not in unhealthy))
                self._schedule_first(watch)
            elif watch.target.check != target.check:
                watch.stop()
                watch.target = target
                watch.judge.streak = 0
                self._schedule_first(watch)
            new[target.key] = watch
        self._watches = new
        for key, watch in old.items():
            watch.stop()
            self._batches.waiting.pop(key, None)

    def results(self) -> dict[HealthKey, HealthResult]:
        """What is known now."""
        return {
            key: HealthResult(watch.judge.healthy, watch.reason, watch.since, watch.checked, watch.judge.streak)
            for key, watch in self._watches.items()
        }

    async def run(self, deliver: Deliver) -> None:
        """Deliver changes until cancelled."""
        try:
            await self._batches.run(deliver)
        finally:
            for watch in self._watches.values():
                watch.stop()
            await self._clients.close()

    def _schedule_first(self, watch: _Watch) -> None:
        loop = asyncio.get_running_loop()
        # Spread, or all backends would be checked in one burst each interval.
        watch.next_start = loop.time() + random.uniform(0, watch.target.check.interval)  # noqa: S311
        watch.timer = loop.call_at(watch.next_start, self._start, watch)

    def _start(self, watch: _Watch) -> None:
        loop = asyncio.get_running_loop()
        check, key = watch.target.check, watch.target.key
        # From the planned start, not from now, so that load does not shift the interval; but never a burst of old ones.
        watch.next_start = max(watch.next_start + check.interval, loop.time())
        watch.timer = loop.call_at(watch.next_start, self._start, watch)
        if watch.attempt is not None:
            return

        def done(answer: Optional[bool], reason: str) -> None:
            watch.attempt = None
            self._observe(watch, answer, reason)

        watch.attempt = checks.start(self._clients, check, key.address, key.port, done)

    def _observe(self, watch: _Watch, answer: Optional[bool], reason: str) -> None:
        watch.checked = time.time()
        watch.reason = reason
        if answer is None or not watch.judge.observe(answer, watch.target.check):
            return
        watch.since = watch.checked
        key = watch.target.key
        state = "healthy" if watch.judge.healthy else f"unhealthy: {reason}"
        log.info("service %s, backend %s port %s: %s", key.service, key.address, key.port, state)
        self._batches.waiting[key] = watch.judge.healthy
        self._batches.ready()


class HealthMemory:
    """The unhealthy backends, kept for the next start of the daemon (not over a reboot)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> frozenset[HealthKey]:
        """What was saved last; nothing when there is nothing usable."""
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            return frozenset(HealthKey(name, ipaddress.ip_address(address), int(port)) for name, address, port in rows)
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s: %s; every backend starts as healthy", self.path, error)
            return frozenset()

    def save(self, unhealthy: Iterable[HealthKey]) -> None:
        """Keep these."""
        rows = sorted([key.service, str(key.address), key.port] for key in unhealthy)
        write_atomic(self.path, json.dumps(rows) + "\n", durable=False)

    def remove(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)

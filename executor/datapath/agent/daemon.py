"""`datapathd`: start, converge, check health, follow other clusters and publish, answer, stop.

Forwarding depends on none of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Optional

from datapath import __version__
from datapath.agent import api, notify
from datapath.agent.core import Agent
from datapath.agent.lock import LockedError, WriterLock
from datapath.agent.metrics import Metrics
from datapath.agent.paths import Paths
from datapath.kernel import Kernel, ObjectSource
from datapath.kernel.follow import TICK, Asker, Follower
from datapath.kernel.link_events import LinkEvents, device_indexes
from datapath.kernel.neighbours import known
from datapath.sources.health import HealthChecker, targets
from datapath.sources.mesh.memory import Changes
from datapath.sources.mesh.publication import Publication
from datapath.sources.mesh.source import MeshSource
from datapath.spec.options import effective
from datapath.spec.scalars import split_port
from datapath.state.merged import HealthKey
from datapath.state.model import DesiredState

log = logging.getLogger(__name__)

SWITCH = 0.001
"""Seconds that a thread which computes keeps one that carries out a change waiting: a change takes many such turns."""
RETRY_FIRST, RETRY_LONGEST = 1.0, 60.0
"""Seconds between attempts to converge while something stands against it (a device that is not there yet)."""
FOLLOW_SHARE = 0.01
"""Next hops are looked after as often as costs at most this share of a CPU."""
SETTLE = 0.1
"""Seconds between a change of devices and the look at them."""
COMPARE_EVERY = 60.0
COMPARE_SHARE = 0.0025
"""The kernel is compared with the desired state every minute, or as seldom as it takes to cost this share of a CPU."""
COMPARISONS_LOST = 5
"""Comparisons in a row that changes may come into; then they have to wait for one."""


def run(paths: Paths, debug: bool = False) -> int:
    """Run the agent until it is told to stop; returns the exit code."""
    _set_up_logging(debug)
    sys.setswitchinterval(SWITCH)
    try:
        with WriterLock(paths.lock):
            asyncio.run(_run(paths, debug))
    except LockedError as error:
        log.error("%s", error)  # noqa: TRY400 - the trace would say less than the sentence
        return 1
    return 0


async def _run(paths: Paths, debug: bool) -> None:
    # Made inside the loop: before Python 3.10 an Event belongs to the loop that it was made in.
    await Daemon(paths, debug).run()


class Daemon:
    """The tasks around one `Agent`."""

    def __init__(self, paths: Paths, debug: bool) -> None:
        self._paths = paths
        self._debug = debug
        self._worker = api.Worker()
        self._stop = asyncio.Event()
        self._retry = asyncio.Event()
        self._period_changed = asyncio.Event()
        self._period = effective({})["arping-refresh-period"]
        self._metrics_address: Optional[str] = ""
        """Where metrics are served, "" for nowhere; None when that failed, so that the next apply tries again."""
        self._metrics_listener: Optional[api.Listener] = None
        self._agent: Agent
        self._checker: HealthChecker
        self._mesh: MeshSource
        self._publication: Publication
        self._metrics: Metrics

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, or until a task fails, which ends the daemon."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._retry.set)
        self._agent = await self._worker.change(self._make_agent)
        self._checker = HealthChecker()
        self._agent.health_results = self._checker.results
        self._mesh = MeshSource()
        self._agent.mesh_statuses = self._mesh.statuses
        self._agent.publication = self._publication = Publication()
        self._metrics = Metrics(self._agent)
        app = api.application(self._worker, self._agent, self._metrics, self._follow)
        listener = api.Listener(app, api.bind_unix(self._paths.socket))
        log.info("datapathd %s listens on %s", __version__, self._paths.socket)
        server = listener.start()
        if not await self._converge():
            self._retry.set()
        await self._follow()
        notify.notify("READY=1")
        try:
            await self._until_stopped(server)
        finally:
            notify.notify("STOPPING=1")
            await listener.stop()
            await self._stop_metrics()
            self._paths.socket.unlink(missing_ok=True)
            self._worker.close()

    async def _until_stopped(self, server: asyncio.Task[None]) -> None:
        coroutines: list[Coroutine[Any, Any, Any]] = [
            self._stop.wait(),
            self._checker.run(self._deliver),
            self._mesh.run(self._deliver_mesh),
            self._publication.run(),
            self._retry_loop(),
            self._refresh_loop(),
            self._compare_loop(),
            self._follow_loop(),
            self._devices_loop(),
            self._watchdog_loop(),
            self._capture_loop(),
        ]
        tasks = [server, *(asyncio.ensure_future(each) for each in coroutines)]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest - {server}:
            task.cancel()
        await asyncio.gather(*(rest - {server}), return_exceptions=True)
        for task in done:
            task.result()
        if not self._stop.is_set():
            raise RuntimeError("a task of the daemon ended by itself")

    def _make_agent(self) -> Agent:
        return Agent(Kernel(self._paths.pins, ObjectSource()), self._paths)

    async def _converge(self) -> bool:
        try:
            operations = await self._worker.change(self._agent.converge)
        except Exception:
            log.exception("not converged; forwarding goes on with what the kernel has")
            notify.notify("STATUS=not converged, trying again; see `datapath status`")
            return False
        log.info("converged with %d operations", operations)
        notify.notify(f"STATUS=converged, {len(self._desired.services)} services")
        return True

    async def _retry_loop(self) -> None:
        while True:
            await self._retry.wait()
            self._retry.clear()
            pause = RETRY_FIRST
            while not await self._converge():
                with contextlib.suppress(asyncio.TimeoutError):
                    # A reload or a new failure is a reason to try at once.
                    await asyncio.wait_for(self._retry.wait(), pause)
                    self._retry.clear()
                pause = min(2 * pause, RETRY_LONGEST)

    async def _deliver(self, changes: Mapping[HealthKey, bool]) -> None:
        try:
            await self._worker.change(self._agent.health_changed, changes)
        except Exception:
            log.exception("health could not be taken into the tables")
            self._retry.set()
        # Others are told in any case: what the kernel holds here is not their concern.
        self._publication.health_changed(changes)

    async def _deliver_mesh(self, changes: Changes) -> None:
        try:
            await self._worker.change(self._agent.mesh_changed, changes)
        except Exception:
            log.exception("other clusters' services could not be taken into the tables")
            self._retry.set()

    async def _refresh_loop(self) -> None:
        """Keep neighbours resolved where the kernel does not, and follow routes that change."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._period_changed.wait(), self._period)
                self._period_changed.clear()
                continue
            try:
                moved = await self._worker.change(self._agent.refresh)
            except Exception:
                log.exception("neighbours could not be refreshed")
                continue
            if moved:
                log.info("next hops changed")
                self._retry.set()

    async def _follow_loop(self) -> None:
        """Follow next hops whose MAC address moves; in other threads, for an apply may keep the worker for seconds."""
        try:
            asker = await asyncio.to_thread(Asker)
        except OSError as error:
            problem = f"next hops that move silently are not followed at once: {error} (needs CAP_NET_RAW)"
            self._agent.own_problems["neighbours"] = problem
            log.warning("%s", problem)
            await asyncio.Event().wait()
            return
        follower = Follower()
        try:
            while True:
                spent = await asyncio.to_thread(_look, follower, asker)
                await asyncio.sleep(max(TICK, spent / FOLLOW_SHARE))
        finally:
            asker.close()

    async def _devices_loop(self) -> None:
        """Have rates follow the devices of endpoints, which come and go with containers."""
        events, happened = LinkEvents(), asyncio.Event()
        asyncio.get_running_loop().add_reader(events, happened.set)
        try:
            while True:
                await happened.wait()
                # A container's device is made, named and moved in one go.
                await asyncio.sleep(SETTLE)
                events.drain()
                happened.clear()
                await self._look_at_devices()
        finally:
            asyncio.get_running_loop().remove_reader(events)
            events.close()

    async def _look_at_devices(self) -> None:
        try:
            changed = await self._worker.look(self._agent.devices_changed)
        except Exception:
            log.exception("devices of endpoints could not be looked at")
            return
        if changed:
            log.info("devices of endpoints changed")
            self._retry.set()
        self._publish_endpoints()

    def _publish_endpoints(self) -> None:
        """Have other clusters know the endpoints that are there."""
        devices = device_indexes()
        self._publication.endpoints_changed(each for each in self._desired.endpoints if each.interface in devices)

    async def _compare_loop(self) -> None:
        """Notice drift; it is reported, not healed: whoever changed the kernel may be at work."""
        lost = 0
        while True:
            await asyncio.sleep(max(COMPARE_EVERY, self._agent.plan_seconds / COMPARE_SHARE))
            before = self._agent.drift_count
            try:
                lost = 0 if await self._worker.look(self._compare, lost) else lost + 1
            except Exception:
                log.exception("the kernel could not be compared with the desired state")
                continue
            if self._agent.drift_count and self._agent.drift_count != before:
                log.warning("%d differences to the desired state; see `datapath verify`", self._agent.drift_count)

    def _compare(self, lost: int) -> bool:
        """Whether a comparison succeeded."""
        if lost < COMPARISONS_LOST:
            return self._agent.compare()
        self._agent.verify()
        return True

    async def _capture_loop(self) -> None:
        """End a capture whose time is up: whoever began it may be gone."""
        while True:
            await asyncio.sleep(1)
            until = self._agent.capture_until
            if until is not None and time.monotonic() > until:
                try:
                    await self._worker.change(self._agent.end_capture)
                except Exception:
                    log.exception("the capturing program could not be replaced")
                    self._retry.set()

    async def _watchdog_loop(self) -> None:
        interval = notify.watchdog_interval()
        while True:
            await asyncio.sleep(interval or 3600)
            if interval:
                notify.notify("WATCHDOG=1")

    @property
    def _desired(self) -> DesiredState:
        return self._agent.desired or DesiredState()

    async def _follow(self) -> None:
        """Let what the daemon itself does follow the desired state: checks, the mesh, metrics' address, log level."""
        desired = self._desired
        options = effective(desired.options)
        unhealthy = {key for key, healthy in dict(self._agent.health).items() if not healthy}
        self._checker.update(targets(desired.services), unhealthy)
        self._mesh.update(desired.peers, options, self._agent.remote)
        self._publication.update(desired, dict(self._agent.health))
        self._publish_endpoints()
        if options["arping-refresh-period"] != self._period:
            self._period = options["arping-refresh-period"]
            self._period_changed.set()
        logging.getLogger("datapath").setLevel(logging.DEBUG if self._debug or options["debug"] else logging.INFO)
        if options["prometheus-serve-addr"] != self._metrics_address:
            await self._serve_metrics(options["prometheus-serve-addr"])

    async def _serve_metrics(self, address: str) -> None:
        await self._stop_metrics()
        self._agent.own_problems.pop("prometheus-serve-addr", None)
        self._metrics_address = address
        if not address:
            return
        host, port = split_port(address)
        try:
            bound = api.bind_tcp(host, int(port))
        except OSError as error:
            self._metrics_address = None
            self._agent.own_problems["prometheus-serve-addr"] = f"metrics are not served on {address}: {error}"
            log.error("metrics are not served on %s: %s", address, error)  # noqa: TRY400 - the trace would say less
            return
        self._metrics_listener = api.Listener(api.metrics_application(self._worker, self._metrics), bound)
        self._metrics_listener.start()
        log.info("metrics are served on %s", address)

    async def _stop_metrics(self) -> None:
        if self._metrics_listener is not None:
            await self._metrics_listener.stop()
            self._metrics_listener = None


def _look(follower: Follower, asker: Asker) -> float:
    """Ask the next hops that are due; returns the CPU seconds that it took."""
    started = time.thread_time()
    try:
        asker.ask(follower.due(known(), time.monotonic()))
    except OSError as error:
        log.warning("next hops could not be looked at: %s", error)
    return time.thread_time() - started


def _set_up_logging(debug: bool) -> None:
    """To stderr, which the journal keeps; the number is the journal's priority (sd-daemon(3))."""

    class Prefixed(logging.Formatter):
        levels = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))

        def format(self, record: logging.LogRecord) -> str:
            priority = next((number for level, number in self.levels if record.levelno >= level), 7)
            return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Prefixed("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("datapath").setLevel(logging.DEBUG if debug else logging.INFO)
    for chatty in ("httpx", "httpcore", "uvicorn", "hpack", "grpclib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

"""The single writer: takes desired state, makes the kernel hold it, and can tell whether it still does."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

from datapath.agent import problems
from datapath.agent.findings import drift_count, remarks, removable, unusable
from datapath.agent.originals import Originals
from datapath.agent.paths import Paths
from datapath.agent.pipeline import Prepared, Ways, prepare, prepare_services
from datapath.agent.report import Report, desired_changes
from datapath.agent.turns import DisturbedError, Turns
from datapath.compile import Compiled, CompileErrors, bandwidth, endpoints, peers
from datapath.kernel import Kernel, KernelError
from datapath.kernel.link_events import device_indexes
from datapath.kernel.neighbours import next_hops
from datapath.plan import disruption, plan
from datapath.plan.describe import Row, rows
from datapath.plan.operations import SetQdisc, SetSysctl
from datapath.sources.health import HealthMemory, HealthResult, targets
from datapath.sources.merge import Known, Merger, merge
from datapath.sources.mesh.follower import FollowerStatus
from datapath.sources.mesh.memory import Changes, MeshMemory
from datapath.sources.mesh.publication import Publication
from datapath.sources.store import Store, UnreadableError
from datapath.spec import document as documents
from datapath.spec.errors import SpecError, SpecErrors
from datapath.spec.global_services import by_mesh_name
from datapath.spec.options import effective
from datapath.state.kernel_state import KernelState
from datapath.state.merged import HealthKey, MergedState
from datapath.state.model import DesiredState, Service
from datapath.state.remote import ServiceName

log = logging.getLogger(__name__)

FEW = 64
"""Services up to which a change of backends is carried out one service at a time; for more, one plan costs less."""


@dataclass(frozen=True)
class Done:
    """The last time that something was written."""

    when: float
    """Seconds since the epoch."""
    seconds: float
    operations: int
    map_writes: int


@dataclass(frozen=True)
class Trouble:
    """The last time that something went wrong."""

    when: float
    what: str
    """`apply`, `converge`, `health` or `clustermesh`."""
    errors: tuple[Mapping[str, Any], ...]


class Agent:
    """Holds the desired state of this node; every method may block.

    The kernel is read for every plan, never remembered. Attributes are for reading by whoever answers questions.
    """

    def __init__(self, kernel: Kernel, paths: Paths) -> None:
        self.kernel = kernel
        self.paths = paths
        self.started = time.time()
        self.desired: Optional[DesiredState] = None
        """None while nothing was ever asked for, or while what was asked for is lost."""
        self.lost: Optional[UnreadableError] = None
        """Why the stored desired state cannot be read; the kernel is left alone then."""
        self.last_done: Optional[Done] = None
        self.last_trouble: Optional[Trouble] = None
        self.converged = False
        """Whether the kernel held the desired state when it was last written or compared."""
        self.drift_count: Optional[int] = None
        """Differences that the last comparison found."""
        self.warnings: tuple[str, ...] = ()
        self.plan_seconds = 0.0
        self.health_results: Callable[[], Mapping[HealthKey, HealthResult]] = dict
        """What the health checker knows; nothing where none runs."""
        self.mesh_statuses: Callable[[], Mapping[str, FollowerStatus]] = dict
        """What is known of connections to other clusters, and of what they publish."""
        self.publication: Optional[Publication] = None
        """What publishes in this cluster's own store; None where no daemon runs."""
        self.own_problems: dict[str, str] = {}
        """What the daemon around this agent cannot do, by topic."""
        self.capture_until: Optional[float] = None
        """When a running capture ends by itself (time.monotonic())."""
        self._compiled: Optional[Compiled] = None
        """What the kernel was last brought to; saves making tables again, never stands for the kernel's contents."""
        self._ways = Ways()
        """As of the last plan that was carried out or the last look."""
        self._global: Mapping[ServiceName, Sequence[Service]] = {}
        """Services that other clusters may have backends for."""
        self._claimed: Mapping[str, int] = {}
        """Devices of endpoints that programs are for, as of the last apply, and their indexes."""
        self._crowded = False
        """Whether backends of other clusters are left out: a change of one service may make room for another."""
        self._checked: set[HealthKey] = set()
        """What has a health check."""
        self.store = Store(paths.desired)
        self.originals = Originals(paths.originals)
        self.memory = HealthMemory(paths.health)
        self.health: dict[HealthKey, bool] = dict.fromkeys(self.memory.load(), False)
        self.mesh_memory = MeshMemory(paths.clustermesh)
        self.remote = self.mesh_memory.load()
        """Services of other clusters, as last published."""
        self.turns = Turns()
        self._load()

    def apply(self, document: object, check: bool = False) -> Report:
        """Merge `document` into the desired state and make it true, or with `check` say what that would do.

        After an error the node is as it was: nothing is stored, and what the kernel already took is taken back.
        Raises SpecErrors, CompileErrors, KernelError, OSError.
        """
        if check:
            return self.turns.look(lambda: self._intend(document, check=True)[1])
        with self.turns.changing():
            prepared, report = self._intend(document, check=False)
            writes = self.kernel.map_writes
            try:
                self._execute(prepared)
                self._store(prepared.desired)
            except (KernelError, OSError) as error:
                self._note_trouble("apply", error)
                self._go_back()
                raise
            self._accept(prepared)
            return replace(report, map_writes=self.kernel.map_writes - writes)

    def _intend(self, document: object, *, check: bool) -> tuple[Prepared, Report]:
        """What `document` asks for, and what that would change."""
        before = self.desired or DesiredState()
        after = documents.merge(before, document)
        if not _states_everything(document):
            self._refuse_while_lost()
        if not check:
            self.end_capture()
        prepared = self._prepare_document(document, after, attach=not check)
        changes = desired_changes(documents.dump(before), documents.dump(after))
        # Before the kernel changes: disruption is about the flows that there are now.
        return prepared, self._report(prepared, changes, check=check)

    def converge(self) -> int:
        """Make the kernel hold what is desired; returns how many operations that took.

        Does nothing while nothing is desired or while what is desired is lost. Raises CompileErrors, KernelError;
        those about a user's program after everything else is done.
        """
        with self.turns.changing():
            if self.desired is None:
                return 0
            self.end_capture()
            try:
                prepared = self._prepare(self.desired, attach=True)
                self._execute(prepared)
                self._accept(prepared)
                prepared.require_programs(prepared.unusable)
            except Exception as error:
                self._note_trouble("converge", error)
                raise
            return len(prepared.plan.operations)

    def plan(self) -> Report:
        """What `converge` would do now."""
        return self.turns.look(self._foresee)

    def _foresee(self) -> Report:
        self._refuse_while_lost()
        return self._report(self._prepare_current(), (), check=True)

    def verify(self) -> Prepared:
        """Compare the kernel with what is desired; the plan's operations are the drift."""
        return self.turns.look(self._prepare_current, self._note_drift)

    def compare(self) -> bool:
        """As `verify`, but changes never wait for it: False, and nothing known, where one came into it."""
        try:
            self.turns.look_once(self._prepare_current, self._note_drift)
        except DisturbedError:
            return False
        return True

    def _note_drift(self, prepared: Prepared) -> None:
        self.drift_count = drift_count(prepared)
        self.converged = self.drift_count == 0

    def health_changed(self, changes: Mapping[HealthKey, bool]) -> None:
        """Take results of health checks into the tables of the services concerned. Raises KernelError."""
        with self.turns.changing():
            # The checker may be one apply (or a reset) behind.
            changes = {key: healthy for key, healthy in changes.items() if key in self._checked}
            if self.desired is None or not changes:
                return
            self.health.update(changes)
            # Before the kernel, so that a restart in between starts from the newer knowledge.
            self._remember()
            names = {key.service for key in changes}
            self._bring_up([service for service in self.desired.services if service.name in names], "health")

    def mesh_changed(self, changes: Changes) -> None:
        """Take what other clusters publish now into the services concerned. Raises KernelError."""
        with self.turns.changing():
            peers = {peer.name for peer in (self.desired or DesiredState()).peers}
            # The source may be one apply (or a reset) behind.
            changes = {cluster: services for cluster, services in changes.items() if cluster in peers}
            if not changes:
                return
            self._remember_mesh(changes)
            for cluster, services in changes.items():
                table = self.remote.setdefault(cluster, {})
                for name, service in services.items():
                    if service is not None:
                        table[name] = service
                    else:
                        table.pop(name, None)
            names = {name for services in changes.values() for name in services}
            concerned = [each for name in sorted(names & self._global.keys()) for each in self._global[name]]
            self._bring_up(concerned, "clustermesh")

    @property
    def known(self) -> Known:
        """What the sources have told."""
        return Known(self.health, self.remote)

    def merged(self) -> MergedState:
        """What is desired, with all that is known about it."""
        return merge(self.desired or DesiredState(), self.known)

    def _bring_up(self, services: Sequence[Service], what: str) -> None:
        """Have the kernel hold what is known of these services now."""
        if not services:
            return
        if self._compiled is None or not self.converged or self._crowded or len(services) > FEW:
            self.converge()
            return
        try:
            done = self._update(self._compiled, services)
        except (KernelError, OSError) as error:
            self._note_trouble(what, error)
            raise
        if not done:
            self.converge()

    def _update(self, compiled: Compiled, services: Sequence[Service]) -> bool:
        """Carry a change of these services out by itself; False where that takes more."""
        started, writes = time.perf_counter(), self.kernel.map_writes
        merger = Merger(self.desired or DesiredState(), self.known)
        judged = [merger.merge_service(service) for service in services]
        part = prepare_services(self.kernel, compiled, judged, self._ways, next_hops)
        if part is None:
            return False
        if part.operations:
            self.kernel.execute(part.operations)
            for name, entries in part.entries.items():
                if self.kernel.read_entries(name, list(entries)) != entries:
                    raise KernelError(None, 0, f"map {name} does not hold what was written")
            self._note_done(started, writes, len(part.operations))
        self._compiled, self._ways = part.compiled, part.ways
        return True

    def refresh(self) -> bool:
        """Have neighbours resolved again where the kernel does not do it; True when next hops are others now."""
        with self.turns.changing():
            if self.desired is None:
                return False
            self.kernel.refresh_neighbours()
            services = self._compiled.services.values() if self._compiled is not None else self.desired.services
            backends = {backend.address for service in services for backend in service.backends}
            before = self._ways
            self._ways = replace(before, next_hops=next_hops(backends.union(before.balancers)))
            return before != self._ways

    def devices_changed(self) -> bool:
        """Whether devices of endpoints that programs are for are others than at the last apply."""
        desired = self.desired
        return desired is not None and self._claimed != _claimed(desired, device_indexes())

    def reset(self) -> list[str]:
        """Remove everything of ours from the node; returns what was removed, one line each."""
        with self.turns.changing():
            self.end_capture()
            have = self.kernel.read()
            removed = removable(have)
            self.kernel.reset()
            originals = {name: value for name, value in self.originals.load().items() if name in have.sysctls}
            sysctls = [SetSysctl(name, value) for name, value in originals.items()]
            # Behind net.core.default_qdisc, which says what comes in their place.
            self.kernel.execute([*sysctls, *(SetQdisc(device, "") for device in have.own_qdiscs)])
            removed += [f"sysctl {name} = {value}" for name, value in originals.items()]
            if self.paths.desired.exists():
                removed.append(f"desired state {self.paths.desired}")
            self.store.remove()
            self.originals.remove()
            self.memory.remove()
            self.mesh_memory.remove()
            self.desired, self.lost, self.last_trouble = None, None, None
            self.health.clear()
            self.remote.clear()
            self._checked.clear()
            self._global = {}
            self._compiled, self._ways = None, Ways()
            self.drift_count, self.converged, self.warnings = 0, True, ()
            return removed

    def end_capture(self) -> bool:
        """Put the load balancer's own program back where one that captures has its place; False where none has.

        What is written next compares programs, and must not take that for drift.
        """
        with self.turns.changing():
            if self.capture_until is None:
                return False
            self.capture_until = None
            self.kernel.end_capture()
            return True

    def _load(self) -> None:
        try:
            stored = self.store.load()
            self.desired = None if stored is None else documents.load(stored)
        except UnreadableError as error:
            self.lost = error
        except SpecErrors as error:
            self.lost = UnreadableError(self.store.path, f"this version refuses it: {error}")
        self._index(self.desired or DesiredState())
        if self.lost is not None:
            log.error("%s; forwarding is left as it is", self.lost)

    def _refuse_while_lost(self) -> None:
        """While the desired state is lost, only a document that states all of it may replace it.

        Merged into nothing, anything less would remove the services that it does not mention.
        """
        if self.lost is not None:
            message = f"the stored desired state is unreadable ({self.lost}), so it cannot be changed in part"
            sections = " and ".join(f"{name} with purge" for name in documents.ITEM_SECTIONS)
            allowed = f"options and {sections} in one document; or `datapath reset`"
            raise SpecErrors([SpecError("document", "document", None, message, allowed)])

    def _prepare(self, desired: DesiredState, attach: bool = False) -> Prepared:
        started = time.perf_counter()
        originals = self.originals.load()
        prepared = prepare(self.kernel, desired, self.known, originals, attach=attach, previous=self._compiled)
        self.plan_seconds = time.perf_counter() - started
        return prepared

    def _prepare_document(self, document: object, after: DesiredState, attach: bool) -> Prepared:
        """As `_prepare`, for what `document` asks for: refusals tell where in it.

        Somebody else's program that cannot be used any more stands in the way only of new options, which may want
        its device.
        """
        try:
            prepared = self._prepare(after, attach=attach)
            own = documents.item_names(document, "programs")
            prepared.require_programs(prepared.unusable if _has_options(document) else own)
        except CompileErrors as error:
            raise CompileErrors(documents.located(error.errors, document)) from error
        return prepared

    def _prepare_current(self) -> Prepared:
        """The comparison with what is desired now; without differences where nothing is (or it is lost)."""
        if self.desired is not None:
            return self._prepare(self.desired)
        prepared = self._prepare(DesiredState())
        return replace(prepared, want=prepared.have, plan=plan(prepared.have, prepared.have))

    def _execute(self, prepared: Prepared) -> None:
        operations = prepared.plan.operations
        if not operations:
            return
        started, writes = time.perf_counter(), self.kernel.map_writes
        changing = [each.name for each in operations if isinstance(each, SetSysctl)]
        self.originals.record(prepared.have.sysctls, changing)
        if log.isEnabledFor(logging.DEBUG):
            for row in rows(prepared.plan, prepared.compiled.names, prepared.compiled.endpoints):
                log.debug("%s", row["summary"])
        self.kernel.execute(operations)
        self._compare(prepared.want)
        self.originals.forget(_restored(prepared, self.originals.load()))
        self._note_done(started, writes, len(operations))

    def _note_done(self, started: float, writes: int, operations: int) -> None:
        seconds = time.perf_counter() - started
        self.last_done = Done(time.time(), seconds, operations, self.kernel.map_writes - writes)
        log.info("%d operations, %d map writes, %.3f s", operations, self.last_done.map_writes, seconds)

    def _compare(self, want: KernelState) -> None:
        left = plan(want, self.kernel.read(want.luts))
        if left.operations:
            first = next(rows(left, {}))
            raise KernelError(left.operations[0], 0, f"the kernel does not hold what was written: {first['summary']}")

    def _store(self, desired: DesiredState) -> None:
        if desired == self.desired and self.lost is None:
            return
        kept = self.store.save(documents.dump(desired))
        if kept is not None:
            log.warning("the unreadable desired state is kept as %s", kept)

    def _accept(self, prepared: Prepared) -> None:
        self.desired, self.lost = prepared.desired, None
        self._compiled = prepared.compiled
        balancers = peers.members(effective(prepared.desired.options))
        self._ways = Ways(prepared.facts.next_hops, prepared.facts.gateways, balancers)
        indexes = {name: device.index for name, device in prepared.facts.devices.items()}
        self._claimed = _claimed(prepared.desired, indexes)
        self._crowded = prepared.merged.crowded
        self.warnings = prepared.compiled.warnings
        self.drift_count, self.last_trouble = len(prepared.unusable), None
        self.converged = not prepared.unusable
        self._index(prepared.desired)
        if not self.health.keys() <= self._checked:
            self.health = {key: healthy for key, healthy in self.health.items() if key in self._checked}
            self._remember()
        clusters = {peer.name for peer in prepared.desired.peers}
        if not self.remote.keys() <= clusters:
            self.remote = {name: services for name, services in self.remote.items() if name in clusters}
            self._guard_mesh_memory(lambda: self.mesh_memory.keep(clusters))

    def _index(self, desired: DesiredState) -> None:
        """Know what news are for which services."""
        self._checked = {target.key for target in targets(desired.services)}
        self._global = by_mesh_name(desired.services)

    def _go_back(self) -> None:
        """After a failed apply: make the kernel hold the previous desired state again."""
        try:
            if self.desired is not None:
                self._execute(self._prepare(self.desired, attach=True))
            elif self.lost is None:
                have = self.kernel.read()
                self.kernel.execute(plan(KernelState(sysctls=self.originals.load()), have).operations)
        except Exception as error:
            self.converged = False
            self._note_trouble("converge", error)
            log.exception("the previous state could not be restored either")

    def _remember(self) -> None:
        self.memory.save(key for key, healthy in self.health.items() if not healthy)

    def _remember_mesh(self, changes: Changes) -> None:
        self._guard_mesh_memory(lambda: self.mesh_memory.save(changes))

    def _guard_mesh_memory(self, change: Callable[[], None]) -> None:
        """A full disk is no reason to leave the kernel as it is."""
        try:
            change()
        except (sqlite3.Error, OSError) as error:
            problem = f"{self.mesh_memory.path}: {error}; a restart may begin with what clusters published earlier"
            self.own_problems["clustermesh"] = problem
            log.error("%s", problem)  # noqa: TRY400 - the trace would say less than the sentence
        else:
            self.own_problems.pop("clustermesh", None)

    def _note_trouble(self, what: str, error: BaseException) -> None:
        self.converged = False
        self.last_trouble = Trouble(time.time(), what, tuple(problems.as_errors(error)))
        log.error("%s: %s", what, error)

    def _report(self, prepared: Prepared, changes: Sequence[Row], *, check: bool) -> Report:
        return Report(
            check=check,
            rows=[*changes, *rows(prepared.plan, prepared.compiled.names, prepared.compiled.endpoints)],
            disruption=disruption(prepared.plan, prepared.compiled.names, self.kernel.flows()),
            warnings=(*prepared.compiled.warnings, *unusable(prepared), *remarks(prepared)),
            map_writes=0,
        )


def _claimed(desired: DesiredState, indexes: Mapping[str, int]) -> dict[str, int]:
    return endpoints.claimed(bandwidth.served(desired.options, desired.endpoints), indexes)


def _has_options(document: object) -> bool:
    return isinstance(document, Mapping) and document.get("options") is not None


def _states_everything(document: object) -> bool:
    if not isinstance(document, Mapping) or not _has_options(document) or document["options"].get("merge"):
        return False
    sections = [document.get(name) for name in documents.ITEM_SECTIONS]
    return all(isinstance(section, Mapping) and bool(section.get("purge")) for section in sections)


def _restored(prepared: Prepared, originals: Mapping[str, str]) -> list[str]:
    """Sysctls that hold their original value by this apply, or went with their device."""
    return [name for name, value in originals.items() if prepared.want.sysctls.get(name, value) == value]

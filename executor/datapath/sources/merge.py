"""Desired state and what the sources know to one merged state (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Optional

from datapath.sources.mesh.backends import Foreign, foreign
from datapath.spec.options import effective
from datapath.state.merged import EffectiveBackend, EffectiveService, HealthKey, MergedState
from datapath.state.model import Affinity, AllFailed, Backend, BackendState, DesiredState, IPAddress, Service
from datapath.state.remote import RemoteServices

Health = Mapping[HealthKey, bool]
"""Whether a backend passes its check; one that is missing has not been judged yet and counts as healthy."""


@dataclass(frozen=True)
class Known:
    """What the node has learned."""

    health: Health = field(default_factory=dict)
    remote: RemoteServices = field(default_factory=dict)
    """What other clusters publish."""


@dataclass(frozen=True)
class Merger:
    """Brings a desired state and what is known about it together."""

    desired: DesiredState
    known: Known

    def merge(self) -> MergedState:
        """Who receives new flows of each service, after states, weights, health checks and other clusters."""
        room = self._room - sum(_places(each, each.backends) for each in self.desired.services)
        services, remarks, crowded = [], [], False
        for service in self.desired.services:
            found = self._foreign(service, room // len(_protocols(service)))
            room -= len(found.backends) * len(_protocols(service))
            services.append(self._judged(service, found))
            remarks += found.remarks
            crowded = crowded or found.crowded
        desired = self.desired
        return MergedState(
            desired.options, tuple(services), desired.programs, desired.endpoints, tuple(remarks), crowded
        )

    def merge_service(self, service: Service) -> EffectiveService:
        """`merge` for one service, for when only that changed.

        The table has the active backends that are healthy; where there are none, the terminating ones that are
        healthy (KEP-1669, as Cilium); where there are none either, nobody or everybody, as `all_failed` says. Of a
        global service, only the backends that its affinity selects count.
        """
        return self._judged(service, self._foreign(service, self._room))

    def _judged(self, service: Service, found: Foreign) -> EffectiveService:
        others = [backend for _, backend in found.backends]
        states = [judged_state(service, backend, self.known.health) for backend in service.backends]
        local, remote = _selected(service.affinity, states, bool(others))
        states += [BackendState.ACTIVE] * len(others)
        counted = [local] * len(service.backends) + [remote] * len(others)
        taking = _taking(states, counted)
        if not any(taking) and service.health_check is not None and service.health_check.all_failed is AllFailed.OPEN:
            own = [_own_state(backend) for backend in service.backends]
            taking = _taking(own, [True] * len(own))
            states = [mine if takes else state for state, mine, takes in zip(states, own, taking)]
        clusters = [""] * len(service.backends) + [cluster for cluster, _ in found.backends]
        whole = replace(service, backends=(*service.backends, *others)) if others else service
        return EffectiveService(whole, tuple(map(EffectiveBackend, whole.backends, states, taking, clusters)))

    def _foreign(self, service: Service, room: int) -> Foreign:
        if not service.is_global or not self._remote:
            return Foreign()
        return foreign(service, self._remote, self._vips, min(room, self._table_size - len(service.backends)))

    @cached_property
    def _remote(self) -> RemoteServices:
        """Of the clusters that are peers: others may be known still."""
        names = {peer.name for peer in self.desired.peers}
        return {cluster: services for cluster, services in self.known.remote.items() if cluster in names}

    @cached_property
    def _vips(self) -> frozenset[IPAddress]:
        return frozenset(frontend.address for each in self.desired.services for frontend in each.frontends)

    @cached_property
    def _table_size(self) -> int:
        return int(effective(self.desired.options)["bpf-lb-maglev-table-size"])

    @cached_property
    def _room(self) -> int:
        """Backends that the map holds, counted once a protocol."""
        options = effective(self.desired.options)
        return int(options["bpf-lb-service-backend-map-max"] or options["bpf-lb-map-max"])


def merge(desired: DesiredState, known: Optional[Known] = None) -> MergedState:
    """Who receives new flows of each service."""
    return Merger(desired, known or Known()).merge()


def _protocols(service: Service) -> frozenset[object]:
    return frozenset(frontend.protocol for frontend in service.frontends)


def _places(service: Service, backends: Sequence[Backend]) -> int:
    return len(backends) * len(_protocols(service))


def _selected(affinity: Affinity, local: Sequence[BackendState], has_remote: bool) -> tuple[bool, bool]:
    """Whether local and remote backends are used, by Cilium's rules; remote ones are healthy while published."""
    if affinity is Affinity.LOCAL:
        return True, BackendState.ACTIVE not in local
    if affinity is Affinity.REMOTE:
        return not has_remote, True
    return True, True


def _own_state(backend: Backend) -> BackendState:
    """The state that the user gave it."""
    return BackendState.MAINTENANCE if backend.weight == 0 else backend.state


def judged_state(service: Service, backend: Backend, health: Health) -> BackendState:
    """The state of a backend of this cluster's, after its check."""
    state = _own_state(backend)
    if service.health_check is None or state not in (BackendState.ACTIVE, BackendState.TERMINATING):
        return state
    healthy = health.get(HealthKey(service.name, backend.address, backend.port), True)
    return state if healthy else BackendState.QUARANTINED


def _taking(states: Sequence[BackendState], counted: Sequence[bool]) -> list[bool]:
    """Which of the backends take new flows, of those that count."""
    usable = [state for state, counts in zip(states, counted) if counts]
    wanted = BackendState.ACTIVE if BackendState.ACTIVE in usable else BackendState.TERMINATING
    return [counts and state is wanted for state, counts in zip(states, counted)]

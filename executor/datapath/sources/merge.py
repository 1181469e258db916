"""Desired state and health results to one merged state (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datapath.state.merged import EffectiveBackend, EffectiveService, HealthKey, MergedState
from datapath.state.model import AllFailed, Backend, BackendState, DesiredState, Service

Health = Mapping[HealthKey, bool]
"""Whether a backend passes its check; one that is missing has not been judged yet and counts as healthy."""


def merge(desired: DesiredState, health: Health) -> MergedState:
    """Who receives new flows of each service, after states, weights and health checks."""
    services = tuple(merge_service(service, health) for service in desired.services)
    return MergedState(desired.options, services, desired.programs, desired.endpoints)


def merge_service(service: Service, health: Health) -> EffectiveService:
    """`merge` for one service, for when only its health changed.

    The table has the active backends that are healthy; where there are none, the terminating ones that are healthy
    (KEP-1669, as Cilium); where there are none either, nobody or everybody, as `all_failed` says.
    """
    states = [_state(service, backend, health) for backend in service.backends]
    taking = _taking(states)
    if not any(taking) and service.health_check is not None and service.health_check.all_failed is AllFailed.OPEN:
        own = [_own_state(backend) for backend in service.backends]
        taking = _taking(own)
        states = [mine if takes else state for state, mine, takes in zip(states, own, taking)]
    return EffectiveService(service, tuple(map(EffectiveBackend, service.backends, states, taking)))


def _own_state(backend: Backend) -> BackendState:
    """The state that the user gave it."""
    return BackendState.MAINTENANCE if backend.weight == 0 else backend.state


def _state(service: Service, backend: Backend, health: Health) -> BackendState:
    state = _own_state(backend)
    if service.health_check is None or state not in (BackendState.ACTIVE, BackendState.TERMINATING):
        return state
    healthy = health.get(HealthKey(service.name, backend.address, backend.port), True)
    return state if healthy else BackendState.QUARANTINED


def _taking(states: Sequence[BackendState]) -> list[bool]:
    """Which of the backends take new flows."""
    wanted = BackendState.ACTIVE if BackendState.ACTIVE in states else BackendState.TERMINATING
    return [state is wanted for state in states]

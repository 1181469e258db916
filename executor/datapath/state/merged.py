"""Desired state and what the node has learned about it, merged: what `datapath.compile` starts from."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from datapath.state.model import Backend, BackendState, Endpoint, IPAddress, Options, Program, Service


class HealthKey(NamedTuple):
    """One health check: each service checks its own backends by its own rules."""

    service: str
    address: IPAddress
    port: int
    """The backend's port (not the port that is checked)."""


@dataclass(frozen=True)
class EffectiveBackend:
    """A backend as health and weight leave it."""

    backend: Backend
    state: BackendState
    """What the datapath shall treat it as: a backend that fails its check is quarantined, weight 0 is maintenance."""
    in_table: bool
    """Whether new flows may go to it."""
    cluster: str = ""
    """Which other cluster's it is; "" for this one's own."""


@dataclass(frozen=True)
class EffectiveService:
    """A service with all its backends judged."""

    service: Service
    """With the backends of other clusters behind its own."""
    backends: tuple[EffectiveBackend, ...]
    """In the service's order."""


@dataclass(frozen=True)
class MergedState:
    """Everything that is to be compiled."""

    options: Options = field(default_factory=lambda: MappingProxyType({}))
    services: tuple[EffectiveService, ...] = ()
    """Sorted by name."""
    programs: tuple[Program, ...] = ()
    """Sorted by name."""
    endpoints: tuple[Endpoint, ...] = ()
    """Sorted by name."""
    remarks: tuple[str, ...] = ()
    """What of other clusters cannot be used, one sentence each."""
    crowded: bool = False
    """Whether some of it does not fit."""

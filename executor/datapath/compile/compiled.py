"""The result of compiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Optional

from datapath.compile.ids import Ids
from datapath.compile.services import Table, TableSettings
from datapath.spec.errors import SpecError
from datapath.state.kernel_state import KernelState
from datapath.state.model import Service


@dataclass(frozen=True)
class Compiled:
    """What the kernel should hold, and what it was made of."""

    state: KernelState
    warnings: tuple[str, ...] = ()
    names: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    """LUT id -> `service/PROTOCOL`."""
    endpoints: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    """Number -> endpoint, of those that have rates."""
    ids: Ids = field(default_factory=lambda: Ids({}, {}))
    services: Mapping[str, Service] = field(default_factory=lambda: MappingProxyType({}))
    """By name, with the backends of other clusters."""
    settings: Optional[TableSettings] = None
    """None where no load balancer is wanted."""
    tables: Mapping[int, Table] = field(default_factory=lambda: MappingProxyType({}))
    refused: Mapping[str, SpecError] = field(default_factory=lambda: MappingProxyType({}))
    """Name -> why that program of a user's cannot be what is asked for."""

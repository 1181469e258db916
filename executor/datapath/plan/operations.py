"""Operations: what the kernel stage can be asked to do, in the order that the planner puts them.

The order keeps every packet served: what is pointed at exists before what points at it, and goes after it
(backends, tables, services, addresses; the reverse for removal).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

from datapath.state.kernel_state import BandwidthPrograms, Neighbour, NodePrograms, UserProgram


@dataclass(frozen=True)
class PrepareMaps:
    """Make every map exist with these sizes.

    A pinned map of another size (or a LUT map of another table size) stays in service: a new one is staged
    beside it, filled with the old one's entries where they fit, and takes its place in `SwapLoadBalancer`.
    Later entry operations go to the staged map where there is one. Maps in `replaced` are staged whatever their size.
    """

    sizes: Mapping[str, int]
    table_size: int
    replaced: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PutEntry:
    """Write one entry; on an array, one id's place."""

    map: str
    key: bytes
    value: bytes


@dataclass(frozen=True)
class DeleteEntry:
    """Remove one entry; one that is absent is as good as removed. On an array, zero it."""

    map: str
    key: bytes


@dataclass(frozen=True)
class PutLut:
    """Build the inner map, then swap it into the outer one: a packet sees the old table or the new one."""

    lut_id: int
    table: bytes
    keep_history: bool = False
    """Whether slots that change owner are marked and their previous owners kept (`datapath.plan.history`)."""


@dataclass(frozen=True)
class DeleteLut:
    """Remove a table that no service points at any more."""

    lut_id: int


@dataclass(frozen=True)
class SwapLoadBalancer:
    """Load the program with this configuration on the prepared maps, then replace it on every device.

    Nothing is attached before the verifier accepted the program. Links are updated in place
    (BPF_LINK_UPDATE), so no packet goes unseen.
    """

    config: bytes
    attachments: Mapping[str, str]


@dataclass(frozen=True)
class RemoveLoadBalancer:
    """Detach everywhere and unpin program and maps."""


@dataclass(frozen=True)
class PutNode:
    """Load a backend's programs with this configuration and replace them on these devices; detach them from others."""

    programs: NodePrograms


@dataclass(frozen=True)
class RemoveNode:
    """Detach a backend's programs everywhere and unpin them and their maps."""


@dataclass(frozen=True)
class PutBandwidth:
    """Load the bandwidth manager's programs and replace them on these devices; detach them from others."""

    programs: BandwidthPrograms


@dataclass(frozen=True)
class RemoveBandwidth:
    """Detach the bandwidth manager's programs everywhere and unpin them and their maps."""


@dataclass(frozen=True)
class PutHostBbr:
    """Load the program by which the host's own sockets have BBR, and attach it at the root of cgroup v2."""

    config: bytes


@dataclass(frozen=True)
class RemoveHostBbr:
    """Detach that program."""


@dataclass(frozen=True)
class SetQdisc:
    """Put our qdisc at a device's root; with "" remove ours, so that the kernel's default returns."""

    device: str
    text: str


@dataclass(frozen=True)
class SetSysctl:
    """Set one sysctl, named with dots."""

    name: str
    value: str


@dataclass(frozen=True)
class AddNeighbour:
    """Keep a neighbour resolved from now on."""

    neighbour: Neighbour


@dataclass(frozen=True)
class RemoveNeighbour:
    """Leave a neighbour to itself again."""

    neighbour: Neighbour


@dataclass(frozen=True)
class PutProgram:
    """Load, pin and attach a user's program, atomically replacing the one of that name."""

    program: UserProgram


@dataclass(frozen=True)
class RemoveProgram:
    """Detach and unpin a user's program."""

    program: UserProgram


Operation = Union[
    PrepareMaps,
    PutEntry,
    DeleteEntry,
    PutLut,
    DeleteLut,
    SwapLoadBalancer,
    RemoveLoadBalancer,
    PutNode,
    RemoveNode,
    PutBandwidth,
    RemoveBandwidth,
    PutHostBbr,
    RemoveHostBbr,
    SetQdisc,
    SetSysctl,
    AddNeighbour,
    RemoveNeighbour,
    PutProgram,
    RemoveProgram,
]

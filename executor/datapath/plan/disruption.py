"""What a plan means for traffic: slots that lead elsewhere, flows that lose their way."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from datapath.compile.config import read_config
from datapath.compile.layouts import (
    BACKENDS,
    FLOWS_ANY,
    FLOWS_TCP,
    MODE_DSR,
    SERVICE_DSR,
    SERVICES,
    BackendValue,
    FlowKey,
    FlowValue,
    ServiceValue,
)
from datapath.plan.diff import Plan
from datapath.plan.labels import Labels
from datapath.plan.slots import identity
from datapath.state.kernel_state import KernelState

Flows = Iterable[tuple[FlowKey, FlowValue]]
_REQUEST = 0


def disruption(plan: Plan, names: Mapping[int, str], flows: Flows = ()) -> dict[str, Any]:
    """`slots_moved` and `flows_affected` by `service/PROTOCOL`, and `notes` in sentences.

    `names` maps LUT ids to labels (`Compiled.names`). `flows` are those that the kernel has now, both directions;
    it is not read where no flow can be affected. Only what is not zero is listed.
    """
    labels = Labels(plan.want, plan.have, names)
    moved = {labels.table(lut_id): round(share, 4) for lut_id, share in plan.slots_moved.items()}
    affected = {labels.table(lut_id): count for lut_id, count in flows_affected(plan.want, plan.have, flows).items()}
    return {
        "slots_moved": dict(sorted(moved.items())),
        "flows_affected": dict(sorted(affected.items())),
        "notes": [*_notes(plan.want, plan.have), *_mode_notes(plan.want, plan.have, labels)],
    }


def _lut_of(state: KernelState, backend_id: int) -> int:
    value = state.entries.get(BACKENDS, {}).get(struct.pack("=I", backend_id))
    return int(BackendValue.from_buffer_copy(value).lut_id) if value is not None else 0


def _lost_backends(want: KernelState, have: KernelState) -> dict[int, int]:
    """Id of each backend that goes, or whose id becomes somebody else's -> its table now."""
    before, after = have.entries.get(BACKENDS, {}), want.entries.get(BACKENDS, {})
    changed = [struct.unpack("=I", key)[0] for key, value in before.items() if after.get(key) != value]
    return {
        each: _lut_of(have, each)
        for each in changed
        if identity(have, each) != identity(want, each) or _lut_of(have, each) != _lut_of(want, each)
    }


def flows_affected(want: KernelState, have: KernelState, flows: Flows) -> dict[int, int]:
    """LUT id -> how many flows lose their backend or their translation.

    A backend that only leaves the table keeps its flows.
    """
    lost = _lost_backends(want, have)
    dead_versions = set(_dead_families(want, have))
    ports = _port_range(want)
    changed = _changed_modes(want, have)
    if not lost and not dead_versions and not changed and ports == _port_range(have):
        return {}
    counts: Counter[int] = Counter()
    for key, flow in flows:
        if key.direction != _REQUEST:
            continue
        version = 4 if bytes(key.destination[:12]) == b"\0" * 10 + b"\xff\xff" else 6
        kept = lost.get(flow.backend_id) != flow.lut_id and flow.new_source_port in ports
        if not kept or version in dead_versions or flow.lut_id in changed:
            counts[flow.lut_id] += 1
    return dict(counts)


def _port_range(state: KernelState) -> range:
    config = read_config(state)
    return range(config.snat_port_min, config.snat_port_max + 1) if config is not None else range(1, 65536)


def _dead_families(want: KernelState, have: KernelState) -> Iterator[int]:
    """IP versions whose flows all end."""
    loaded, wanted = read_config(have), read_config(want)
    if loaded is None:
        return
    for version in (4, 6):
        source = f"snat_address{version}"
        before = bytes(getattr(loaded, source))
        if not any(before):
            continue
        after = bytes(getattr(wanted, source)) if wanted is not None else b""
        if before != after or wanted is None or not getattr(wanted, f"enable_ipv{version}"):
            yield version


def _flags(state: KernelState) -> dict[int, int]:
    """LUT id -> flags of the service, the same for all its frontends of a protocol."""
    values = map(ServiceValue.from_buffer_copy, state.entries.get(SERVICES, {}).values())
    return {value.lut_id: value.flags for value in values}


def _changed_modes(want: KernelState, have: KernelState) -> dict[int, str]:
    """LUT id -> the forwarding mode that a service in service gets."""
    before, after = _flags(have), _flags(want)
    return {
        lut_id: "DSR" if after[lut_id] & SERVICE_DSR else "SNAT"
        for lut_id, flags in before.items()
        if lut_id in after and (flags ^ after[lut_id]) & SERVICE_DSR
    }


def _mode_notes(want: KernelState, have: KernelState, labels: Labels) -> Iterator[str]:
    # Backends know one connection as the load balancer's and the other as the client's.
    for lut_id, mode in sorted(_changed_modes(want, have).items()):
        yield f"{labels.table(lut_id)} changes to {mode}: its established flows end"
    loaded, wanted = read_config(have), read_config(want)
    if loaded is None or wanted is None or not loaded.forwarding_modes & wanted.forwarding_modes & MODE_DSR:
        return
    if loaded.dsr_dispatch != wanted.dsr_dispatch and any(flags & SERVICE_DSR for flags in _flags(have).values()):
        yield (
            "the dispatch of direct server return changes: established flows end where it is to or from IP tunnels, and"
            " where backends do not take the new one"
        )


def _device_notes(want: KernelState, have: KernelState) -> Iterator[str]:
    before, after = (state.load_balancer.attachments if state.load_balancer else {} for state in (have, want))
    for device, mode in sorted(before.items()):
        if device not in after:
            yield f"{device} is left: what comes by it is not balanced any more"
        elif after[device] != mode and "tc" not in (mode, after[device]):
            yield (
                f"{device} changes from {mode} to {after[device]} XDP, which cannot be attached both at once: packets"
                " that come in between are not balanced"
            )


def _notes(want: KernelState, have: KernelState) -> Iterator[str]:
    loaded, wanted = read_config(have), read_config(want)
    if loaded is not None and wanted is None:
        yield "the load balancer is removed: every flow through it ends"
    if loaded is None or wanted is None:
        return
    yield from _device_notes(want, have)
    for version in _dead_families(want, have):
        yield f"the source address of IPv{version} requests changes: all IPv{version} flows end"
    if loaded.maglev_table_size != wanted.maglev_table_size:
        yield "the table size changes: most new flows of every service go to other backends"
    if (loaded.hash_seed4, loaded.hash_seed6) != (wanted.hash_seed4, wanted.hash_seed6):
        yield "the hash seed changes: most new flows of services by maglev go to other backends"
    for name in (FLOWS_TCP, FLOWS_ANY):
        size, before = want.map_sizes.get(name), have.map_sizes.get(name)
        if size is not None and before is not None and size < before:
            yield f"map {name} shrinks from {before} to {size}: flows that do not fit are forgotten"

"""VLAN devices: which devices their frames come in and leave by, and with which tags."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from datapath.compile.layouts import VLAN_TAGS, Vlan
from datapath.state.facts import Device, NodeFacts, Tag
from datapath.state.kernel_state import Entries


@dataclass(frozen=True)
class Base:
    """What a VLAN device is on top of in the end, and the tags that its frames have there, outermost first."""

    device: Device
    tags: tuple[Tag, ...]


def base(name: str, facts: NodeFacts) -> Optional[Base]:
    """What carries a VLAN device; None for any other, and where that cannot be seen or takes too many tags."""
    device, tags = facts.devices[name], list[Tag]()
    while device.kind == "vlan":
        if device.tag is None or len(device.lower) != 1 or device.lower[0] not in facts.devices:
            return None
        tags.insert(0, device.tag)
        device = facts.devices[device.lower[0]]
    return Base(device, tuple(tags)) if 0 < len(tags) <= VLAN_TAGS else None


def leaving(facts: NodeFacts) -> Entries:
    """Contents of map VLANS_OUT: of all VLAN devices of the node, as routes may lead to any."""
    found = {}
    for name, device in facts.devices.items():
        below = base(name, facts)
        if below is not None:
            found[struct.pack("=I", device.index)] = _pack(below.device.index, below.tags)
    return found


def arriving(served: Mapping[str, Sequence[str]], facts: NodeFacts) -> Entries:
    """Contents of map VLANS_IN; `served`: VLAN devices -> the devices that programs for them are attached to."""
    found = {}
    for name, ports in served.items():
        below = base(name, facts)
        tags = below.tags if below is not None else ()
        for port in ports:
            found[_pack(facts.devices[port].index, tags)] = struct.pack("=I", facts.devices[name].index)
    return found


def _pack(device: int, tags: Iterable[Tag]) -> bytes:
    packed = Vlan(device=device)
    for place, tag in zip(packed.tags, tags):
        place.protocol, place.control = tag.protocol, tag.vlan
    return bytes(packed)

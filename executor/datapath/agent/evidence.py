"""What was seen when a packet was run through the program, as `datapath trace` needs it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from datapath.agent import tables
from datapath.agent.frames import Packet
from datapath.agent.tables import BackendRow, FrontendRow, endpoint
from datapath.compile.hashing import Flow, Seeds, slot_for
from datapath.compile.layouts import Config, FlowKey, FlowValue, pack_address, unpack_address
from datapath.compile.outcomes import Outcome
from datapath.state.model import Algorithm, IPAddress

REQUEST, REPLY = 0, 1
TRANSLATED = frozenset(
    {"request_forwarded", "request_new_flow", "request_reselected", "reply_forwarded", "reply_passed"}
)
_ROUTED = TRANSLATED | {
    "too_big_answered",
    "no_neighbour_dropped",
    "no_route_dropped",
    "unsupported_route_dropped",
    "forwarding_disabled_dropped",
    "too_big_dropped",
}
"""Outcomes of packets whose flow was found or begun."""


def flow_key(packet: Packet, direction: int) -> bytes:
    """The flow entry that a packet selects, taken for a request or for a reply."""
    key = FlowKey(
        source_port=packet.source_port,
        destination_port=packet.destination_port,
        protocol=packet.protocol.value,
        direction=direction,
    )
    key.source[:], key.destination[:] = pack_address(packet.source), pack_address(packet.destination)
    return bytes(key)


def snat_address(config: Config, version: int) -> Optional[IPAddress]:
    """This node's source address towards backends of a family, None without."""
    packed = bytes(config.snat_address4 if version == 4 else config.snat_address6)
    return unpack_address(packed) if any(packed) else None


def is_reply(packet: Packet, config: Config, before: Mapping[bytes, bytes]) -> bool:
    """Whether the program takes the packet for a backend's: it is for a source port that a flow has."""
    to_us = packet.destination == snat_address(config, packet.destination.version)
    in_range = config.snat_port_min <= packet.destination_port <= config.snat_port_max
    return to_us and in_range and flow_key(packet, REPLY) in before


@dataclass(frozen=True)
class Evidence:
    """What was seen when a packet was run through the program."""

    packet: Packet
    frame: bytes
    """As it went in."""
    action: str
    """What the program returned."""
    outcome: Outcome
    output: bytes
    """As it came out."""
    before: Mapping[bytes, bytes]
    after: Mapping[bytes, bytes]
    """Flow entries that it met, and what became of them."""
    config: Config
    service: Optional[FrontendRow]
    """Of the VIP that the packet, or the flow that it answers, is about."""
    name: str
    """The service's."""
    table: bytes
    """Without marks."""
    backends: Mapping[int, BackendRow]
    """Of the ids in the flow entries and in the slot."""
    ports: tuple[str, ...]
    """Frontends on the packet's destination address."""
    now: int
    """Jiffies."""
    hz: int
    moved: bool = False
    """Whether the packet's slot is marked."""
    previous: int = 0
    """Backend id of who had the packet's slot before; 0 is nobody."""
    choices: Mapping[str, tuple[Optional[bytes], Optional[bytes]]] = field(default_factory=dict)
    """Map -> what was recorded of a flow with direct server return before and afterwards."""

    @property
    def reply(self) -> bool:
        """Whether the packet is a backend's."""
        return is_reply(self.packet, self.config, self.before)

    @property
    def has_dsr(self) -> bool:
        """Whether the packet is a request to a service with direct server return."""
        return self.service is not None and self.service.has_dsr and not self.reply

    @property
    def key(self) -> bytes:
        """Of the flow entry that the packet selects."""
        return flow_key(self.packet, REPLY if self.reply else REQUEST)

    @property
    def old(self) -> Optional[FlowValue]:
        """The flow entry before the packet."""
        return value(self.before.get(self.key))

    @property
    def new(self) -> Optional[FlowValue]:
        """The flow entry after it, where it got as far as that."""
        return value(self.after.get(self.key)) if self.outcome.name in _ROUTED else None

    @property
    def slot(self) -> Optional[int]:
        """The slot that a new flow of this client gets, where the packet decides it."""
        if self.service is None or self.reply or self.service.algorithm != Algorithm.MAGLEV.value:
            return None
        return expected_slot(self.packet, self.config)

    @property
    def slot_backend(self) -> int:
        """Backend id in that slot; 0 is nobody."""
        ids = tables.slots(self.table)
        return ids[self.slot] if self.slot is not None and self.slot < len(ids) else 0

    @property
    def began(self) -> bool:
        """Whether the packet began a flow."""
        name, old, new = self.outcome.name, self.old, self.new
        if name in ("request_new_flow", "request_reselected"):
            return True
        # Where the flow could not be forwarded the outcome does not say; an entry that goes elsewhere is another flow.
        return not self.reply and (old is None or (new is not None and ends(old) != ends(new)))


def expected_slot(packet: Packet, config: Config) -> int:
    """The slot that the executor's own arithmetic gives a packet; the program computes it by itself."""
    flow = Flow(packet.source, packet.source_port, packet.destination_port, packet.protocol)
    return slot_for(flow, config.maglev_table_size, Seeds(0, config.hash_seed4, config.hash_seed6))


def backend_ids(packet: Packet, config: Config, table: bytes, *flows: Mapping[bytes, bytes]) -> set[int]:
    """Ids that an explanation may need: those in flow entries and the one in the packet's slot."""
    ids = {FlowValue.from_buffer_copy(value).backend_id for each in flows for value in each.values()}
    slots = tables.slots(table)
    slot = expected_slot(packet, config)
    return (ids | ({slots[slot]} if slot < len(slots) else set())) - {0}


def value(raw: Optional[bytes]) -> Optional[FlowValue]:
    """A flow entry's contents, None where there is no entry."""
    return None if raw is None else FlowValue.from_buffer_copy(raw)


def ends(flow: FlowValue) -> tuple[str, int, str, int]:
    """Source, its port, destination, its port that a packet of the flow gets."""
    source, destination = (str(unpack_address(bytes(each))) for each in (flow.new_source, flow.new_destination))
    return source, flow.new_source_port, destination, flow.new_destination_port


def target(flow: FlowValue) -> str:
    """Where a packet of the flow goes, ADDR:PORT."""
    return endpoint(unpack_address(bytes(flow.new_destination)), flow.new_destination_port)

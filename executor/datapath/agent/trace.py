"""`datapath trace`: one packet through the program that is loaded here, and why it went where it went."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional, TypeVar

from datapath.agent import dsr, explain, frames, tables, views
from datapath.agent import evidence as evidences
from datapath.agent.core import Agent
from datapath.agent.frames import Packet
from datapath.compile import layouts
from datapath.compile.outcomes import OUTCOMES, Verdict
from datapath.kernel import KernelError, devices, neighbours
from datapath.kernel.clock import jiffies_hz
from datapath.kernel.devices import Link
from datapath.kernel.errors import BpfError
from datapath.kernel.trace import Instance, Run
from datapath.plan.history import owners
from datapath.spec.errors import RefusedError, SpecError, SpecErrors, nearest_name
from datapath.spec.scalars import parse_address, parse_int, parse_port, split_port
from datapath.state.facts import NextHop
from datapath.state.kernel_state import KernelState
from datapath.state.model import Frontend, IPAddress, Protocol

T = TypeVar("T")

_SOURCE = "ADDR:PORT, as 198.51.100.7:40000 or [2001:db8::7]:40000"
_DESTINATION = "ADDR:PORT/PROTO, as 192.0.2.10:80/TCP or [2001:db8::10]:53/UDP"
_FLAGS = "letters as S, SA, FA, R, or names as syn,ack"
_NO_MAC = "00:00:00:00:00:00"
_SOMEBODY = "02:00:00:00:00:01"
"""Source of a frame whose real sender is not known: locally administered."""


def trace(agent: Agent, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Run the packet that `parameters` describe; nothing of the node changes by it.

    Raises SpecErrors, NotFoundError (no load balancer), KernelError.
    """
    packet = parse(parameters)
    links = devices.links()
    name = parameters.get("device")
    if name is not None and name not in links:
        message = "there is no such device"
        raise SpecErrors([SpecError("command line", "--device", name, message, None, nearest_name(name, links))])
    if not agent.kernel.loaded():
        message = "no load balancer is loaded on this node"
        raise views.NotFoundError(SpecError("node", "load balancer", None, message, "`datapath apply` loads it"))
    with agent.kernel.second_instance() as instance:
        return _Trace(agent, instance, packet, links).answer(name)


class _Trace:
    """One packet, one instance of the program."""

    def __init__(self, agent: Agent, instance: Instance, packet: Packet, links: Mapping[str, Link]) -> None:
        self._agent = agent
        self._instance = instance
        self._packet = packet
        self._links = links
        self._attached = agent.kernel.attached_to(instance.loaded_id)
        self._macs = neighbours.macs()
        self._config = layouts.Config.from_buffer_copy(instance.config)

    def answer(self, device: Optional[str]) -> dict[str, Any]:
        """The whole answer."""
        sender = neighbours.next_hops([self._packet.source]).get(self._packet.source)
        link = self._links[device] if device is not None else self._receiver(sender)
        carrier, tags = self._way_in(link)
        frame = self._frame(link, sender, tags)
        run = self._run(frame, carrier)
        evidence = self._evidence(frame, run)
        attached = self._carries(carrier)
        return {
            "device": {"name": link.name, "attached": self._attached.get(carrier.index)},
            **explain.explain(evidence),
            "next_hop": self._next_hop(evidence),
            "notes": _notes(link, attached, run),
        }

    def _receiver(self, sender: Optional[NextHop]) -> Link:
        """The device that the packet most likely comes in by: on the way back to its source."""
        back = self._links.get(sender.device) if sender is not None else None
        if back is not None and self._carries(self._way_in(back)[0]):
            return back
        attached = [link for _, link in sorted(self._links.items()) if self._carries(link)]
        if attached:
            return attached[0]
        message = "is needed: the load balancer is attached to no device"
        raise SpecErrors([SpecError("command line", "--device", None, message, ", ".join(sorted(self._links)))])

    def _carries(self, link: Link) -> bool:
        return link.index in self._attached

    def _way_in(self, link: Link) -> tuple[Link, bytes]:
        """The device at which XDP meets frames for `link`, and their tags: for a VLAN device not itself."""
        for key, value in self._instance.entries(layouts.VLANS_IN):
            way = layouts.Vlan.from_buffer_copy(key)
            carrier = next((each for each in self._links.values() if each.index == way.device), None)
            if int.from_bytes(value, sys.byteorder) == link.index and carrier is not None:
                return carrier, b"".join(bytes(tag) for tag in way.tags if tag.protocol)
        return link, b""

    def _frame(self, link: Link, sender: Optional[NextHop], tags: bytes) -> bytes:
        known = self._macs.get(sender) if sender is not None and sender.device == link.name else None
        return frames.build(self._packet, known or _SOMEBODY, link.mac or _NO_MAC, tags)

    def _run(self, frame: bytes, link: Link) -> Run:
        request, reply = (
            evidences.flow_key(self._packet, direction) for direction in (evidences.REQUEST, evidences.REPLY)
        )
        try:
            return self._instance.run(frame, link.index, request, reply)
        except BpfError as error:
            raise KernelError(None, error.errno or 0, f"running the program on {len(frame)} bytes: {error}") from error

    def _evidence(self, frame: bytes, run: Run) -> evidences.Evidence:
        packet, config = self._packet, self._config
        frontend = Frontend(packet.destination, packet.destination_port, packet.protocol)
        if evidences.is_reply(packet, config, run.before):
            flow = layouts.FlowValue.from_buffer_copy(run.before[evidences.flow_key(packet, evidences.REPLY)])
            vip = layouts.unpack_address(bytes(flow.new_source))
            frontend = Frontend(vip, flow.new_source_port, packet.protocol)
        service = self._service(frontend)
        marked = self._instance.table(service.lut_id) if service is not None else b""
        table = owners(marked)
        moved, previous = self._history(service, marked)
        return evidences.Evidence(
            packet=packet,
            frame=frame,
            action=run.action,
            outcome=OUTCOMES[run.outcome],
            output=run.frame,
            before=run.before,
            after=run.after,
            config=config,
            service=service,
            name=views.owners(self._agent).get(frontend, "-"),
            table=table,
            moved=moved,
            previous=previous,
            choices=run.choices,
            backends=self._backends(
                evidences.backend_ids(packet, config, table, run.before, run.after)
                | dsr.backend_ids(run.choices)
                | ({previous} - {0})
            ),
            ports=() if service is not None else self._ports(packet.destination),
            hz=(hz := jiffies_hz()),
            now=tables.jiffies(hz),
        )

    def _history(self, service: Optional[tables.FrontendRow], marked: bytes) -> tuple[bool, int]:
        """Whether the packet's slot is marked, and the id of who had it before."""
        slot, slots = evidences.expected_slot(self._packet, self._config), tables.slots(marked)
        if service is None or slot >= len(slots) or not slots[slot] & layouts.SLOT_MOVED:
            return False, 0
        history = tables.slots(self._instance.table(service.lut_id, layouts.HISTORIES))
        return True, history[slot] if slot < len(history) else 0

    def _service(self, frontend: Frontend) -> Optional[tables.FrontendRow]:
        key = layouts.ServiceKey(port=frontend.port, protocol=frontend.protocol.value)
        key.address[:] = layouts.pack_address(frontend.address)
        value = self._instance.entry(layouts.SERVICES, bytes(key))
        entries = {} if value is None else {bytes(key): value}
        return tables.frontends(KernelState(entries={layouts.SERVICES: entries})).get(frontend)

    def _backends(self, ids: set[int]) -> dict[int, tables.BackendRow]:
        keys = [number.to_bytes(4, sys.byteorder) for number in sorted(ids)]
        found = {key: self._instance.entry(layouts.BACKENDS, key) for key in keys}
        entries = {key: value for key, value in found.items() if value is not None}
        return tables.backends(KernelState(entries={layouts.BACKENDS: entries}))

    def _ports(self, address: IPAddress) -> tuple[str, ...]:
        """Frontends on an address."""
        packed = layouts.pack_address(address)
        # struct service_key begins with the address.
        entries = {key: value for key, value in self._instance.entries(layouts.SERVICES) if key.startswith(packed)}
        return tuple(sorted(str(each) for each in tables.frontends(KernelState(entries={layouts.SERVICES: entries}))))

    def _next_hop(self, evidence: evidences.Evidence) -> Optional[dict[str, Any]]:
        """Where the packet goes next: by the MAC addresses that the program wrote, else as the routes say."""
        if evidence.has_dsr:
            chosen = dsr.chosen(evidence)
            target = None if chosen is None else chosen.address
        else:
            target = None if evidence.new is None else layouts.unpack_address(bytes(evidence.new.new_destination))
        if target is None:
            return None
        routed = neighbours.next_hops([target]).get(target)
        if evidence.outcome.verdict is not Verdict.FORWARD:
            return None if routed is None else _hop(routed, self._macs.get(routed))
        fields = frames.decode(evidence.output)
        mac = fields["destination_mac"]
        leaving = sorted(link.name for link in self._links.values() if link.mac == fields["source_mac"])
        hops = [hop for hop, known in self._macs.items() if known == mac and hop.device in leaving]
        if not hops:
            return {"device": " or ".join(leaving), "address": None, "mac": mac}
        return _hop(routed if routed in hops else hops[0], mac)


def _hop(hop: NextHop, mac: Optional[str]) -> dict[str, Any]:
    return {"device": hop.device, "address": str(hop.address), "mac": mac}


def _notes(link: Link, attached: bool, run: Run) -> list[str]:
    notes = []
    if not attached:
        carries = "another XDP program" if link.xdp_program else "no XDP program"
        notes.append(f"{link.name} carries {carries}: a real packet there does not meet the load balancer")
    if not run.on_device:
        notes.append("this kernel runs programs only as if from device lo: routes were asked for that device")
    return notes


# --- the command line's words ---


def parse(parameters: Mapping[str, str]) -> Packet:
    """The packet that is described; raises SpecErrors with everything that is wrong."""
    errors: list[SpecError] = []

    def take(name: str, parser: Callable[[str], T], allowed: str, default: T) -> T:
        text = parameters.get(name)
        if text is None and default is not None:
            return default
        try:
            return parser(text or "")
        except RefusedError as error:
            place = name if name in ("source", "destination") else f"--{name.replace('_', '-')}"
            message = error.message if text else "is missing"
            errors.append(SpecError("command line", place, text, message, error.allowed or allowed, error.nearest))
            return default

    source = take("source", _parse_source, _SOURCE, None)
    destination = take("destination", _parse_destination, _DESTINATION, None)
    ttl = take("ttl", lambda text: parse_int(text, 0, 255), "0 to 255", 64)
    flags, length = frames.TCP_FLAGS["syn"], None
    if source is not None and destination is not None:
        errors += _contradictions(source, destination, parameters)
        least = frames.smallest(source.address.version, destination.protocol)
        length = take("length", lambda text: parse_int(text, least, frames.LARGEST), "", least)
    if destination is None or destination.protocol is Protocol.TCP:
        flags = take("tcp_flags", _parse_flags, _FLAGS, flags)
    if errors or source is None or destination is None:
        raise SpecErrors(errors)
    ends = source.address, source.port, destination.address, destination.port
    return Packet(*ends, destination.protocol, flags, ttl, length)


@dataclass(frozen=True)
class _End:
    address: IPAddress
    port: int


def _parse_source(text: str) -> _End:
    host, port = split_port(text)
    if not port:
        raise RefusedError("has no port", _SOURCE)
    return _End(parse_address(host), parse_port(port))


def _parse_destination(text: str) -> Frontend:
    place, slash, protocol = text.partition("/")
    host, port = split_port(place)
    if not port:
        raise RefusedError("has no port", _DESTINATION)
    if not slash or protocol.upper() not in Protocol.__members__:
        message = f"unknown protocol {protocol!r}" if slash else "has no protocol"
        raise RefusedError(message, _DESTINATION, nearest_name(protocol, Protocol.__members__))
    return Frontend(parse_address(host), parse_port(port), Protocol[protocol.upper()])


def _parse_flags(text: str) -> int:
    try:
        return frames.parse_flags(text)
    except ValueError:
        raise RefusedError("unknown TCP flags", _FLAGS) from None


def _contradictions(source: _End, destination: Frontend, parameters: Mapping[str, str]) -> list[SpecError]:
    found = []
    if source.address.version != destination.address.version:
        message = f"IPv{source.address.version} cannot be sent to IPv{destination.address.version}"
        found.append(SpecError("command line", "source", parameters["source"], message, "one address family"))
    if destination.protocol is not Protocol.TCP and "tcp_flags" in parameters:
        message = f"{destination.protocol.name} has no TCP flags"
        found.append(SpecError("command line", "--tcp-flags", parameters["tcp_flags"], message))
    return found

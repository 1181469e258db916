"""Why a traced packet went where it went: from what was measured, checked against what should have been.

Pure: `Evidence` in, facts in words out. The program itself says only its outcome; flow entries before and after, the
tables that it read and the frame that it made tell the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

from datapath.agent import dsr, tables
from datapath.agent.evidence import REPLY, TRANSLATED, Evidence, ends, snat_address, target, value
from datapath.agent.frames import TCP_FLAGS, Packet, decode
from datapath.agent.tables import BackendRow, FrontendRow, endpoint
from datapath.compile.layouts import FlowKey, FlowValue, unpack_address
from datapath.compile.outcomes import Verdict
from datapath.state.model import Algorithm, BackendState

_NEW, _ESTABLISHED, _CLOSING = range(3)
_STATES = {_NEW: "new", _ESTABLISHED: "established", _CLOSING: "closed"}
_SEND = ("XDP_TX", "XDP_REDIRECT", "TC_ACT_REDIRECT")
_ACTIONS = {
    Verdict.FORWARD: _SEND,
    Verdict.ANSWER: _SEND,
    Verdict.PASS: ("XDP_PASS", "TC_ACT_UNSPEC"),
    Verdict.DROP: ("XDP_DROP", "TC_ACT_SHOT"),
}
_SHOWN_FRONTENDS = 10
_WITHOUT_BACKEND = frozenset({"no_backend_answered", "no_backend_dropped"})


def explain(evidence: Evidence) -> dict[str, Any]:
    """The answer of `datapath trace`, but for devices and next hop."""
    if evidence.has_dsr:
        return {**_common(evidence), **dsr.explain(evidence), "disagreements": list(disagreements(evidence))}
    new = evidence.new
    return {
        **_common(evidence),
        "backend": None if new is None else _backend(evidence, new),
        "why": list(_why(evidence)),
        "snat": None if new is None or evidence.reply else _snat(evidence, new),
        "flow": {"before": _flow(evidence.old), "after": _flow(new)},
        "disagreements": list(disagreements(evidence)),
    }


def _common(evidence: Evidence) -> dict[str, Any]:
    return {
        "verdict": evidence.outcome.verdict.value,
        "action": evidence.action,
        "outcome": evidence.outcome.name,
        "sentence": evidence.outcome.sentence,
        "direction": "reply" if evidence.reply else "request",
        "service": _service(evidence),
        "slot": _slot(evidence),
        "before": decode(evidence.frame),
        "after": None if evidence.outcome.verdict is Verdict.DROP else decode(evidence.output),
    }


# --- facts ---


def _service(evidence: Evidence) -> Optional[dict[str, Any]]:
    row = evidence.service
    if row is None:
        return None
    return {
        "name": evidence.name,
        "frontend": str(row.frontend),
        "algorithm": Algorithm(row.algorithm).name.lower(),
        "backends": row.backend_count,
        "lut_id": row.lut_id,
    }


def _slot(evidence: Evidence) -> Optional[dict[str, Any]]:
    if evidence.slot is None:
        return None
    row = evidence.backends.get(evidence.slot_backend)
    return {
        "number": evidence.slot,
        "table_size": evidence.config.maglev_table_size,
        "backend": row.endpoint if row else None,
        "backend_id": evidence.slot_backend,
    }


def _backend(evidence: Evidence, flow: FlowValue) -> dict[str, Any]:
    row = _owner(evidence, flow)
    address = evidence.packet if evidence.reply else None
    place = endpoint(address.source, address.source_port) if address else target(flow)
    return {"backend": place, "id": flow.backend_id, "state": row.state.name.lower() if row else "gone"}


def _snat(evidence: Evidence, new: FlowValue) -> dict[str, Any]:
    kept = new.new_source_port == evidence.packet.source_port
    how, reason = "kept" if kept else "allocated", ""
    if not evidence.began:
        how = "record"
    elif not kept:
        low, high = evidence.config.snat_port_min, evidence.config.snat_port_max
        reason = f"the client's port is outside {low}-{high}"
        if low <= evidence.packet.source_port <= high:
            reason = f"the client's port is taken towards this backend by {_holder(evidence, new) or 'another flow'}"
    source = endpoint(unpack_address(bytes(new.new_source)), new.new_source_port)
    return {"source": source, "how": how, "reason": reason}


def _holder(evidence: Evidence, new: FlowValue) -> str:
    """The client whose flow to the same backend has this client's port."""
    key = FlowKey(protocol=evidence.packet.protocol.value, direction=REPLY)
    key.source[:], key.destination[:] = bytes(new.new_destination), bytes(new.new_source)
    key.source_port, key.destination_port = new.new_destination_port, evidence.packet.source_port
    held = value(evidence.before.get(bytes(key)))
    return target(held) if held else ""


def _flow(flow: Optional[FlowValue]) -> Optional[dict[str, Any]]:
    if flow is None:
        return None
    return {
        "source": endpoint(unpack_address(bytes(flow.new_source)), flow.new_source_port),
        "destination": target(flow),
        "backend_id": flow.backend_id,
        "state": _STATES.get(flow.state, str(flow.state)),
    }


# --- reasons ---


def _why(evidence: Evidence) -> Iterator[str]:
    if evidence.new is not None:
        yield _record(evidence, evidence.new)
        choice = _choice(evidence, evidence.new)
        if choice:
            yield choice
    elif evidence.outcome.name in _WITHOUT_BACKEND and evidence.service is not None:
        yield _nobody(evidence, evidence.service)
    elif evidence.outcome.name == "no_snat_port_dropped":
        address = snat_address(evidence.config, evidence.packet.source.version)
        if address is None:
            yield f"this node has no source address for IPv{evidence.packet.source.version} (direct-routing-device)"
        else:
            yield f"all source ports of {address} that were tried are taken towards the backend"
    elif evidence.outcome.name in ("no_service_passed", "unknown_port_dropped"):
        yield _no_service(evidence)


def _record(evidence: Evidence, new: FlowValue) -> str:
    """What the flow record had to do with it."""
    old = evidence.old
    if old is None:
        return "no flow record: a new flow begins"
    seen = f"flow record ({_STATES.get(old.state, old.state)}, idle {_idle(evidence, old):.0f} s)"
    if not evidence.began:
        return f"{seen} leads to " + ("the client" if evidence.reply else "this backend")
    return f"{seen} cannot be used: {_unusable(evidence, old)}"


def _unusable(evidence: Evidence, old: FlowValue) -> str:
    """Why a flow record could not take the packet; in the order in which the program asks."""
    opens, expired = _opens(evidence.packet), _idle(evidence, old) > _timeout(evidence, old)
    over = opens and old.state == _CLOSING
    name = evidence.outcome.name
    if name == "request_new_flow" or (name != "request_reselected" and (expired or over)):
        if over and not expired:
            return "the connection is over, and this SYN opens another"
        return f"it is older than the {_timeout(evidence, old):.0f} s that such a flow is remembered"
    row = _owner(evidence, old)
    if row is None:
        return f"its backend {target(old)} is gone"
    if opens and row.state is not BackendState.ACTIVE:
        return f"its backend {target(old)} is {row.state.name.lower()} and this SYN opens a connection"
    return f"its source port {old.new_source_port} belongs to another flow by now"


def _choice(evidence: Evidence, new: FlowValue) -> str:
    """What the table had to do with it."""
    if evidence.service is None or evidence.reply:
        return ""
    began = evidence.began
    if evidence.slot is None:
        return "a random slot of the table holds this backend; a real packet draws its own" if began else ""
    if began:
        return f"slot {evidence.slot} of the table holds this backend"
    row = evidence.backends.get(evidence.slot_backend)
    if evidence.slot_backend == new.backend_id or row is None:
        return ""
    return f"a new flow of this client would go to {row.endpoint} (slot {evidence.slot})"


def _nobody(evidence: Evidence, service: FrontendRow) -> str:
    if not service.backend_count:
        return "the service has no backend that takes new connections"
    if not evidence.table:
        return f"the service has no table (LUT {service.lut_id})"
    if evidence.slot is None:
        return "the slot that was drawn is empty"
    row = evidence.backends.get(evidence.slot_backend)
    return f"slot {evidence.slot} of the table " + (
        f"holds {row.endpoint}, which belongs to another service" if row else "holds no backend"
    )


def _no_service(evidence: Evidence) -> str:
    packet = evidence.packet
    place = endpoint(packet.destination, packet.destination_port)
    if packet.destination == snat_address(evidence.config, packet.destination.version):
        return f"{packet.destination} is this node's address towards backends, and no flow answers to {place}"
    if evidence.ports:
        more = ", ..." if len(evidence.ports) > _SHOWN_FRONTENDS else ""
        return f"{packet.destination} has the frontends {', '.join(evidence.ports[:_SHOWN_FRONTENDS])}{more}"
    return f"no frontend has the address {packet.destination}"


# --- checks ---


def disagreements(evidence: Evidence) -> Iterator[str]:
    """Where what was measured is not what the tables, the hash and the configuration say it should be."""
    name, verdict = evidence.outcome.name, evidence.outcome.verdict
    if evidence.action not in _ACTIONS[verdict]:
        yield f"outcome {name} means {verdict.value}, but the program returned {evidence.action}"
    if evidence.has_dsr:
        yield from dsr.disagreements(evidence)
    elif (name in ("reply_forwarded", "reply_passed")) != (evidence.reply and name in TRANSLATED):
        yield f"outcome {name} does not fit the flow records"
    yield from _wrong_choice(evidence)
    if name in TRANSLATED and not evidence.has_dsr:
        yield from _wrong_translation(evidence)
    if verdict is not Verdict.DROP and decode(evidence.output)["checksums"] != "right":
        yield "the packet that came out has a wrong checksum"


def _wrong_choice(evidence: Evidence) -> Iterator[str]:
    size, slots = evidence.config.maglev_table_size, len(evidence.table) // 4
    if evidence.table and slots != size:
        yield f"the program is configured for tables of {size} slots, but the table has {slots}"
    new = None if evidence.has_dsr else evidence.new
    if new is None or evidence.reply or not evidence.began or evidence.service is None:
        return
    if evidence.slot is None:
        if new.backend_id not in tables.slots(evidence.table):
            yield f"the program chose {target(new)} (id {new.backend_id}), which is in no slot of the table"
    elif new.backend_id != evidence.slot_backend:
        row = evidence.backends.get(evidence.slot_backend)
        should = row.endpoint if row else "nobody"
        yield (
            f"the program chose {target(new)} (id {new.backend_id}), but slot {evidence.slot}, which the packet's"
            f" hash gives, holds {should} (id {evidence.slot_backend})"
        )


def _wrong_translation(evidence: Evidence) -> Iterator[str]:
    new, fields = evidence.new, decode(evidence.output)
    if new is None:
        yield "the packet was translated, but there is no flow record of it"
        return
    became = (fields["source"], fields.get("source_port"), fields["destination"], fields.get("destination_port"))
    if became != ends(new):
        yield f"the packet was not translated as its flow record says: {ends(new)}"


# --- small ---


def _owner(evidence: Evidence, flow: FlowValue) -> Optional[BackendRow]:
    """The backend that a flow record means, None where it is gone or its id is another's by now."""
    row = evidence.backends.get(flow.backend_id)
    if row is None or (evidence.service is not None and row.lut_id != evidence.service.lut_id):
        return None
    packet = evidence.packet
    place = endpoint(packet.source, packet.source_port) if evidence.reply else target(flow)
    return row if row.endpoint == place else None


def _opens(packet: Packet) -> bool:
    flags = packet.tcp_flags & (TCP_FLAGS["syn"] | TCP_FLAGS["ack"])
    return packet.protocol.name == "TCP" and flags == TCP_FLAGS["syn"]


def _idle(evidence: Evidence, flow: FlowValue) -> float:
    return tables.idle_seconds(evidence.now, flow.last_seen, evidence.hz)


def _timeout(evidence: Evidence, flow: FlowValue) -> float:
    config = evidence.config
    limits = {_ESTABLISHED: config.tcp_established_timeout, _CLOSING: config.tcp_closing_timeout}
    return float(limits.get(flow.state, config.any_timeout)) / evidence.hz

"""Why a traced packet to a service with direct server return went where it went. Pure, as `datapath.agent.explain`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

from datapath.agent import tables
from datapath.agent.evidence import Evidence
from datapath.agent.frames import TCP_FLAGS, decode
from datapath.agent.tables import BackendRow
from datapath.compile.layouts import CHOICES_TCP, ChoiceValue
from datapath.state.model import Protocol

DISPATCHES = {1: "opt", 2: "ipip", 3: "geneve"}
_SENT = ("request_forwarded", "request_new_flow")

Choices = Mapping[str, tuple[Optional[bytes], Optional[bytes]]]
"""Map -> ChoiceValue before and after the packet."""


def backend_ids(choices: Choices) -> set[int]:
    """Ids that records name."""
    return {record.backend_id for pair in choices.values() for record in map(_record, pair) if record is not None}


def chosen(evidence: Evidence) -> Optional[BackendRow]:
    """The backend that the packet was sent to: all dispatches put its address outside."""
    if evidence.outcome.name not in _SENT:
        return None
    address = decode(evidence.output)["to"]
    rows = (evidence.backends[each] for each in _candidates(evidence) if each in evidence.backends)
    return next((row for row in rows if str(row.address) == address), None)


def explain(evidence: Evidence) -> dict[str, Any]:
    """The parts of the answer that tell of backend, reasons and state."""
    row = chosen(evidence)
    before, after = (_kept(evidence, index) for index in (0, 1))
    return {
        "backend": None
        if row is None
        else {"backend": row.endpoint, "id": row.backend_id, "state": row.state.name.lower()},
        "why": list(_why(evidence, row)),
        "dispatch": DISPATCHES.get(evidence.config.dsr_dispatch),
        "snat": None,
        "flow": {"before": before, "after": after},
    }


def disagreements(evidence: Evidence) -> Iterator[str]:
    """Where the packet was not sent to whom tables and records name."""
    if evidence.outcome.name not in _SENT:
        return
    row = chosen(evidence)
    if row is None:
        yield f"the packet was sent to {decode(evidence.output)['to']}, which neither slot nor record names"


def _candidates(evidence: Evidence) -> Iterator[int]:
    """Ids, the likeliest first."""
    for pair in evidence.choices.values():
        for record in map(_record, reversed(pair)):
            if record is not None:
                yield record.backend_id
    if evidence.moved:
        yield evidence.previous
    yield evidence.slot_backend
    yield from evidence.backends


def _why(evidence: Evidence, row: Optional[BackendRow]) -> Iterator[str]:
    if row is None:
        if evidence.outcome.name.startswith("no_backend"):
            yield "the service has no backend that takes this packet"
        return
    recorded = _kept(evidence, 0)
    if recorded is not None and recorded["backend_id"] == row.backend_id:
        yield f"record of the flow ({recorded['map']}, idle {recorded['idle']:.0f} s) leads to this backend"
    elif evidence.slot is None:
        yield "a random slot of the table holds this backend; a real packet draws its own"
    elif not evidence.moved:
        yield f"slot {evidence.slot} of the table holds this backend and has not changed owner: no record is needed"
    elif row.backend_id == evidence.slot_backend:
        yield f"slot {evidence.slot} changed owner, and {_opening(evidence)} takes the new one"
    else:
        yield f"slot {evidence.slot} changed owner, and a flow that is older keeps the previous one"
    if _kept(evidence, 1) is not None and recorded is None:
        yield "the flow is recorded from now on"


def _opening(evidence: Evidence) -> str:
    if evidence.packet.protocol is not Protocol.TCP:
        return "so long after that a flow without a record"
    return "a SYN" if evidence.packet.tcp_flags & TCP_FLAGS["syn"] else "a flow whose previous owner is gone"


def _kept(evidence: Evidence, index: int) -> Optional[dict[str, Any]]:
    """The record that counts, before (0) or after (1) the packet."""
    for name in sorted(evidence.choices, key=lambda each: each != CHOICES_TCP):
        record = _record(evidence.choices[name][index])
        if record is not None:
            idle = tables.idle_seconds(evidence.now, record.last_seen, evidence.hz)
            state = "established" if name == CHOICES_TCP else "new"
            return {"map": name, "backend_id": record.backend_id, "state": state, "idle": idle}
    return None


def _record(raw: Optional[bytes]) -> Optional[ChoiceValue]:
    return None if raw is None else ChoiceValue.from_buffer_copy(raw)

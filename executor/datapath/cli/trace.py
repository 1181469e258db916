"""The answer of `datapath trace` as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

from datapath.cli.tables import BOLD, GREEN, RED, YELLOW, count, paint, table

Document = Mapping[str, Any]

_COLOURS = {"forward": GREEN, "answer": YELLOW, "pass": YELLOW, "drop": RED}
_FIELDS = (
    ("source_mac", "source MAC"),
    ("destination_mac", "destination MAC"),
    ("source", "source"),
    ("source_port", "source port"),
    ("destination", "destination"),
    ("destination_port", "destination port"),
    ("protocol", "protocol"),
    ("message", "message"),
    ("tcp_flags", "TCP flags"),
    ("ttl", "TTL"),
    ("length", "length"),
    ("vlan", "VLAN"),
    ("tunnel", "tunnel"),
    ("dsr", "DSR option"),
    ("checksums", "checksums"),
)
_SNAT = {"kept": "the client's port kept", "record": "as the flow record says"}


def render(document: Document) -> str:
    """Verdict, what led to it, and the packet before and after."""
    verdict = document["verdict"]
    head = f"{paint(verdict.upper(), _COLOURS.get(verdict, ''))}  {document['outcome']} ({document['action']})"
    parts = [f"{head}\n{document['sentence']}"]
    parts += ["\n".join(paint(f"DISAGREEMENT: {each}", RED) for each in document["disagreements"])]
    parts += ["\n".join(f"{paint(f'{name:<10}', BOLD)} {text}" for name, text in _facts(document))]
    parts += [_packets(document)]
    parts += ["\n".join(paint(f"note: {each}", YELLOW) for each in document["notes"])]
    return "\n\n".join(part for part in parts if part)


def _facts(document: Document) -> Iterator[tuple[str, str]]:
    device = document["device"]
    yield "device", f"{device['name']} ({device['attached'] or 'not attached'})"
    service, slot = document["service"], document["slot"]
    if service is not None:
        facts = f"{service['algorithm']}, {count(service['backends'])} backends"
        yield "service", f"{service['name']}  {service['frontend']}, {facts}"
    if slot is not None:
        holds = slot["backend"] or "nobody"
        yield "slot", f"{slot['number']} of {slot['table_size']} in LUT {service['lut_id']}: {holds}"
    if document["backend"] is not None:
        backend = document["backend"]
        yield "backend", f"{backend['backend']}  {backend['state']}, id {backend['id']}"
    for index, reason in enumerate(document["why"]):
        yield "" if index else "why", reason
    if document.get("dispatch") is not None:
        yield "DSR", f"by {document['dispatch']}, the backend answers the client itself"
    if document["snat"] is not None:
        snat = document["snat"]
        yield "SNAT", f"{snat['source']}, {_SNAT.get(snat['how']) or 'port allocated: ' + snat['reason']}"
    if document["next_hop"] is not None:
        hop = document["next_hop"]
        yield "next hop", f"{hop['address'] or 'unknown'} on {hop['device']}, MAC {hop['mac'] or 'not resolved'}"


def _fields(packet: Optional[Document]) -> dict[str, Any]:
    """A packet's fields as they are shown."""
    fields = dict(packet or {})
    if "vlan" in fields:
        fields["vlan"] = ", ".join(map(str, fields["vlan"]))
    return fields


def _packets(document: Document) -> str:
    before, after = _fields(document["before"]), _fields(document["after"])
    if not after:
        return table(("FIELD", "PACKET"), [(name, before[key]) for key, name in _FIELDS if key in before])
    rows = []
    for key, name in _FIELDS:
        if key in before or key in after:
            old, new = before.get(key, "-"), after.get(key, "-")
            rows.append((name, old, new, "" if old == new else "changed"))
    return table(("FIELD", "BEFORE", "AFTER", ""), rows)

"""`datapath clustermesh`: what is known of other clusters, and what stands between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Optional

from datapath.cli import own_store
from datapath.cli.connections import as_rows, days, state, troubles
from datapath.cli.errors import refused
from datapath.cli.tables import BOLD, GREEN, RED, YELLOW, ago, count, paint, since, table
from datapath.spec.errors import nearest_name
from datapath.spec.fields import Violations

if TYPE_CHECKING:
    from datapath.sources.mesh.session import Rules

Document = Mapping[str, Any]
Ask = Callable[[], Document]

PAUSE = 0.5
"""Seconds between looks while waiting."""


def wait(ask: Ask, seconds: float) -> Document:
    """The answer once every cluster is ready, or the last one after that time."""
    end = time.monotonic() + seconds
    while True:
        document = ask()
        if document["ready"] or time.monotonic() > end:
            return document
        time.sleep(PAUSE)


def status(document: Document) -> str:
    """`datapath clustermesh status`."""
    head = f"cluster {paint(document['name'], BOLD)}, id {document['id']}"
    rows = [
        (
            each["name"],
            each["id"] or "-",
            state(each),
            since(each["since"]),
            each["endpoint"] or "-",
            *(count(each[kind]) for kind in each["synced"]),
            ago(each["heartbeat"]),
            count(each["failures"]),
            days(each["certificate_expires"]),
        )
        for each in document["clusters"]
    ]
    kinds = [kind.upper() for kind in (document["clusters"][0]["synced"] if rows else ())]
    header = ("CLUSTER", "ID", "STATE", "FOR", "ENDPOINT", *kinds, "HEARTBEAT", "FAILURES", "CERTIFICATE")
    numbers = range(5, 5 + len(kinds))
    parts = [head, *own_store.sections(document["store"])]
    right = (1, *numbers, numbers.stop + 1)
    parts.append(table(header, rows, right=right) if rows else "no other cluster is configured")
    found = ["\n".join(troubles(each["name"], each, _quarantined(each))) for each in document["clusters"]]
    parts += filter(None, found)
    parts += [paint(f"warning: {each}", YELLOW) for each in document["warnings"]]
    return "\n\n".join(parts)


def _quarantined(each: Document) -> Iterable[str]:
    for row in each["quarantined"]:
        yield paint(f"{each['name']}: quarantined: {row['key']}: {row['reason']}", YELLOW)
    more = each["quarantined_count"] - len(each["quarantined"])
    if more:
        yield paint(f"{each['name']}: quarantined: {count(more)} keys more", YELLOW)


def troubleshoot(document: Document, name: Optional[str]) -> dict[str, Any]:
    """Try every step of the connection to each store, or to that of this cluster, from this process."""
    from datapath.sources.mesh.session import Rules

    own = document["name"] if document["store"] else None
    known = [*([own] if own else []), *(each["name"] for each in document["clusters"])]
    if name is not None and name not in known:
        hints = {"allowed": ", ".join(known) or "there is none", "nearest": nearest_name(name, known)}
        raise refused("command line", "name", "no such cluster", value=name, **hints)
    rules = Rules.of(document["options"])
    ids = {each["name"]: each["id"] for each in document["clusters"] if each["id"]}
    found = [own_store.examined(document)] if own and name in (None, own) else []
    found += [_examined(each, rules, ids) for each in document["clusters"] if name in (None, each["name"])]
    return {"passed": all(each["passed"] for each in found), "clusters": found}


def _examined(row: Document, rules: Rules, ids: Mapping[str, int]) -> dict[str, Any]:
    from datapath.sources.mesh.troubleshoot import examine
    from datapath.spec.clustermesh import parse_peer

    item = {key: row[key] for key in ("name", "endpoints", "ca", "certificate", "key")}
    parsed = parse_peer(Violations("clustermesh"), "clustermesh", item)
    if parsed is None or parsed.peer is None:
        raise refused("clustermesh", row["name"], "the agent states a peer that this version cannot read")
    others = {name: number for name, number in ids.items() if name != row["name"]}
    tried = asyncio.run(examine(parsed.peer, rules, others))
    return as_rows(row["name"], tried)


def steps(document: Document) -> str:
    """`datapath clustermesh troubleshoot`."""
    parts = []
    for each in document["clusters"]:
        lines = [paint(each["name"], BOLD)]
        for step in each["steps"]:
            sign = paint("✔", GREEN) if step["passed"] else paint("✘", RED)
            lines.append(f"  {sign} {step['stage']:<13} {step['detail']}")
            if step["hint"]:
                lines.append(f"    {'':<13} hint: {step['hint']}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) or "no other cluster and no store is configured"

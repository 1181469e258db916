"""What `datapath clustermesh` shows of any connection to a store, this cluster's own or another one's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Optional

from datapath.cli.tables import RED, paint

if TYPE_CHECKING:
    from datapath.sources.mesh.steps import Step

Document = Mapping[str, Any]


def state(each: Document) -> str:
    """How far a connection is."""
    if each["ready"]:
        return "ready"
    return "connected" if each["connected"] else "not connected"


def days(when: Optional[float]) -> str:
    """Days until a certificate expires."""
    return "-" if when is None else f"{(when - time.time()) / 86400:.0f} days"


def troubles(name: str, each: Document, others: Iterable[str]) -> Iterator[str]:
    """What is wrong with it, a line each: why there is none, all else, and what helps."""
    failure = each["failure"]
    if failure is not None:
        yield paint(f"{name}: {failure['stage']}: {failure['message']}", RED)
    yield from others
    for hint in each["hints"]:
        yield f"{name}: hint: {hint}"


def as_rows(name: str, tried: Sequence[Step]) -> dict[str, Any]:
    """What was tried for one store."""
    return {"name": name, "passed": all(each.passed for each in tried), "steps": [asdict(each) for each in tried]}

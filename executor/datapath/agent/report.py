"""What an apply did or would do, in the shape of the command line's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from datapath.plan.describe import Row, diff

SHOWN_OPERATIONS = 1000
"""Operations that a report lists; `operation_count` tells all."""


@dataclass(frozen=True)
class Report:
    """An apply, done or only planned."""

    check: bool
    rows: Sequence[Row]
    """Changes of the stored desired state, then those of the kernel, in order."""
    disruption: Mapping[str, Any]
    warnings: Sequence[str]
    map_writes: int

    @property
    def changed(self) -> bool:
        """Whether anything is (or would be) different afterwards."""
        return bool(self.rows)

    def as_dict(self) -> dict[str, Any]:
        """The report as the command line prints it."""
        shown = self.rows[:SHOWN_OPERATIONS]
        return {
            "changed": self.changed,
            "check": self.check,
            "operations": list(shown),
            "operation_count": len(self.rows),
            "disruption": dict(self.disruption),
            "diff": diff(shown),
            "warnings": list(self.warnings),
            "map_writes": self.map_writes,
        }


def desired_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Row]:
    """Rows for what differs between two stored documents (`datapath.spec.document.dump`).

    Some of it never reaches the kernel, as the interval of a health check, and must still count as a change.
    """
    rows: list[Row] = []
    for target, old, new in (
        ("option", _options(before), _options(after)),
        ("service", _items(before, "services"), _items(after, "services")),
        ("program", _items(before, "programs"), _items(after, "programs")),
        ("endpoint", _items(before, "endpoints"), _items(after, "endpoints")),
        ("peer", _items(before, "clustermesh"), _items(after, "clustermesh")),
        ("store", _store(before), _store(after)),
    ):
        rows += [
            _row(target, key, old.get(key), new.get(key))
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
    return rows


def _options(document: Mapping[str, Any]) -> dict[str, Any]:
    section = document.get("options") or {}
    return {**section.get("values", {}), **section.get("config", {})}


def _items(document: Mapping[str, Any], section: str) -> dict[str, Any]:
    return {item["name"]: item for item in (document.get(section) or {}).get("items", ())}


def _store(document: Mapping[str, Any]) -> dict[str, Any]:
    """There is one at most: this cluster's own."""
    store = (document.get("clustermesh") or {}).get("store")
    return {} if store is None else {"clustermesh": store}


def _row(target: str, key: str, before: Any, after: Any) -> Row:
    action = "set" if target == "option" else "create" if before is None else "delete" if after is None else "update"
    if target == "option":
        summary = f"option {key}: {_plain(before) or 'default'} -> {_plain(after) or 'default'}"
    elif action == "update":
        fields = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
        summary = f"update {target} {key}: {', '.join(fields)}"
    else:
        summary = f"{action} {target} {key}"
    return {
        "action": action,
        "target": target,
        "key": key,
        "before": _text(before),
        "after": _text(after),
        "summary": summary,
    }


def _text(value: Any) -> Optional[str]:
    """As `_plain`; the C source of a program follows as it is, so that a diff shows the lines that differ."""
    source = value.get("source") if isinstance(value, dict) else None
    if source is None:
        return _plain(value)
    rest = {name: each for name, each in value.items() if name != "source"}
    return f"{_plain(rest)}, source:\n{source.rstrip()}"


def _plain(value: Any) -> Optional[str]:
    return None if value is None else json.dumps(value, sort_keys=True)

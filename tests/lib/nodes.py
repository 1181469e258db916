"""Snapshots of nodes, and how they differ."""

from __future__ import annotations

import json
from typing import Any

from lib import lab

SCRIPT = lab.ROOT / "tests/lib/snapshot.py"


def snapshot(node: str) -> dict[str, Any]:
    """What `snapshot.py` finds on the node now."""
    document: dict[str, Any] = json.loads(lab.run(node, "python3", "-", stdin=SCRIPT.read_text()).out)
    return document


def fresh(node: str) -> dict[str, Any]:
    """What it found when the node was made (molecule/shared/prepare.yml)."""
    document: dict[str, Any] = json.loads((lab.ROOT / f"build/lab/snapshots/{node}.json").read_text())
    return document


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Every place where two snapshots differ, in words."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys(), key=str)
        return [row for key in keys for row in differences(before.get(key), after.get(key), f"{path} {key}")]
    if isinstance(before, list) and isinstance(after, list) and before != after:
        gone = [f"{path}: - {row}" for row in before if row not in after]
        new = [f"{path}: + {row}" for row in after if row not in before]
        return gone + new or [f"{path}: another order"]
    return [] if before == after else [f"{path}: {before} -> {after}"]

"""What a guest brought back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

REPORT = "junit.xml"
FEATURES = "features.json"
_EXCUSE = "this kernel"
"""How the reason of a skip begins that a missing feature explains; any other skip is a test that did not run."""


@dataclass(frozen=True)
class Results:
    """Of one kernel."""

    passed: int
    failures: tuple[str, ...]
    """Names of tests that failed or did not run; a guest that ended early is one."""
    skipped: int
    features: dict[str, bool]
    """As measured; empty where the guest did not get so far."""


def read(directory: Path, ended: bool) -> Results:
    """Results from a guest's directory; `ended` is whether it powered off by itself."""
    measured = directory / FEATURES
    features = json.loads(measured.read_text()) if measured.exists() else {}
    report = directory / REPORT
    if not ended or not report.exists():
        what = "the guest ended without a report" if ended else "the guest did not end in time"
        return Results(0, (what,), 0, features)
    passed, failures, skipped = 0, [], 0
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - our own file
        skip = case.find("skipped")
        if skip is not None and skip.get("message", "").startswith(_EXCUSE):
            skipped += 1
        elif any(child.tag in ("failure", "error", "skipped") for child in case):
            failures.append(f"{case.get('classname')}::{case.get('name')}")
        else:
            passed += 1
    return Results(passed, tuple(failures), skipped, features)

"""How a command fails: an exit code and the errors behind it, as text on stderr or as JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from datapath.cli.tables import RED, paint

DONE, FAILED, REFUSED, DRIFT, NO_AGENT = range(5)


class Failure(Exception):  # noqa: N818 - it is how a command ends, not what went wrong
    """`errors` have the keys document, path, message and optionally value, allowed, nearest, log."""

    def __init__(self, code: int, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(f"exit code {code}")
        self.code = code
        self.errors = errors


def refused(document: str, path: str, message: str, **rest: object) -> Failure:
    """A refusal with one violation."""
    return Failure(REFUSED, [{"document": document, "path": path, "message": message, **rest}])


def report(failure: Failure, output: str) -> int:
    """Tell the user; returns the exit code."""
    if output == "json":
        print(json.dumps({"errors": list(failure.errors)}, indent=2, default=str))
    else:
        for error in failure.errors:
            print(describe(error), file=sys.stderr)
    return failure.code


def describe(error: Mapping[str, Any]) -> str:
    """One error as lines of text: what, where, what would be right."""
    place = error.get("path") or error.get("document") or ""
    lines = [paint("error", RED, sys.stderr) + (f": {place}" if place else "") + f": {error['message']}"]
    if error.get("value") is not None and str(error["value"]) not in str(error["message"]):
        lines.append(f"  value: {error['value']!r}")
    if error.get("allowed"):
        lines.append(f"  allowed: {error['allowed']}")
    if error.get("nearest"):
        lines.append(f"  did you mean: {error['nearest']}")
    if error.get("log"):
        lines += ["  log:", *(f"    {line}" for line in str(error["log"]).rstrip().splitlines())]
    return "\n".join(lines)

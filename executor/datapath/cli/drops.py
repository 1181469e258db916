"""`datapath drops`: why the kernel dropped packets, TCP retransmits and round-trip times per service."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Callable, Optional

from datapath.cli import tables
from datapath.cli.errors import DONE, FAILED, Failure, refused
from datapath.spec.errors import SpecErrors
from datapath.spec.services import parse_frontend
from datapath.tracing.collect import Collector, CompileError, Endpoint
from datapath.tracing.requirements import MissingError

_CLEAR = "\033[H\033[2J"
_LONGEST = 3600


def run(ask: Callable[..., Any], seconds: float, watch: bool, output: str) -> int:
    """Count for `seconds` and print; with `watch`, print again after each such time until interrupted.

    `ask` (method, path, parameters, fallback) talks to the agent, which knows the services.
    """
    if not 0 < seconds <= _LONGEST:
        raise refused("command line", "--seconds", "is no such time", value=seconds, allowed=f"above 0, to {_LONGEST}")
    if os.geteuid() != 0:
        raise refused("command line", "drops", "only root may trace the kernel")
    services = ask("GET", "/v1/services", {}, fallback=True)["services"]
    try:
        collector = Collector(endpoints(services))
    except MissingError as error:
        raise refused("node", error.path, str(error)) from error
    except CompileError as error:
        told = {"document": "kernel", "path": "drops", "message": str(error), "log": error.log}
        raise Failure(FAILED, [told]) from error
    try:
        _show(collector, seconds, watch, output)
    finally:
        collector.close()
    return DONE


def endpoints(services: Sequence[Mapping[str, Any]]) -> dict[Endpoint, str]:
    """TCP addresses of services -> name, where two name the same, of the first; a frontend goes before a backend."""
    found: dict[Endpoint, str] = {}
    for pick in (_frontends, _backends):
        for service in services:
            for text in pick(service):
                endpoint = _tcp(text)
                if endpoint is not None:
                    found.setdefault(endpoint, service["name"])
    return found


def _frontends(service: Mapping[str, Any]) -> list[str]:
    return list(service["frontends"])


def _backends(service: Mapping[str, Any]) -> list[str]:
    return [each["backend"] for each in service["backends"]]


def _tcp(text: str) -> Optional[Endpoint]:
    try:
        parsed = parse_frontend(text if "/" in text else f"{text}/TCP")
    except (ValueError, SpecErrors):
        return None
    return (str(parsed.address), parsed.port) if parsed.protocol.name == "TCP" else None


def _show(collector: Collector, seconds: float, watch: bool, output: str) -> None:
    began = time.monotonic()
    # A line that says so lets a script provoke what it wants to see.
    print(f"counting for {seconds:g} s" + (", again and again; Ctrl-C ends it" if watch else ""), file=sys.stderr)
    interrupted: list[int] = []
    before = {number: signal.signal(number, lambda *_: interrupted.append(1)) for number in _SIGNALS}
    try:
        while True:
            _wait(seconds, interrupted)
            _print(document(collector, time.monotonic() - began), output, watch)
            if not watch or interrupted:
                return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(seconds: float, interrupted: Sequence[int]) -> None:
    end = time.monotonic() + seconds
    while not interrupted and time.monotonic() < end:
        time.sleep(min(0.1, max(0.0, end - time.monotonic())))


def document(collector: Collector, seconds: float) -> dict[str, Any]:
    """What was counted since the start, as JSON has it."""
    return {
        "seconds": round(seconds, 1),
        "drops": [asdict(drop) for drop in collector.drops()],
        "tcp": [asdict(each) for each in collector.connections()],
    }


def _print(counted: Mapping[str, Any], output: str, watch: bool) -> None:
    if output == "json":
        # While watching, a line a document.
        print(json.dumps(counted, indent=None if watch else 2), flush=True)
        return
    clear = _CLEAR if watch and sys.stdout.isatty() else ""
    print(clear + render(counted), flush=True)


def render(counted: Mapping[str, Any]) -> str:
    """The document as two tables."""
    drops = [
        (tables.count(each["packets"]), each["reason"] or "-", each["location"], each["protocol"])
        for each in counted["drops"]
    ]
    tcp = [
        (
            each["service"] or "(no service)",
            *(tables.count(each[name]) for name in ("retransmits", "samples")),
            *(_milliseconds(each[name]) for name in ("min_us", "mean_us", "max_us")),
        )
        for each in counted["tcp"]
    ]
    dropped = tables.table(("PACKETS", "REASON", "WHERE", "PROTOCOL"), drops, right=(0,)) if drops else "none"
    rows = tables.table(("SERVICE", "RETRANSMITS", "RTT SAMPLES", "MIN", "MEAN", "MAX"), tcp, right=(1, 2, 3, 4, 5))
    return (
        f"Packets that the kernel dropped in {counted['seconds']} s\n{dropped}\n\n"
        f"TCP of this node, smoothed round-trip times in ms\n{rows}"
    )


def _milliseconds(microseconds: Optional[int]) -> str:
    return "-" if microseconds is None else f"{microseconds / 1000:.3f}"


_SIGNALS = (signal.SIGINT, signal.SIGTERM)

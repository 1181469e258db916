"""One function a command: ask the agent (or, read-only, this process), print, return the exit code."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import urlencode

from datapath.agent.paths import Paths
from datapath.cli import client
from datapath.cli.client import NoAgentError
from datapath.cli.errors import DONE, DRIFT, FAILED, REFUSED, Failure, refused

Command = Callable[[Namespace], int]
Render = Callable[[Any], str]


def status(options: Namespace) -> int:
    """Health of the datapath and the agent."""
    from datapath.cli import render

    document = _ask("GET", "/v1/status", {"verbose": "1"} if options.verbose or options.output == "json" else {})
    return _show(options, document, render.status)


def service_list(options: Namespace) -> int:
    """Services with backends, health and traffic."""
    from datapath.cli import render

    document = _ask("GET", "/v1/services", {"name": options.name} if options.name else {}, fallback=True)
    return _show(options, document, render.services)


def endpoint_list(options: Namespace) -> int:
    """Endpoints of this node."""
    from datapath.cli import render

    document = _ask("GET", "/v1/endpoints", {"name": options.name} if options.name else {}, fallback=True)
    return _show(options, document, render.endpoints)


def bandwidth_list(options: Namespace) -> int:
    """Rates of endpoints, configured and measured."""
    from datapath.cli import render

    if not 0 < options.seconds <= 3600:
        raise refused("command line", "--seconds", "must be more than 0, at most 3600", value=options.seconds)
    before = _ask("GET", "/v1/bandwidth", fallback=True)
    time.sleep(options.seconds if before["rates"] else 0)
    return _show(options, measured(before, _ask("GET", "/v1/bandwidth", fallback=True)), render.bandwidth)


def mesh_status(options: Namespace) -> int:
    """What is known of other clusters."""
    from datapath.cli import clustermesh

    if options.timeout < 0:
        raise refused("command line", "--timeout", "must not be negative", value=options.timeout)
    document = clustermesh.wait(lambda: _ask("GET", "/v1/clustermesh"), options.timeout if options.wait else 0)
    _show(options, document, clustermesh.status)
    return FAILED if options.wait and not document["ready"] else DONE


def mesh_troubleshoot(options: Namespace) -> int:
    """Connections to other clusters, step by step."""
    from datapath.cli import clustermesh

    document = clustermesh.troubleshoot(_ask("GET", "/v1/clustermesh", fallback=True), options.name)
    _show(options, document, clustermesh.steps)
    return DONE if document["passed"] else FAILED


def measured(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The later answer, with what passed between both as bits a second."""
    known = {(row["number"], row["direction"]): row["passed_bytes"] for row in before["rates"]}
    seconds = max(after["when"] - before["when"], 1e-3)
    rows = []
    for row in after["rates"]:
        # Counters of a number that somebody else has now begin anew.
        passed = max(row["passed_bytes"] - known.get((row["number"], row["direction"]), 0), 0)
        rows.append({**row, "measured": 8 * passed / seconds})
    return {"seconds": seconds, "rates": rows}


def maglev(options: Namespace) -> int:
    """The lookup table of one frontend."""
    from datapath.cli import render

    parameters = {"frontend": options.frontend, **({"slots": "1"} if options.verbose else {})}
    return _show(options, _ask("GET", "/v1/maglev", parameters, fallback=True), render.maglev)


def ct_list(options: Namespace) -> int:
    """Tracked flows."""
    from datapath.cli import render

    filters = {name: getattr(options, name) for name in ("client", "frontend", "backend", "protocol")}
    parameters = {name: value for name, value in filters.items() if value}
    if options.limit < 0:
        raise refused("command line", "--limit", "must not be negative", value=options.limit)
    document = _ask("GET", "/v1/flows", {**parameters, "limit": str(options.limit)}, fallback=True)
    return _show(options, document, render.flows)


def trace(options: Namespace) -> int:
    """What the loaded program does with a packet."""
    from datapath.cli.trace import render

    names = ("source", "destination", "tcp_flags", "device", "ttl", "length")
    parameters = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return _show(options, _ask("GET", "/v1/trace", parameters, fallback=True), render)


def capture(options: Namespace) -> int:
    """What XDP sees and decides, into a file."""
    from datapath.cli.capture import run

    if options.count < 0:
        raise refused("command line", "--count", "must not be negative", value=options.count)
    names = ("host", "port", "protocol", "device", "seconds", "snaplen")
    parameters = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return run(_ask, parameters, options.write, options.count)


def drops(options: Namespace) -> int:
    """What the kernel dropped, and how TCP fares."""
    from datapath.cli.drops import run

    default = 2.0 if options.watch else 10.0
    return run(_ask, default if options.seconds is None else options.seconds, options.watch, options.output)


def plan(options: Namespace) -> int:
    """What would change."""
    from datapath.cli import render

    if options.file is None:
        document = _ask("GET", "/v1/plan", fallback=True)
    else:
        document = _ask("POST", "/v1/apply", {"check": "1"}, _read(options.file), fallback=True)
    return _show(options, document, render.report)


def apply(options: Namespace) -> int:
    """Make a document true, or say what that would change."""
    from datapath.cli import render

    parameters = {"check": "1"} if options.check else {}
    document = _ask("POST", "/v1/apply", parameters, _read(options.file), fallback=options.check)
    return _show(options, document, render.report)


def verify(options: Namespace) -> int:
    """Drift between the kernel and the desired state."""
    from datapath.cli import render

    document = _ask("GET", "/v1/verify", fallback=True)
    _show(options, document, render.drift)
    return DRIFT if document["drift_count"] else DONE


def info(options: Namespace) -> int:
    """Facts of this node."""
    from datapath.cli import render

    return _show(options, _ask("GET", "/v1/info", fallback=True), render.info)


def reset(options: Namespace) -> int:
    """Remove everything, with the agent or, where none runs, without it."""
    from datapath.cli import render

    if not options.yes:
        _confirm()
    return _show(options, _ask("POST", "/v1/reset", fallback=True), render.reset)


def agent(options: Namespace) -> int:
    """Run the agent in the foreground."""
    from datapath.agent import daemon

    return daemon.run(Paths.from_environment(), debug=options.debug)


def _confirm() -> None:
    question = "Detach the datapath from this node and forget its desired state? Type yes: "
    if not sys.stdin.isatty():
        raise refused("command line", "--yes", "reset removes the datapath from this node; confirm with --yes")
    if input(question).strip() != "yes":
        raise Failure(FAILED, [{"document": "command line", "path": "", "message": "nothing was changed"}])


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise refused("document", name, f"cannot be read: {error.strerror}") from error


def _ask(
    method: str,
    path: str,
    parameters: Optional[Mapping[str, str]] = None,
    body: Optional[bytes] = None,
    fallback: bool = False,
) -> Any:
    """The answer of the agent; with `fallback` of this process where no agent answers. Raises Failure."""
    parameters = parameters or {}
    paths = Paths.from_environment()
    target = f"{path}?{urlencode(parameters)}" if parameters else path
    try:
        code, document = client.call(paths.socket, method, target, body)
    except NoAgentError:
        if not fallback:
            raise
        from datapath.cli import local

        code, document = local.call(paths, method, path, parameters, body or b"")
    if code >= 400:
        raise Failure(REFUSED if code < 500 else FAILED, document["errors"])
    return document


def _show(options: Namespace, document: Any, render: Render) -> int:
    print(json.dumps(document, indent=2) if options.output == "json" else render(document))
    return DONE

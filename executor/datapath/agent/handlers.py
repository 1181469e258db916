"""The agent's API without its transport: method, path, parameters and body in, status and JSON document out.

The daemon serves this over its socket; the command line calls it in its own process where no agent runs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Callable

from datapath.agent import bandwidth, capture, clustermesh, problems, views
from datapath.agent.core import Agent
from datapath.agent.trace import trace
from datapath.spec.errors import SpecError, SpecErrors

log = logging.getLogger(__name__)

Parameters = Mapping[str, str]
Handler = Callable[[Agent, Parameters, bytes], Any]


def handle(agent: Agent, method: str, path: str, parameters: Parameters, body: bytes) -> tuple[int, Any]:
    """Answer one request; never raises."""
    handler = HANDLERS.get((method, path))
    if handler is None:
        return 404, {"errors": [SpecError("request", path, method, "there is no such resource").as_dict()]}
    try:
        return 200, handler(agent, parameters, body)
    except views.NotFoundError as error:
        return 404, {"errors": [error.error.as_dict()]}
    except Exception as error:
        status = problems.status(error)
        if status == problems.FAILED:
            log.exception("%s %s", method, path)
        return status, {"errors": problems.as_errors(error)}


def parse(body: bytes) -> Any:
    """The JSON document in `body`; a key that is given twice is refused, as one of the two would be ignored."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise SpecErrors([SpecError("document", name, name, "is given twice in one object") for name in twice])
        return dict(pairs)

    try:
        return json.loads(body, object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise SpecErrors([SpecError("document", "document", None, f"not UTF-8: {error}", "JSON")]) from error
    except RecursionError as error:
        raise SpecErrors([SpecError("document", "document", None, "nested too deeply", "JSON")]) from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise SpecErrors([SpecError("document", place, None, f"not JSON: {error.msg}", "JSON")]) from error


def _apply(agent: Agent, parameters: Parameters, body: bytes) -> Any:
    return agent.apply(parse(body), check=_flag(parameters, "check")).as_dict()


def _plan(agent: Agent, _: Parameters, __: bytes) -> Any:
    return agent.plan().as_dict()


def _reset(agent: Agent, _: Parameters, __: bytes) -> Any:
    removed = agent.reset()
    return {"changed": bool(removed), "removed": removed}


def _flag(parameters: Parameters, name: str) -> bool:
    return parameters.get(name, "0") not in ("", "0", "false")


def _glancing(view: Handler) -> Handler:
    """`view`, which only reads, and whose parts may be of several moments."""
    return lambda agent, parameters, body: agent.turns.glance(lambda: view(agent, parameters, body))


def only_looks(method: str, parameters: Parameters) -> bool:
    """Whether a request changes nothing: changes need not wait for it."""
    return method == "GET" or _flag(parameters, "check")


HANDLERS: Mapping[tuple[str, str], Handler] = {
    ("POST", "/v1/apply"): _apply,
    ("POST", "/v1/reset"): _reset,
    ("POST", "/v1/capture/start"): lambda agent, parameters, _: capture.start(agent, parameters),
    ("POST", "/v1/capture/stop"): lambda agent, _, __: capture.stop(agent),
    ("GET", "/v1/plan"): _plan,
    ("GET", "/v1/verify"): lambda agent, _, __: views.verify(agent),
    ("GET", "/v1/status"): lambda agent, parameters, _: views.status(agent, _flag(parameters, "verbose")),
    ("GET", "/v1/info"): _glancing(lambda agent, _, __: views.info(agent)),
    ("GET", "/v1/services"): _glancing(lambda agent, parameters, _: views.services(agent, parameters.get("name"))),
    ("GET", "/v1/endpoints"): _glancing(lambda agent, parameters, _: views.endpoints(agent, parameters.get("name"))),
    ("GET", "/v1/clustermesh"): _glancing(lambda agent, _, __: clustermesh.clusters(agent)),
    ("GET", "/v1/bandwidth"): _glancing(lambda agent, _, __: bandwidth.rates(agent)),
    ("GET", "/v1/maglev"): _glancing(
        lambda agent, parameters, _: views.maglev(agent, parameters.get("frontend", ""), _flag(parameters, "slots"))
    ),
    ("GET", "/v1/flows"): _glancing(lambda agent, parameters, _: views.flows(agent, parameters)),
    ("GET", "/v1/trace"): lambda agent, parameters, _: agent.turns.look(lambda: trace(agent, parameters)),
}

"""The agent's answers without an agent: the same code in this process.

Reading writes nothing. Only `reset` writes, and only while holding the writer's lock, so never beside an agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datapath.agent import handlers
from datapath.agent.core import Agent
from datapath.agent.lock import WriterLock
from datapath.agent.paths import Paths
from datapath.kernel import Kernel, ObjectSource


def call(paths: Paths, method: str, path: str, parameters: Mapping[str, str], body: bytes) -> tuple[int, Any]:
    """As `datapath.cli.client.call`."""
    agent = Agent(Kernel(paths.pins, ObjectSource()), paths)
    if path != "/v1/reset":
        return handlers.handle(agent, method, path, parameters, body)
    with WriterLock(paths.lock):
        return handlers.handle(agent, method, path, parameters, body)

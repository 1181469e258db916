"""The agent's answers without an agent: the same code in this process.

Reading writes nothing. Only `reset` writes, and only while holding the writer's lock, so never beside an agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from datapath.agent import handlers
from datapath.agent.core import Agent
from datapath.agent.lock import WriterLock
from datapath.agent.paths import Paths
from datapath.kernel import Kernel, ObjectSource
from datapath.spec.options import effective
from datapath.state.model import DesiredState, OwnStore


def call(paths: Paths, method: str, path: str, parameters: Mapping[str, str], body: bytes) -> tuple[int, Any]:
    """As `datapath.cli.client.call`."""
    agent = Agent(Kernel(paths.pins, ObjectSource()), paths)
    if path != "/v1/reset":
        return handlers.handle(agent, method, path, parameters, body)
    with WriterLock(paths.lock):
        desired = agent.desired
        answer = handlers.handle(agent, method, path, parameters, body)
    if desired is not None and desired.store is not None:
        _withdraw(desired, desired.store)
    return answer


def _withdraw(desired: DesiredState, store: OwnStore) -> None:
    """What a running agent would do after a reset."""
    from datapath.sources.mesh.publication import node_name
    from datapath.sources.mesh.withdrawal import withdraw

    asyncio.run(withdraw(store, effective(desired.options)["cluster-name"], node_name(store)))

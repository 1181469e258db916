"""One connection to a store, step by step, as far as it goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Optional

from datapath.etcd.client import Client, connect
from datapath.etcd.dial import Credentials, reach
from datapath.etcd.errors import Stage, StoreError
from datapath.state.model import StoreEndpoint, StorePlace


@dataclass(frozen=True)
class Step:
    """What was tried, and how it went."""

    stage: str
    passed: bool
    detail: str
    hint: Optional[str] = None


class Steps:
    """What was tried so far."""

    def __init__(self) -> None:
        self.tried: list[Step] = []

    def note(self, stage: Stage, passed: bool, detail: str, hint: Optional[str] = None) -> None:
        """One more."""
        self.tried.append(Step(stage.value, passed, detail, hint))

    def fail(self, error: StoreError, where: str = "") -> None:
        """One at which it ended."""
        self.note(error.stage, False, where + error.message, error.hint)


async def walk(place: StorePlace, read: Callable[[Client, Steps], Awaitable[None]]) -> list[Step]:
    """All endpoints' connections, then what `read` tries by the first that can be reached."""
    credentials, steps = Credentials.of(place), Steps()
    reached = [await _dial(endpoint, credentials, steps) for endpoint in place.endpoints]
    if not any(reached):
        return steps.tried
    try:
        client = await connect(place.endpoints, credentials)
        try:
            await read(client, steps)
        finally:
            client.close()
    except StoreError as error:
        steps.fail(error)
    return steps.tried


async def _dial(endpoint: StoreEndpoint, credentials: Credentials, steps: Steps) -> bool:
    """Try a connection to one endpoint; whether there can be one."""
    where = f"{endpoint}: "
    try:
        context, own = credentials.load()
        await reach(endpoint, context, credentials.ca, lambda stage, detail: steps.note(stage, True, where + detail))
    except StoreError as error:
        steps.fail(error, where if str(endpoint) not in error.message else "")
        return False
    mine = f"this node is {own.common_name or 'nobody'}, until {own.not_after:%Y-%m-%d %H:%M} UTC"
    steps.note(Stage.TLS, True, where + mine)
    return True

"""One connection to another cluster, step by step, as far as it goes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from datapath.etcd.client import connect, prefix
from datapath.etcd.dial import Credentials, reach
from datapath.etcd.errors import Stage, StoreError
from datapath.sources.mesh import layout
from datapath.sources.mesh.kinds import KINDS, Kind, Origin
from datapath.sources.mesh.session import Rules, check_authorisation, heartbeat_time, read_config
from datapath.sources.mesh.values import QuarantineError
from datapath.state.model import Peer, StoreEndpoint

if TYPE_CHECKING:
    from datapath.etcd.client import Client


@dataclass(frozen=True)
class Step:
    """What was tried, and how it went."""

    stage: str
    passed: bool
    detail: str
    hint: Optional[str] = None


async def examine(peer: Peer, rules: Rules, others: Mapping[str, int]) -> list[Step]:
    """All endpoints' connections, then rights and data by the first that can be reached."""
    credentials = Credentials(*map(Path, (peer.ca, peer.certificate, peer.key)))
    steps: list[Step] = []
    reached = [await dial(endpoint, credentials, steps) for endpoint in peer.endpoints]
    if any(reached):
        try:
            client = await connect(peer.endpoints, credentials)
        except StoreError as error:
            steps.append(failed(error))
            return steps
        try:
            await _Reader(client, peer, rules, others, steps).read()
        except StoreError as error:
            steps.append(failed(error))
        finally:
            client.close()
    return steps


def failed(error: StoreError, where: str = "") -> Step:
    """The step at which it ended."""
    return Step(error.stage.value, False, where + error.message, error.hint)


async def dial(endpoint: StoreEndpoint, credentials: Credentials, steps: list[Step]) -> bool:
    """Try a connection to one endpoint; whether there can be one."""
    where = f"{endpoint}: "
    try:
        context, own = credentials.load()

        def passed(stage: Stage, detail: str) -> None:
            steps.append(Step(stage.value, True, where + detail))

        await reach(endpoint, context, credentials.ca, passed)
    except StoreError as error:
        steps.append(failed(error, where if str(endpoint) not in error.message else ""))
        return False
    mine = f"this node is {own.common_name or 'nobody'}, until {own.not_after:%Y-%m-%d %H:%M} UTC"
    steps.append(Step(Stage.TLS.value, True, where + mine))
    return True


@dataclass
class _Published:
    """What a store has of one kind."""

    kind: Kind[Any, Any]
    count: int = 0
    """Of what can be used."""
    quarantined: dict[str, str] = field(default_factory=dict)
    missing: Optional[str] = None
    """The key that would tell that this is all."""
    denied: Optional[StoreError] = None

    def take(self, key: bytes, value: bytes, origin: Origin) -> None:
        """Try one value."""
        try:
            self.kind.parse(value, self.kind.name_of(key, origin), origin)
        except QuarantineError as error:
            self.quarantined[layout.key_text(key)] = str(error)
        else:
            self.count += 1


@dataclass(frozen=True)
class _Reader:
    """What a store that can be reached has to say."""

    client: Client
    peer: Peer
    rules: Rules
    others: Mapping[str, int]
    steps: list[Step]

    def _note(self, stage: Stage, passed: bool, detail: str, hint: Optional[str] = None) -> None:
        self.steps.append(Step(stage.value, passed, detail, hint))

    async def read(self) -> None:
        client = self.client
        self._note(Stage.STORE, True, f"etcd {await client.version()}")
        await check_authorisation(client)
        config = await read_config(client, self.peer.name, self.rules, self.others)
        heartbeat = heartbeat_time(await client.get(layout.HEARTBEAT))
        origin = Origin(self.peer.name, config, self.rules.networks)
        found = [await self._kind(kind, origin) for kind in KINDS]
        user = client.own.common_name
        self._note(Stage.AUTHORISATION, True, f"{user} may read what a remote cluster may, and not the rest")
        self.steps.extend(failed(each.denied) for each in found if each.denied is not None)
        self._note(Stage.DATA, True, f"cluster {self.peer.name} has id {config.cluster_id}")
        missing = [each.missing for each in found if each.missing is not None]
        published = f"{', '.join(f'{each.count} {each.kind.name}' for each in found)} are published"
        more = f", not all yet: there is no {', '.join(missing)}" if missing else ""
        self._note(Stage.DATA, not missing, published + more)
        self._heartbeat(heartbeat)
        for each in found:
            for key, reason in each.quarantined.items():
                self._note(Stage.DATA, False, f"{key}: {reason}")

    def _heartbeat(self, when: Optional[float]) -> None:
        hint = "does that cluster still publish?"
        if when is None:
            self._note(Stage.DATA, False, "there is no heartbeat", hint)
            return
        age = max(time.time() - when, 0)
        recent = age <= layout.QUIET
        self._note(Stage.DATA, recent, f"the last heartbeat is {age:.0f} s old", None if recent else hint)

    async def _kind(self, kind: Kind[Any, Any], origin: Origin) -> _Published:
        place = (self.peer.name, origin.config.cached)
        found = _Published(kind)
        try:
            # Before the values: those that are published later may be more than what is read.
            if origin.config.synced_canaries and await self.client.get(kind.synced(*place)) is None:
                found.missing = kind.synced(*place)
            async for page in self.client.pages(prefix(kind.prefix(*place))):
                for key, value in page.values.items():
                    found.take(key, value, origin)
        except StoreError as error:
            if kind.required or error.stage is not Stage.AUTHORISATION:
                raise
            found.denied = error
        return found

"""The connection to another cluster, step by step, as far as it goes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from datapath.etcd.client import prefix
from datapath.etcd.errors import Stage, StoreError
from datapath.sources.mesh import layout
from datapath.sources.mesh.kinds import KINDS, Kind, Origin
from datapath.sources.mesh.session import Rules, check_authorisation, heartbeat_time, read_config
from datapath.sources.mesh.steps import Step, Steps, walk
from datapath.sources.mesh.values import QuarantineError
from datapath.state.model import Peer

if TYPE_CHECKING:
    from datapath.etcd.client import Client


async def examine(peer: Peer, rules: Rules, others: Mapping[str, int]) -> list[Step]:
    """All endpoints' connections, then rights and data by the first that can be reached."""
    return await walk(peer, lambda client, steps: _Reader(client, peer, rules, others, steps).read())


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
    steps: Steps

    async def read(self) -> None:
        client = self.client
        self.steps.note(Stage.STORE, True, f"etcd {await client.version()}")
        await check_authorisation(client)
        config = await read_config(client, self.peer.name, self.rules, self.others)
        heartbeat = heartbeat_time(await client.get(layout.HEARTBEAT))
        origin = Origin(self.peer.name, config, self.rules.networks)
        found = [await self._kind(kind, origin) for kind in KINDS]
        user = client.own.common_name
        self.steps.note(Stage.AUTHORISATION, True, f"{user} may read what a remote cluster may, and not the rest")
        for denied in (each.denied for each in found if each.denied is not None):
            self.steps.fail(denied)
        self.steps.note(Stage.DATA, True, f"cluster {self.peer.name} has id {config.cluster_id}")
        missing = [each.missing for each in found if each.missing is not None]
        published = f"{', '.join(f'{each.count} {each.kind.name}' for each in found)} are published"
        more = f", not all yet: there is no {', '.join(missing)}" if missing else ""
        self.steps.note(Stage.DATA, not missing, published + more)
        self._heartbeat(heartbeat)
        for each in found:
            for key, reason in each.quarantined.items():
                self.steps.note(Stage.DATA, False, f"{key}: {reason}")

    def _heartbeat(self, when: Optional[float]) -> None:
        hint = "does that cluster still publish?"
        if when is None:
            self.steps.note(Stage.DATA, False, "there is no heartbeat", hint)
            return
        age = max(time.time() - when, 0)
        recent = age <= layout.QUIET
        self.steps.note(Stage.DATA, recent, f"the last heartbeat is {age:.0f} s old", None if recent else hint)

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

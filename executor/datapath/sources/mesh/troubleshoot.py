"""One connection to another cluster, step by step, as far as it goes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from datapath.etcd.client import connect, prefix
from datapath.etcd.dial import Credentials, reach
from datapath.etcd.errors import Stage, StoreError
from datapath.sources.mesh import layout
from datapath.sources.mesh.layout import ClusterConfig
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
        synced = layout.synced_key(self.peer.name, config.cached)
        heartbeat = heartbeat_time(await client.get(layout.HEARTBEAT))
        complete = not config.synced_canaries or await client.get(synced) is not None
        count, quarantined = await self._services(config)
        user = client.own.common_name
        self._note(Stage.AUTHORISATION, True, f"{user} may read what a remote cluster may, and not the rest")
        self._note(Stage.DATA, True, f"cluster {self.peer.name} has id {config.cluster_id}")
        published = f"{count} services are published"
        self._note(Stage.DATA, complete, published if complete else f"{published}, not all yet: there is no {synced}")
        self._heartbeat(heartbeat)
        for key, reason in quarantined.items():
            self._note(Stage.DATA, False, f"{key}: {reason}")

    def _heartbeat(self, when: Optional[float]) -> None:
        hint = "does that cluster still publish?"
        if when is None:
            self._note(Stage.DATA, False, "there is no heartbeat", hint)
            return
        age = max(time.time() - when, 0)
        recent = age <= layout.QUIET
        self._note(Stage.DATA, recent, f"the last heartbeat is {age:.0f} s old", None if recent else hint)

    async def _services(self, config: ClusterConfig) -> tuple[int, dict[str, str]]:
        """How many can be used, and why the others cannot."""
        start = layout.services_prefix(self.peer.name, config.cached)
        count, quarantined = 0, {}
        async for page in self.client.pages(prefix(start)):
            for key, value in page.values.items():
                reason = self._reason(config, key, value)
                if reason is None:
                    count += 1
                else:
                    quarantined[layout.key_text(key)] = reason
        return count, quarantined

    def _reason(self, config: ClusterConfig, key: bytes, value: bytes) -> Optional[str]:
        cluster = self.peer.name
        try:
            name = layout.parse_service_key(layout.services_prefix(cluster, config.cached), key)
            layout.parse_service(value, cluster, config.cluster_id, name, self.rules.networks)
        except QuarantineError as error:
            return str(error)
        return None

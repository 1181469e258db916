"""Writing to a store: transactions, leases that what is written ends with, and the state of the store itself.

Everything raises `StoreError`, in words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

from grpclib.client import StreamStreamMethod, UnaryUnaryMethod

from datapath.etcd import rpc_pb2 as rpc
from datapath.etcd.client import CALL_TIMEOUT, FAILURES, Client
from datapath.etcd.errors import LeaseGoneError, Stage, StoreError, explain_call
from datapath.etcd.operations import Operation, Put, Quiet, Requirement
from datapath.etcd.waiting import within

RENEWALS = 3
"""How often a lease is renewed in the time that it lasts, as by etcd's own client."""
_ALARMS = {rpc.NOSPACE: "NOSPACE", rpc.CORRUPT: "CORRUPT"}


@dataclass(frozen=True)
class Condition:
    """Of the store as a whole, as one member tells it."""

    version: str
    size: int
    """Bytes of the database."""
    size_in_use: int
    """Bytes that it would have after defragmentation."""
    quota: Optional[int]
    """Bytes that it may have, where the member tells: from etcd 3.6 on."""
    has_leader: bool
    alarms: tuple[str, ...]
    """Of all members: NOSPACE, CORRUPT."""


class Writer:
    """The writing side of a connection."""

    def __init__(self, client: Client) -> None:
        channel, self.client = client.channel, client
        self._txn = UnaryUnaryMethod(channel, "/etcdserverpb.KV/Txn", rpc.TxnRequest, rpc.TxnResponse)
        self._grant = UnaryUnaryMethod(
            channel, "/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantRequest, rpc.LeaseGrantResponse
        )
        self._revoke = UnaryUnaryMethod(
            channel, "/etcdserverpb.Lease/LeaseRevoke", rpc.LeaseRevokeRequest, rpc.LeaseRevokeResponse
        )
        self._time_to_live = UnaryUnaryMethod(
            channel, "/etcdserverpb.Lease/LeaseTimeToLive", rpc.LeaseTimeToLiveRequest, rpc.LeaseTimeToLiveResponse
        )
        self._keep_alive = StreamStreamMethod(
            channel, "/etcdserverpb.Lease/LeaseKeepAlive", rpc.LeaseKeepAliveRequest, rpc.LeaseKeepAliveResponse
        )
        self._status = UnaryUnaryMethod(
            channel, "/etcdserverpb.Maintenance/Status", rpc.StatusRequest, rpc.StatusResponse
        )
        self._alarm = UnaryUnaryMethod(channel, "/etcdserverpb.Maintenance/Alarm", rpc.AlarmRequest, rpc.AlarmResponse)

    async def commit(self, operations: Sequence[Operation], only_if: Sequence[Requirement] = ()) -> Optional[int]:
        """Write all of it, or nothing: None where a condition does not hold. The store's revision after it."""
        request = rpc.TxnRequest(compare=map(_compare, only_if), success=map(_request, operations))
        answer = await self.client.call(self._txn, request, f"writing {_text(operations)}")
        return answer.header.revision if answer.succeeded else None

    async def grant(self, seconds: int) -> int:
        """A new lease."""
        return (await self.client.call(self._grant, rpc.LeaseGrantRequest(TTL=seconds), "a lease")).ID

    async def revoke(self, lease: int) -> None:
        """End a lease, and every key that it has. Raises LeaseGoneError too."""
        await self.client.call(self._revoke, rpc.LeaseRevokeRequest(ID=lease), "ending a lease")

    async def time_to_live(self, lease: int) -> Optional[int]:
        """Seconds that the lease was granted for; None where it has ended (what is left is rounded down)."""
        request = rpc.LeaseTimeToLiveRequest(ID=lease)
        answer = await self.client.call(self._time_to_live, request, "the age of a lease")
        return answer.grantedTTL if answer.TTL >= 0 else None

    async def keep_alive(self, lease: int, seconds: float, renewed: Callable[[], None]) -> None:
        """Renew a lease of that many seconds some times while it lasts, and tell each time; always raises.

        LeaseGoneError where it has ended.
        """
        try:
            async with self._keep_alive.open() as stream:
                while True:
                    await stream.send_message(rpc.LeaseKeepAliveRequest(ID=lease))
                    answer = await within(stream.recv_message(), CALL_TIMEOUT)
                    if answer is None:
                        raise StoreError(Stage.STORE, "the store ended the renewal of a lease")
                    if answer.TTL <= 0:
                        raise LeaseGoneError
                    renewed()
                    await asyncio.sleep(seconds / RENEWALS)
        except FAILURES as error:
            raise explain_call(error, "the renewal of a lease") from error

    async def condition(self) -> Condition:
        """What the member that this connection is to tells of the store."""
        status = await self.client.call(self._status, rpc.StatusRequest(), "the status")
        alarms = await self.client.call(self._alarm, rpc.AlarmRequest(action=rpc.AlarmRequest.GET), "the alarms")
        return Condition(
            version=status.version,
            size=status.dbSize,
            size_in_use=status.dbSizeInUse,
            quota=status.dbSizeQuota or None,
            has_leader=status.leader != 0,
            alarms=tuple(sorted({_ALARMS.get(each.alarm, f"number {each.alarm}") for each in alarms.alarms})),
        )


def _compare(condition: Requirement) -> rpc.Compare:
    if isinstance(condition, Quiet):
        # Of a range, every key is compared; where there is none, a key that was never written.
        return rpc.Compare(
            result=rpc.Compare.LESS,
            target=rpc.Compare.MOD,
            key=condition.start,
            range_end=condition.end,
            mod_revision=condition.revision + 1,
        )
    return rpc.Compare(
        result=rpc.Compare.EQUAL,
        target=rpc.Compare.CREATE,
        key=condition.key,
        create_revision=condition.revision,
    )


def _request(operation: Operation) -> rpc.RequestOp:
    if isinstance(operation, Put):
        put = rpc.PutRequest(key=operation.key, value=operation.value, lease=operation.lease)
        return rpc.RequestOp(request_put=put)
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=operation.key))


def _text(operations: Sequence[Operation]) -> str:
    """For people."""
    first = operations[0].key.decode(errors="replace") if operations else "nothing"
    return first if len(operations) <= 1 else f"{first} and {len(operations) - 1} more"

"""What is read from and written to a store, without the connection (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional, Union

MOST_OPERATIONS = 128
"""Of one transaction (etcd's max-txn-ops)."""
MOST_BYTES = 1 << 20
"""Of one transaction; etcd takes requests up to 1.5 MiB."""


class Change(NamedTuple):
    """A key as it is, or one event of a watch."""

    key: bytes
    value: Optional[bytes]
    """None where the key was deleted."""
    revision: int
    lease: int = 0
    """That the key ends with; 0 where it has none."""
    created: int = 0
    """Revision at which the key came to be."""


class Put(NamedTuple):
    """A key gets a value; it ends with the lease."""

    key: bytes
    value: bytes
    lease: int = 0


class Delete(NamedTuple):
    """A key ends."""

    key: bytes


Operation = Union[Put, Delete]


class Created(NamedTuple):
    """A condition: the key is the one that came to be at this revision."""

    key: bytes
    revision: int


class Quiet(NamedTuple):
    """A condition: no key from `start` to before `end` was written after this revision; after 0: there is none."""

    start: bytes
    end: bytes
    revision: int


Requirement = Union[Created, Quiet]


def batches(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """As few transactions as there may be, in order."""
    batch: list[Operation] = []
    size = 0
    for operation in operations:
        more = len(operation.key) + (len(operation.value) if isinstance(operation, Put) else 0)
        if batch and (len(batch) == MOST_OPERATIONS or size + more > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(operation)
        size += more
    if batch:
        yield batch

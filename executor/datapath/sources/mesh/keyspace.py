"""Keys that one owner has in a store: what they should be, what they are, and what to write (pure).

A key is known as the owner's by its lease: whatever has another one was written by somebody else. That is replaced
where a value of ours belongs, and left alone everywhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Optional

from datapath.etcd.operations import Change, Delete, Operation, Put


class Keyspace:
    """Work is proportional to what changed: only keys that something happened to are looked at."""

    def __init__(self) -> None:
        self.lease = 0
        """That all keys are to have."""
        self.leases: set[int] = set()
        """That the owner's keys may have."""
        self.last: Mapping[bytes, None] = {}
        """Keys that are written once all others are what they should be, and whose value stays then."""
        self.shared: tuple[bytes, ...] = ()
        """What keys begin with that all owners have side by side: of those only its own are remembered.

        Who wrote such a key last has it.
        """
        self._want: dict[bytes, bytes] = {}
        self._have: dict[bytes, Change] = {}
        self._open: set[bytes] = set()
        """Keys that may have to be written."""
        self._taken: set[bytes] = set()
        """Shared ones that somebody else has written since."""

    def want(self, values: Mapping[bytes, Optional[bytes]]) -> None:
        """Have these keys be so; None is that they are not."""
        for key, value in values.items():
            if value is None:
                self._want.pop(key, None)
            else:
                self._want[key] = value
        self._open.update(values)

    def begin(self, entries: Iterable[Change], leases: Collection[int]) -> None:
        """What there is, and which leases are the owner's."""
        self.leases = set(leases)
        self._have = {each.key: each for each in entries if not self._of_others(each)}
        self._taken.clear()
        self._open = {*self._want, *self._have}

    def has(self, key: bytes) -> bool:
        """Whether there is such a key."""
        return key in self._have

    def own(self, key: bytes) -> Optional[bytes]:
        """The value of a key that is as safe as any of the owner's."""
        found = self._have.get(key)
        return None if found is None or found.lease != self.lease else found.value

    def counts(self) -> Mapping[int, int]:
        """Lease -> how many keys have it."""
        found: dict[int, int] = {}
        for each in self._have.values():
            found[each.lease] = found.get(each.lease, 0) + 1
        return found

    def take(self, changes: Iterable[Change]) -> bool:
        """What happened to keys; whether anything is to be written for it."""
        for change in changes:
            known = self._have.get(change.key)
            if known is not None and known.revision >= change.revision:
                continue
            self._taken.discard(change.key)
            if change.value is not None and not self._of_others(change):
                self._have[change.key] = change
            else:
                self._have.pop(change.key, None)
                if change.value is not None and change.key in self._want:
                    self._taken.add(change.key)
            if self._operation(change.key) is not None:
                self._open.add(change.key)
        return bool(self._open)

    def operations(self) -> list[Operation]:
        """What to write; the last keys only where that is nothing else."""
        found = [(key, self._operation(key)) for key in sorted(self._open)]
        first = [each for key, each in found if each is not None and key not in self.last]
        return first or [each for _, each in found if each is not None]

    def written(self, operations: Sequence[Operation], revision: int) -> None:
        """These are done, at this revision of the store."""
        for each in operations:
            if isinstance(each, Put):
                self._have[each.key] = Change(each.key, each.value, revision, each.lease)
            else:
                self._have.pop(each.key, None)

    def is_open(self, key: bytes) -> bool:
        """Whether a key is not what it should be."""
        return self._operation(key) is not None

    def settle(self) -> None:
        """Everything that was open is what it should be."""
        self._open = {key for key in self._open if self._operation(key) is not None}

    @property
    def foreign(self) -> int:
        """Keys of somebody else among those that are not wanted."""
        return sum(key not in self._want and each.lease not in self.leases for key, each in self._have.items())

    def _of_others(self, entry: Change) -> bool:
        return entry.key.startswith(self.shared) and entry.lease not in self.leases

    def _operation(self, key: bytes) -> Optional[Operation]:
        want, have = self._want.get(key), self._have.get(key)
        if key in self._taken:
            return None
        if want is None:
            return Delete(key) if have is not None and have.lease in self.leases else None
        if have is None or have.value is None:
            return Put(key, want, self.lease)
        value = have.value if key in self.last else want
        return None if (have.value, have.lease) == (value, self.lease) else Put(key, value, self.lease)

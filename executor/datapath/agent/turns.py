"""Who changes the kernel and who looks at it, when: one changes at a time, and looks hold no change up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Callable, TypeVar

T = TypeVar("T")

UNLOCKED = 2
"""Looks into which a change may come before the next one has changes wait for it."""


def _ignore(_: object) -> None:
    pass


class DisturbedError(Exception):
    """Something changed meanwhile."""


class Turns:
    """Changes come one after the other, of whatever thread; looks go on beside them.

    Comparing thousands of services takes seconds, while a change of one takes milliseconds: so changes wait for a look
    only where it cannot succeed otherwise.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changes = 0

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While something changes, the kernel or what is known; may be nested."""
        with self._lock:
            self._changes += 1
            yield

    def look(self, look: Callable[[], T], note: Callable[[T], None] = _ignore) -> T:
        """What `look`, which only reads, finds (or raises) of one moment: where a change comes into it, it is repeated.

        `note` is called with what is returned, before anything changes.
        """
        return self._insist(lambda: self.look_once(look, note))

    def look_once(self, look: Callable[[], T], note: Callable[[T], None]) -> T:
        """As `look`; raises DisturbedError where a change came into it."""
        before = self._so_far()
        found = self._glance_once(look)
        with self._lock:
            if self._changes != before:
                raise DisturbedError
            note(found)
        return found

    def glance(self, look: Callable[[], T]) -> T:
        """What `look`, which only reads, finds; repeated only where it fails and a change may be the reason."""
        return self._insist(lambda: self._glance_once(look))

    def _glance_once(self, look: Callable[[], T]) -> T:
        """As `glance`; raises DisturbedError where a change may be the reason that it failed."""
        before = self._so_far()
        try:
            return look()
        except Exception as error:
            if self._so_far() != before:
                raise DisturbedError from error
            raise

    def _insist(self, attempt: Callable[[], T]) -> T:
        for _ in range(UNLOCKED):
            with suppress(DisturbedError):
                return attempt()
        with self._lock:
            return attempt()

    def _so_far(self) -> int:
        """Changes, once none goes on."""
        with self._lock:
            return self._changes

"""Changes that sources find faster than the agent takes them, delivered in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

BATCH = 0.01
"""Seconds that a change waits for others, so that a failing rack is one update of the tables and not forty."""


class Batches(Generic[K, V]):
    """`waiting` is the next batch: what of each key is to be told."""

    def __init__(self) -> None:
        self.waiting: dict[K, V] = {}
        self._event = asyncio.Event()

    def ready(self) -> None:
        """Have what is waiting delivered soon."""
        self._event.set()

    async def run(self, deliver: Callable[[dict[K, V]], Awaitable[None]]) -> None:
        """Deliver until cancelled; what changes while `deliver` works is the next batch."""
        while True:
            await self._event.wait()
            await asyncio.sleep(BATCH)
            changes, self.waiting = self.waiting, {}
            self._event.clear()
            if changes:
                await deliver(changes)

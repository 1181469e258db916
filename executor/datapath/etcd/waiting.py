"""Waiting for something that may never come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(awaited: Awaitable[T], seconds: float) -> T:
    """What is awaited; asyncio.TimeoutError where it takes longer.

    Not `wait_for`: before Python 3.12 that takes no notice of being cancelled at the very moment at which the wait is
    over, and whoever cancelled waits for ever.
    """
    task = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

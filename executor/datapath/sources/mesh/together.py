"""Coroutines that belong together: what ends one of them ends all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

AGAIN = 2.5
"""Seconds after which a task that did not end is cancelled again: longer than any farewell takes."""


async def together(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run them until the first one ends, or fails: then that is raised."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await cancel(*tasks)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them and wait for their end, whatever that is; one that took no notice is told again."""
    pending = set(tasks)
    for task in tasks:
        # Nobody else asks what became of them.
        task.add_done_callback(_look_at)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN)


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()

"""Coroutines that end together."""

import asyncio
from contextlib import suppress

import pytest

from datapath.sources.mesh.together import cancel, together


def test_the_first_failure_ends_all():
    ended = []

    async def fail():
        await asyncio.sleep(0)
        raise ValueError("why")

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(ValueError, match="why"):
        asyncio.run(together(wait(), fail(), wait()))
    assert ended == [True, True]


def test_the_first_end_ends_all():
    asyncio.run(asyncio.wait_for(together(asyncio.sleep(60), asyncio.sleep(0)), 5))


def test_a_task_that_takes_no_notice_is_told_again(monkeypatch):
    monkeypatch.setattr("datapath.sources.mesh.together.AGAIN", 0.01)
    told = []

    async def deaf():
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        told.append(True)

    async def stubborn():
        while len(told) < 3:
            await deaf()

    async def main():
        task = asyncio.ensure_future(stubborn())
        await asyncio.sleep(0)
        await asyncio.wait_for(cancel(task), 5)
        return task.done()

    assert asyncio.run(main())
    assert told == [True] * 3

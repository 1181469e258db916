"""Waiting for something that may never come."""

import asyncio

import pytest

from datapath.etcd.waiting import within


def test_what_comes_in_time():
    assert asyncio.run(within(asyncio.sleep(0, "result"), 5)) == "result"


def test_what_does_not_is_cancelled():
    ended = []

    async def never():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(within(never(), 0.01))
    assert ended == [True]


def test_a_failure_is_the_failure():
    async def fail():
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        asyncio.run(within(fail(), 5))


def test_being_cancelled_at_the_very_moment_of_the_end_counts():
    async def main():
        came = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(within(came, 5))
        await asyncio.sleep(0)
        came.set_result(True)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(main())

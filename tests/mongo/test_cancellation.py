"""Waits of PyMongo for a server that are cancelled."""

import asyncio

import pytest
from pymongo import lock

from flowkit_mongo._cancellation import repair_waits

LIMIT_SEC = 0.01


@pytest.mark.parametrize("cancels", [1, 3])
async def test_a_wait_that_is_cancelled_while_it_takes_its_lock_again_leaves_it_free(
    cancels: int,
) -> None:
    repair_waits()
    mutex = lock._async_create_lock()
    condition = lock._async_create_condition(mutex)
    waits = asyncio.Event()

    async def wait() -> None:
        async with mutex:
            waits.set()
            await lock._async_cond_wait(condition, LIMIT_SEC)

    task = asyncio.create_task(wait())
    await waits.wait()
    async with mutex:
        await asyncio.sleep(5 * LIMIT_SEC)
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(mutex.acquire(), 5)

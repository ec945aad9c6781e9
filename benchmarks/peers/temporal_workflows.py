"""The workflow and the activity of Temporal. Its sandbox imports this module for each workflow."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

STEP = "step"


async def do_nothing() -> int:
    return 1


step = activity.defn(name=STEP)(do_nothing)


async def one() -> Any:
    return await workflow.execute_activity(STEP, start_to_close_timeout=timedelta(minutes=1))


@workflow.defn
class Steps:
    """Steps one after the other, or side by side with one step after all of them."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, count: int, together: bool) -> None:
        if together:
            await asyncio.gather(*(one() for _ in range(count)))
            await one()
        else:
            for _ in range(count):
                await one()

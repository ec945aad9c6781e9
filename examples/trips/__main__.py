"""Book two trips, one of which is not agreed to."""

import asyncio
from datetime import UTC, datetime, timedelta

from examples.trips.flow import trip
from examples.trips.models import Traveller
from flowkit import Coordinator
from flowkit.worker import Worker

ADDRESS = "memory://trips"


async def main() -> None:
    handlers = trip.build().handlers
    async with Coordinator(db=ADDRESS) as coordinator, Worker(db=ADDRESS, handlers=handlers):
        soon = datetime.now(UTC) + timedelta(seconds=1)
        for name, choice in (("Ada", "approve"), ("Ben", "reject")):
            task_id = await trip.submit(
                coordinator, Traveller(name=name, to="Reykjavik"), check_in_at=soon
            )
            await decide(coordinator, task_id, choice)
            view = await coordinator.wait(task_id)
            print(f"{name}: {view.status}, {view.result or view.error}")
            for node_id in ("book_hotel~undo", "book_flight~undo", "tell"):
                if view.nodes[node_id].result is not None:
                    print(f"  {node_id}: {view.nodes[node_id].result}")


async def decide(coordinator: Coordinator, task_id: str, choice: str) -> None:
    """Decide as soon as the approval is asked for. The airline sends its ticket early."""
    await coordinator.signal(task_id, "ticket", {"seat": "12A"})
    while not (asked := (await coordinator.approvals(assignee="ann")).items):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    print(asked[0].prompt)
    values = {"number": 7} if choice == "approve" else None
    await coordinator.decide(task_id, asked[0].node_id, choice, by="ann", values=values)


if __name__ == "__main__":
    asyncio.run(main())

"""The example of a flow with approvals, undos and ``finally``, in virtual time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from examples.trips.flow import DAY_SEC, trip
from examples.trips.models import Traveller
from flowkit_testing import Cluster

HANDLERS: dict[str, Any] = dict(trip.build().handlers)


async def begin(cluster: Cluster, to: str) -> str:
    await cluster.add_worker(HANDLERS)
    check_in_at = datetime.fromtimestamp(cluster.clock.now() + 3 * DAY_SEC, UTC)
    task_id = await trip.submit(
        cluster.client, Traveller(name="Ada", to=to), check_in_at=check_in_at
    )
    await cluster.clock.sleep(10)
    return task_id


async def test_a_trip_that_is_agreed_to_is_paid_and_checked_in_in_time(flowkit_cluster: Cluster):
    client = flowkit_cluster.client
    task_id = await begin(flowkit_cluster, "Reykjavik")
    (asked,) = (await client.approvals(assignee="ann")).items
    assert asked.prompt == "Ada to Reykjavik for 675 EUR?"
    await client.decide(task_id, "agreed", "approve", by="ann", values={"number": 7})
    await client.signal(task_id, "ticket", {"seat": "12A"})
    view = await client.wait(task_id)
    assert view.result == {"paid": "675 EUR paid by 7", "seat": "Ada sits on 12A"}
    assert view.nodes["tell"].result == "To Ada: your trip to Reykjavik has finished"
    assert view.nodes["check_in"].started_at == datetime.fromisoformat(view.params["check_in_at"])
    assert view.nodes["book_flight~undo"].status == "skipped"


async def test_a_cheap_trip_needs_no_approval(flowkit_cluster: Cluster):
    client = flowkit_cluster.client
    task_id = await begin(flowkit_cluster, "Oslo")
    await client.signal(task_id, "ticket", {"seat": "1B"})
    view = await client.wait(task_id)
    assert view.nodes["agreed"].status == "skipped"
    assert view.result == {"paid": "300 EUR paid by the team", "seat": "Ada sits on 1B"}


@pytest.mark.parametrize("decides", [True, False])
async def test_a_trip_that_is_not_agreed_to_is_taken_back(flowkit_cluster: Cluster, decides: bool):
    client = flowkit_cluster.client
    task_id = await begin(flowkit_cluster, "Reykjavik")
    if decides:
        await client.decide(task_id, "agreed", "reject", by="bob")
    view = await client.wait(task_id)
    assert view.status == "failed"
    assert view.nodes["agreed"].reason_code == ("rejected" if decides else "approval_timeout")
    assert view.nodes["book_flight~undo"].result == "flight F-Ada cancelled"
    assert view.nodes["book_hotel~undo"].result == "hotel H-Ada cancelled: no trip to Reykjavik"
    assert view.nodes["tell"].result == "To Ada: your trip to Reykjavik has failed"
    assert view.finished_at is not None
    waited = view.finished_at - view.created_at
    assert (waited >= timedelta(days=2)) is not decides

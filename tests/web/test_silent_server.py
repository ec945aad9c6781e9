"""The web API while a real MongoDB does not answer."""

import time

import anyio
import httpx
import pytest

from flowkit import Client
from tests.servers.mongod import MongoServers
from tests.telemetry.test_metrics_port import samples
from tests.web.api import problem, serving

pytestmark = pytest.mark.services


async def test_each_request_is_answered_within_seconds_while_the_server_is_suspended(
    own_mongo: MongoServers,
) -> None:
    (member,) = own_mongo.members
    answers: dict[str, tuple[httpx.Response, float]] = {}
    db = own_mongo.address.replace("/?", "/flowkit-silent?")
    async with Client(db=db, bus="memory://") as client, serving(client) as http:

        async def ask(path: str) -> None:
            begun_at = time.monotonic()
            answers[path] = await http.get(path), time.monotonic() - begun_at

        await ask("/me")
        member.suspend()
        try:
            async with anyio.create_task_group() as group:
                for path in ("/me", "/stats", "/metrics"):
                    group.start_soon(ask, path)
        finally:
            member.resume()
    for path, most_sec in (("/me", 2), ("/metrics", 6), ("/stats", 9)):
        assert answers[path][1] < most_sec, path
    assert answers["/me"][0].status_code == 200
    assert samples(answers["/metrics"][0].text)["flowkit_store_up"] == {(): 0}
    assert problem(answers["/stats"][0]) == (503, "store_unavailable")

"""Streams of events: their text, where they begin, and when they end."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from flowkit import TaskEvent
from flowkit.errors import StoreUnavailable
from flowkit_testing import Cluster
from flowkit_web import WebConfig
from flowkit_web._access import FRESH_SEC
from flowkit_web._app import WebApp, guarded
from flowkit_web._event_streams import EventStream, Streams
from flowkit_web._tokens import KIND as TOKEN
from flowkit_web._tokens import Role, add_token, remove_token
from tests.builders import graph, node
from tests.hooked_store import HookedStore
from tests.web.api import cluster_with_api, problem, work

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SLEEP = graph(node("s", "sleep", io={"for_sec": 100 * 24 * 3_600}))


def events_in(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream as objects of their fields."""
    return [
        dict(line.split(": ", 1) for line in block.split("\n"))
        for block in text.strip().split("\n\n")
        if block != ":"
    ]


class Follower:
    """Client that follows a task, and takes each part of the stream when it likes."""

    def __init__(self, app: Any, token: str, task_id: str) -> None:
        self._app = app
        self._headers = {"host": "localhost", "authorization": f"Bearer {token}"}
        self._path = f"/api/v1/tasks/{task_id}/events"
        self._leave = anyio.Event()
        self._sent, self.parts = anyio.create_memory_object_stream[str]()

    async def run(self) -> None:
        """Make the request."""
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(k.encode(), v.encode()) for k, v in self._headers.items()],
            "client": ("203.0.113.9", 4711),
            "server": ("localhost", 8400),
        }
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await self._leave.wait()
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body" and message["body"]:
                await self._sent.send(message["body"].decode())

        async with self._sent:
            await self._app(scope, receive, send)

    def leave(self) -> None:
        """Close the connection."""
        self._leave.set()


@asynccontextmanager
async def following(
    cluster: Cluster, **config: Any
) -> AsyncIterator[tuple[WebApp, Follower, anyio.Event]]:
    """Follow a task that sleeps. The event is set when the stream has ended."""
    client, settings = cluster.client, WebConfig(**config)
    token = await add_token(client.store.records, "ann", Role.VIEWER, client.clock)
    await client.create_task(graph=SLEEP, task_id="t")
    await cluster.clock.sleep(1)
    app = WebApp(client, settings, local=False)
    follower = Follower(guarded(app, settings), token, "t")
    ended = anyio.Event()

    async def run() -> None:
        await follower.run()
        ended.set()

    async with follower.parts, anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        yield app, follower, ended
        tasks.cancel_scope.cancel()


async def test_a_stream_has_each_event_of_the_task_and_its_end() -> None:
    async with cluster_with_api() as (cluster, http):
        await cluster.client.create_task(graph=graph(node("a", "work")), task_id="t")
        answer = await http.get("/tasks/t/events")
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        *events, end = events_in(answer.text)
        expected = [event async for event in cluster.client.watch("t")]
        assert [json.loads(event["data"]) for event in events] == [
            event.model_dump(mode="json") for event in expected
        ]
        assert [event["id"] for event in events] == [str(event.seq) for event in expected]
        assert end == {"event": "end", "data": "{}"}


async def test_the_description_has_the_header_that_continues_a_stream() -> None:
    async with cluster_with_api() as (_, http):
        paths = (await http.get("/openapi.json")).json()["paths"]
    parameters = paths["/api/v1/tasks/{task_id}/events"]["get"]["parameters"]
    assert [(one["name"], one["in"]) for one in parameters] == [
        ("task_id", "path"),
        ("Last-Event-ID", "header"),
    ]


async def test_a_stream_continues_after_the_last_event_of_the_client() -> None:
    async with cluster_with_api() as (cluster, http):
        await cluster.run(graph(node("a", "work")), task_id="t")
        every = events_in((await http.get("/tasks/t/events")).text)
        for after in (0, 2, len(every) - 1, 10**9):
            headers = {"Last-Event-ID": str(after)}
            answer = await http.get("/tasks/t/events", headers=headers)
            assert events_in(answer.text) == (every[after:] or every[-1:])
        for wrong in ("x", "-1", "1.5", "9" * 19):
            answer = await http.get("/tasks/t/events", headers={"Last-Event-ID": wrong})
            assert problem(answer) == (422, "invalid_request")


async def test_a_stream_shows_a_change_when_it_happens_and_heartbeats_meanwhile() -> None:
    async with Cluster(handlers=[work]) as cluster, following(cluster) as (_, follower, ended):
        shown: list[str] = []
        while not shown or '"deferred"' not in shown[-1]:
            shown.append(await follower.parts.receive())
        while ":\n\n" not in shown:
            shown.append(await follower.parts.receive())
        await cluster.client.cancel("t")
        async for part in follower.parts:
            shown.append(part)
        assert '"status":"cancelled"' in shown[-2]
        assert shown[-1].startswith("event: end\n")
        await ended.wait()


async def test_a_client_that_leaves_ends_its_stream() -> None:
    async with (
        Cluster(handlers=[work]) as cluster,
        following(cluster) as (app, follower, ended),
    ):
        await follower.parts.receive()
        assert app.state.streams.open == 1
        follower.leave()
        async for _ in follower.parts:
            pass
        await ended.wait()
        assert app.state.streams.open == 0


async def test_a_server_that_stops_ends_its_streams() -> None:
    async with (
        Cluster(handlers=[work]) as cluster,
        following(cluster) as (app, follower, ended),
    ):
        await follower.parts.receive()
        app.state.streams.stopping.set()
        assert "event: end" not in "".join([part async for part in follower.parts])
        await ended.wait()


async def test_a_stream_ends_when_its_token_is_removed() -> None:
    async with (
        Cluster(handlers=[work]) as cluster,
        following(cluster, heartbeat_sec=FRESH_SEC) as (_, follower, ended),
    ):
        await follower.parts.receive()
        await remove_token(cluster.client.store.records, "ann")
        async for _ in follower.parts:
            pass
        await ended.wait()


class Interrupted(HookedStore):
    """Store that cannot read tokens while it is away."""

    def __init__(self, *, hangs: bool) -> None:
        super().__init__()
        self.hangs = hangs
        self.back = anyio.Event()
        self.back.set()

    async def before_read(self, kind: str) -> None:
        if kind == TOKEN and not self.back.is_set():
            if not self.hangs:
                raise StoreUnavailable("no server")
            await self.back.wait()


@pytest.mark.parametrize("hangs", [False, True], ids=["refused", "silent"])
async def test_a_stream_goes_on_and_sends_heartbeats_while_the_store_is_away(hangs: bool) -> None:
    store = Interrupted(hangs=hangs)
    async with (
        Cluster(handlers=[work], store=store) as cluster,
        following(cluster, heartbeat_sec=FRESH_SEC) as (_, follower, ended),
    ):
        await follower.parts.receive()
        store.back = anyio.Event()
        comments = 0
        while comments < 5:
            comments += await follower.parts.receive() == ":\n\n"
        store.back.set()
        await cluster.client.cancel("t")
        shown = [part async for part in follower.parts]
        assert shown[-1].startswith("event: end\n")
        await ended.wait()


async def test_more_streams_than_the_limit_are_refused() -> None:
    async with (
        Cluster(handlers=[work]) as cluster,
        following(cluster, max_streams=1) as (app, follower, _),
    ):
        await follower.parts.receive()
        token = await add_token(
            cluster.client.store.records, "bob", Role.VIEWER, cluster.client.clock
        )
        await cluster.clock.sleep(FRESH_SEC)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as http:
            headers = {"Authorization": f"Bearer {token}"}
            answer = await http.get("/api/v1/tasks/t/events", headers=headers)
        assert problem(answer) == (503, "too_many_streams")


def stream_of(items: AsyncIterator[TaskEvent], cluster: Cluster) -> EventStream:
    async def allow() -> bool:
        return True

    return EventStream(
        items,
        streams=Streams(most=1),
        clock=cluster.client.clock,
        heartbeat_sec=15,
        is_allowed=allow,
    )


async def test_a_client_that_leaves_frees_what_followed_the_task_for_it() -> None:
    takes_none, freed = anyio.Event(), anyio.Event()

    async def events() -> AsyncIterator[TaskEvent]:
        try:
            yield TaskEvent(seq=1, at=NOON, task_id="t", kind="x")
        finally:
            freed.set()

    async def leaves() -> dict[str, Any]:
        await takes_none.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body"):
            takes_none.set()
            await anyio.sleep_forever()

    async with Cluster(coordinators=0) as cluster:
        await stream_of(events(), cluster)({}, leaves, send)
        assert freed.is_set()


async def test_a_long_history_leaves_other_clients_their_turns() -> None:
    async def history() -> AsyncIterator[TaskEvent]:
        for seq in range(1, 2_001):
            yield TaskEvent(
                seq=seq, at=NOON, task_id="t", node_id=None, kind="x", status=None, data=None
            )

    async def stays() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    sent: list[Any] = []
    turns = [0]

    async def send(message: Any) -> None:
        sent.append(message)

    async def other() -> None:
        while True:
            turns.append(len(sent))
            await anyio.lowlevel.checkpoint()

    async with Cluster(coordinators=0) as cluster:
        stream = stream_of(history(), cluster)
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            await stream({}, stays, send)
            group.cancel_scope.cancel()
    assert len(sent) > 2_000
    assert max(after - before for before, after in pairwise(turns)) < 200

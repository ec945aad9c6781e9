"""A record that the store cannot decode or change does not stop other tasks."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from flowkit import Client
from flowkit._dead_letters.redrive import Redriven
from flowkit._records.letter_records import park_letters, read_letters
from flowkit.errors import CorruptRecord, RecordRefused, StoreError, StoreUnavailable
from flowkit.protocols import ArtifactRecord, Commit, KeyedRecord, Stream, TaskQuery, TaskRecord
from flowkit.task import DeadLetter
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryArtifactStore, InMemoryStore
from flowkit_testing._cluster import DAY, HOUR
from tests.builders import TWO, work
from tests.hooked_store import HookedStore

READING = {
    "nodes": [
        {"node_id": "a", "type": "produce"},
        {"node_id": "b", "type": "read", "depends_on": ["a"], "retry_policy": {"max": 3}},
        {
            "node_id": "sum",
            "type": "coordinator_fn",
            "depends_on": ["a"],
            "io": {"fn": "metrics.aggregate", "fn_args": {"node_id": "a"}},
        },
    ],
    "on_node_failure": "continue",
}


@handler("produce")
async def produce(item: Any) -> Any:
    for number in (1, 2):
        yield {"number": number}


@handler("read")
async def read(item: Any, ctx: RunContext) -> Any:
    return [meta async for meta in ctx.artifacts.read("a")]


HANDLERS = [work, produce, read]


class DamagedArtifacts(InMemoryArtifactStore):
    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> Sequence[ArtifactRecord]:
        if stream.task_id.startswith("damaged"):
            raise CorruptRecord("the record of an artifact cannot be read")
        return await super().read(stream, after=after, limit=limit, latest=latest)


class DamagedStore(HookedStore):
    """A store that fails for some tasks.

    It refuses commits of some, cannot decode others, and cannot read the artifacts of others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.artifacts = DamagedArtifacts()
        self.commits_refused = 0
        self.unreadable: set[str] = set()

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        bad = [commit for commit in commits if commit.task_id.startswith("refused")]
        await super().commit([commit for commit in commits if commit not in bad])
        if bad:
            self.commits_refused += 1
            raise RecordRefused("the store does not take this one")
        return [True] * len(commits)

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        return {
            task_id: self._seen(record)
            for task_id, record in (await super().load(task_ids)).items()
        }

    async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
        records, after = await super().list_tasks(query)
        return [self._seen(record) for record in records], after

    def _seen(self, record: TaskRecord) -> TaskRecord:
        if record.header.task_id not in self.unreadable:
            return record
        header = replace(record.header, status="a status that there is not")
        return TaskRecord(header, b"", {}, version=0, fault="its bytes are gone")

    def seen(self, record: KeyedRecord) -> KeyedRecord:
        if record.key != "message-damaged":
            return record
        return replace(record, data=b"", fault="its bytes are gone")


async def test_a_task_whose_commits_are_refused_is_quarantined_and_those_beside_it_finish() -> None:
    store = DamagedStore()
    async with Cluster(store=store, handlers=HANDLERS, coordinators=0) as cluster:
        whole = [await cluster.client.create_task(graph=TWO) for _ in range(5)]
        await cluster.client.create_task(graph=TWO, task_id="refused")
        await cluster.add_coordinator()
        assert [(await cluster.client.wait(task_id, timeout=DAY)).status for task_id in whole] == [
            "finished"
        ] * 5
        await cluster.clock.sleep(5 * DAY)
        letters = await read_letters(store, task_id="refused")
        assert [(letter.kind, letter.reason_code) for letter in letters] == [
            ("task", "quarantined")
        ]
        assert "does not take this one" in letters[0].error
    # Every sweep finds it again, and nothing else does.
    assert store.commits_refused < 30


async def test_a_task_that_cannot_be_decoded_is_shown_as_such_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, logger="flowkit._tasks.quarantine")
    store = DamagedStore()
    async with Cluster(store=store, handlers=HANDLERS, coordinators=0) as cluster:
        await cluster.client.create_task(graph=TWO, task_id="unread")
        store.unreadable.add("unread")
        await cluster.add_coordinator()
        assert (await cluster.run(TWO)).status == "finished"
        await cluster.clock.sleep(5 * DAY)
        listed = {view.id: view for view in (await cluster.client.list_tasks()).items}
        assert (
            listed["unread"].status,
            "its bytes are gone" in (listed["unread"].error or ""),
        ) == ("queued", True)
        for ask in (cluster.client.get_task, cluster.client.wait):
            with pytest.raises(CorruptRecord, match="its bytes are gone"):
                await ask("unread")
    assert len([record for record in caplog.records if "quarantined" in record.getMessage()]) == 1


async def test_a_node_that_needs_a_damaged_artifact_fails_once_and_says_so() -> None:
    async with Cluster(store=DamagedStore(), handlers=HANDLERS) as cluster:
        whole = await cluster.run(READING)
        damaged = await cluster.run(READING, task_id="damaged")
    assert whole.status == "finished"
    for node_id in ("b", "sum"):
        node = damaged.nodes[node_id]
        assert (node.status, node.reason_code, node.attempt) == ("failed", "corrupt_record", 1)
        assert "cannot be read" in (node.error or "")


async def test_a_damaged_letter_is_left_as_it_is_when_letters_are_tried_again() -> None:
    async with Cluster(store=DamagedStore(), handlers=HANDLERS) as cluster:
        await park_letters(
            cluster.store,
            [
                DeadLetter("message-damaged", 1.0, "message", "code", "error"),
                DeadLetter("task-t-1", 1.0, "task", "c", "e", "t"),
            ],
        )
        outcomes = await cluster.client.retry_dead_letters(["message-damaged", "task-t-1"])
    assert outcomes[0] == Redriven(
        "message-damaged", False, "the letter is damaged: its bytes are gone"
    )
    assert outcomes[1].done


@pytest.mark.parametrize(
    ("error", "waited"), [(StoreError("not authorized"), False), (StoreUnavailable("away"), True)]
)
async def test_a_client_waits_for_a_store_that_is_away_and_not_for_one_that_refuses(
    error: StoreError, waited: bool
) -> None:
    class Refusing(InMemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            raise error

    async with Cluster(store=Refusing(), coordinators=0) as cluster:
        task_id = await cluster.client.create_task(graph=TWO)
        began = cluster.clock.monotonic()
        with pytest.raises(type(error)):
            await cluster.client.cancel(task_id)
        took = cluster.clock.monotonic() - began
    assert (1 < took < HOUR) is waited


VERBS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "get_task": lambda client: client.get_task("t"),
    "wait": lambda client: client.wait("t"),
    "wait for a while": lambda client: client.wait("t", 5),
    "cancel": lambda client: client.cancel("t"),
    "pause": lambda client: client.pause("t"),
    "resume": lambda client: client.resume("t"),
    "retry": lambda client: client.retry("t"),
    "watch": lambda client: anext(client.watch("t")),
    "artifacts": lambda client: anext(client.artifacts("t")),
}


class UnreadableStore(InMemoryStore):
    """A store that returns damaged records of tasks once it has a ``damage``."""

    damage: dict[str, Any] | None = None

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        found = await super().load(task_ids)
        return {
            task_id: replace(record, **(self.damage or {})) for task_id, record in found.items()
        }


DAMAGES = pytest.mark.parametrize(
    "damage",
    [{"spec": b"x"}, {"parts": {}}, {"fault": "its bytes are gone"}],
    ids=["spec", "state", "bytes"],
)


@DAMAGES
@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
async def test_a_verb_says_that_a_task_cannot_be_read(
    verb: Callable[[Client], Awaitable[Any]], damage: dict[str, Any]
) -> None:
    store = UnreadableStore()
    async with Cluster(store=store, coordinators=0) as cluster:
        await cluster.client.create_task(graph=TWO, task_id="t")
        store.damage = damage
        for client in (cluster.client, await cluster.add_coordinator()):
            with pytest.raises(CorruptRecord, match="the record of task 't' cannot be read"):
                await verb(client)


@DAMAGES
async def test_a_task_that_cannot_be_read_is_explained_once_it_is_quarantined(
    damage: dict[str, Any],
) -> None:
    store = UnreadableStore()
    async with Cluster(store=store, coordinators=0) as cluster:
        await cluster.client.create_task(graph=TWO, task_id="t")
        store.damage = damage
        with pytest.raises(CorruptRecord, match="the record of task 't' cannot be read"):
            await cluster.client.explain("t", "a")
        await cluster.add_coordinator()
        await cluster.clock.sleep(60)
        sentence = await cluster.client.explain("t", "a")
        assert sentence.startswith("The task was quarantined")
        assert "Cause: CorruptRecord: the record of task 't' cannot be read: " in sentence


@pytest.mark.parametrize("verb", ["cancel", "pause"])
async def test_a_request_that_cannot_be_stored_is_an_error(verb: str) -> None:
    async with Cluster(store=DamagedStore(), handlers=HANDLERS, coordinators=0) as cluster:
        await cluster.client.create_task(graph=TWO, task_id="refused")
        for client in (cluster.client, await cluster.add_coordinator()):
            with pytest.raises(RecordRefused, match="does not take this one"):
                await getattr(client, verb)("refused")

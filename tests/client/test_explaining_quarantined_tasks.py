"""The answer of ``explain`` for a quarantined task."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flowkit._records.letter_records import park_letters, read_letters
from flowkit.errors import CorruptRecord, RecordRefused, TaskNotFound
from flowkit.protocols import Commit, KeyedRecord
from flowkit.task import DeadLetter
from flowkit_testing import Cluster, InMemoryStore
from flowkit_testing._cluster import DAY
from tests.builders import TWO, work
from tests.hooked_store import HookedStore


class RefusingStore(InMemoryStore):
    """A store that refuses every commit while ``refuses`` is True."""

    refuses = True

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        if self.refuses:
            raise RecordRefused("the store does not take this one")
        return await super().commit(commits)


async def damage(store: InMemoryStore, **state: Any) -> None:
    """Store another state of the task."""
    record = (await store.load(["t"]))["t"]
    parts = {"state": json.dumps(json.loads(record.parts["state"]) | state).encode()}
    await put_parts(store, parts, **state)


async def put_parts(store: InMemoryStore, put: dict[str, bytes], **state: Any) -> None:
    """Store other parts of the task."""
    record = (await store.load(["t"]))["t"]
    header = record.header
    change = Commit(
        "t",
        record.version,
        "damage",
        state.get("status", header.status),
        header.wake_at,
        header.finished_at,
        put,
    )
    assert await store.commit([change]) == [True]


async def letter_of(cluster: Cluster) -> DeadLetter:
    (letter,) = await read_letters(cluster.store, task_id="t", kind="task")
    return letter


def check_sentence(sentence: str, letter: DeadLetter, cause: str) -> None:
    assert sentence.startswith("The task was quarantined")
    assert f"run `flowkit dlq retry {letter.letter_id}`" in sentence
    assert f"`flowkit dlq show {letter.letter_id}`" in sentence
    assert sentence.endswith(f"Cause: {cause}")
    assert "waits" not in sentence.partition("Cause: ")[0]


async def test_explain_says_that_a_task_is_quarantined_and_what_to_do() -> None:
    store = RefusingStore()
    async with Cluster(store=store, handlers=[work], coordinators=0) as cluster:
        await cluster.client.create_task(graph=TWO, task_id="t")
        assert (await cluster.client.explain("t", "b")).startswith("'b' waits for 'a'. ")
        await cluster.add_coordinator()
        await cluster.clock.sleep(60)
        letter = await letter_of(cluster)
        assert letter.error.startswith(
            "RecordRefused: the store does not take this one\n\nTraceback"
        )
        for node_id in "ab":
            sentence = await cluster.client.explain("t", node_id)
            check_sentence(sentence, letter, "RecordRefused: the store does not take this one")
        # The advice in the answer helps.
        store.refuses = False
        (outcome,) = await cluster.client.retry_dead_letters([letter.letter_id])
        assert outcome.done
        assert (await cluster.client.wait("t", 30 * DAY)).status == "finished"
        assert await cluster.client.explain("t", "a") == "'a' has finished."


@pytest.mark.parametrize("marks", ["F.", "FF", "x.", ".."])
async def test_explain_says_that_a_task_whose_record_is_damaged_is_quarantined(marks: str) -> None:
    async with Cluster(coordinators=0) as cluster:
        await cluster.client.create_task(graph=TWO, task_id="t")
        await damage(cluster.store, marks=marks)
        with pytest.raises(CorruptRecord):
            await cluster.client.explain("t", "b")
        await cluster.add_coordinator()
        await cluster.clock.sleep(60)
        letter = await letter_of(cluster)
        cause = letter.error
        assert cause.startswith("CorruptRecord: the record of task 't' cannot be read")
        for node_id in "ab":
            check_sentence(await cluster.client.explain("t", node_id), letter, cause)
        with pytest.raises(TaskNotFound, match="no node 'c'"):
            await cluster.client.explain("t", "c")


@pytest.mark.parametrize("part", ["state", "n0"])
async def test_a_task_with_a_part_that_is_no_json_is_quarantined_and_explained(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Cluster(coordinators=0) as cluster:
        await cluster.client.create_task(graph=TWO, task_id="t")
        await put_parts(cluster.store, {part: b"{"})
        with pytest.raises(CorruptRecord) as refusal:
            await cluster.client.cancel("t")
        letter = await letter_of(cluster)
        assert letter.error == f"CorruptRecord: {refusal.value}"
        (line,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert line.getMessage() == f"Task t is quarantined: {refusal.value}"
        assert line.exc_info is None
        check_sentence(await cluster.client.explain("t", "b"), letter, letter.error)
        # A coordinator that finds the same damage leaves no second letter.
        await cluster.add_coordinator()
        await cluster.clock.sleep(60)
        assert await letter_of(cluster) == letter


async def test_a_task_that_changed_after_it_was_quarantined_is_explained_by_its_record() -> None:
    async with Cluster() as cluster:
        await cluster.client.create_task(graph=TWO, task_id="t")
        await park_letters(
            cluster.store,
            [DeadLetter("task-t-1", cluster.clock.now(), "task", "quarantined", "Error: no", "t")],
        )
        assert (await cluster.client.explain("t", "b")).startswith(
            "The task was quarantined 0.0 s ago"
        )
        await cluster.clock.sleep(5)
        await cluster.client.pause("t")
        await cluster.client.resume("t")
        assert await cluster.client.explain("t", "b") == "'b' waits for 'a'."


async def test_the_cause_in_a_letter_that_cannot_be_decoded_is_its_fault() -> None:
    class Faulty(HookedStore):
        def seen(self, record: KeyedRecord) -> KeyedRecord:
            if record.kind != "letter":
                return record
            return replace(record, data=b"", fault="its bytes are gone")

    async with Cluster(store=Faulty()) as cluster:
        await cluster.client.create_task(graph=TWO, task_id="t")
        await park_letters(
            cluster.store,
            [DeadLetter("task-t-1", cluster.clock.now(), "task", "quarantined", "Error: no", "t")],
        )
        check_sentence(
            await cluster.client.explain("t", "b"), await letter_of(cluster), "its bytes are gone"
        )


async def test_the_letters_of_a_task_are_read_only_for_nodes_that_a_quarantine_would_hold() -> None:
    class Scans(HookedStore):
        def seen(self, record: KeyedRecord) -> KeyedRecord:
            assert record.kind != "letter"
            return record

    async with Cluster(store=Scans(), handlers=[work]) as cluster:
        assert (await cluster.run(TWO, task_id="t")).status == "finished"
        at = cluster.clock.now()
        letter = DeadLetter("task-t-1", at, "task", "quarantined", "Error: no", "t")
        await park_letters(cluster.store, [letter])
        assert await cluster.client.explain("t", "b") == "'b' has finished."

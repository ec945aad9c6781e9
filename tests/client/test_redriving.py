"""Dead letters that a client retries."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace

import pytest

from flowkit import Client, CoordinatorConfig
from flowkit._codecs.bus_codec import SIGNATURE
from flowkit._records.letter_records import park_letters
from flowkit.errors import BusUnavailable
from flowkit.protocols import Message, Place, TaskRecord
from flowkit.task import DeadLetter
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore
from tests.builders import graph, node


class Recording(InMemoryBus):
    """A bus that records published messages, unless it is away."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Message] = []
        self.away = False

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        if self.away:
            raise BusUnavailable("away")
        self.sent += messages
        return await super().publish(messages)


def message(letter_id: str = "message-m") -> DeadLetter:
    return DeadLetter(
        letter_id,
        0.0,
        "message",
        "refused",
        "no",
        data=b"{}",
        size=2,
        topic="flowkit.events",
        key="k",
        headers={"h": b"1"},
    )


async def test_a_letter_stays_until_its_message_was_confirmed() -> None:
    store, bus = InMemoryStore(), Recording()
    await park_letters(
        store, [message(), DeadLetter("task-t-1", 0.0, "task", "quarantined", "boom", task_id="t")]
    )
    async with bus, Client(store=store, bus=bus) as client:
        bus.away = True
        assert [
            outcome.done for outcome in await client.retry_dead_letters(["message-m", "task-t-1"])
        ] == [
            False,
            False,
        ]
        assert len((await client.dead_letters()).items) == 2
        bus.away = False
        assert [
            outcome.done for outcome in await client.retry_dead_letters(["message-m", "task-t-1"])
        ] == [
            True,
            True,
        ]
        assert (await client.dead_letters()).items == []


async def test_a_message_that_was_not_signed_is_not_signed_by_being_sent_again() -> None:
    store, bus = InMemoryStore(), Recording()
    await park_letters(store, [message()])
    async with (
        bus,
        Client(
            store=store, bus=bus, cfg=CoordinatorConfig(signing_keys=["0123456789abcdef" * 2])
        ) as client,
    ):
        await client.retry_dead_letters(["message-m"])
    (sent,) = bus.sent
    assert (sent.value, sent.key) == (b"{}", "k")
    assert SIGNATURE not in sent.headers


async def test_batches_of_a_task_that_is_gone_stay() -> None:
    store, bus = InMemoryStore(), Recording()
    await park_letters(
        store,
        [
            DeadLetter(
                "batch-gone-1", 0.0, "batch", "boom", "no", task_id="gone", node_id="a", uid="1"
            )
        ],
    )
    async with bus, Client(store=store, bus=bus) as client:
        (outcome,) = await client.retry_dead_letters(["batch-gone-1"])
        assert (outcome.done, "no task" in outcome.detail) == (False, True)
        assert len((await client.dead_letters(kind="batch")).items) == 1


async def test_letters_come_in_pages() -> None:
    store, bus = InMemoryStore(), Recording()
    await park_letters(store, [message(f"message-{number}") for number in range(3)])
    async with bus, Client(store=store, bus=bus) as client:
        first = await client.dead_letters(limit=2)
        assert first.next is not None
        second = await client.dead_letters(limit=2, after=first.next)
        with pytest.raises(ValueError, match="limit"):
            await client.dead_letters(limit=0)
    assert [letter.letter_id for letter in (*first.items, *second.items)] == [
        f"message-{number}" for number in range(3)
    ]
    assert second.next is None


async def test_one_that_cannot_be_sent_keeps_no_other_from_it() -> None:
    store, bus = InMemoryStore(), Recording()
    bus.max_message_bytes = 100
    large = replace(message("message-b"), data=b"x" * 200, size=200)
    await park_letters(store, [message("message-a"), large, message("message-c")])
    async with bus, Client(store=store, bus=bus) as client:
        outcomes = {
            outcome.letter_id: outcome
            for outcome in await client.retry_dead_letters(["message-a", "message-b", "message-c"])
        }
        assert {letter_id: outcome.done for letter_id, outcome in outcomes.items()} == {
            "message-a": True,
            "message-b": False,
            "message-c": True,
        }
        assert "200 bytes" in outcomes["message-b"].detail
        (left,) = (await client.dead_letters()).items
        assert left.letter_id == "message-b"


async def test_batches_of_a_task_that_cannot_be_read_keep_no_other_from_it() -> None:
    class Damaged(InMemoryStore):
        async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
            return {
                task_id: replace(record, fault="it was changed")
                for task_id, record in (await super().load(task_ids)).items()
            }

    store, bus = Damaged(), Recording()
    async with bus, Client(store=store, bus=bus) as client:
        task_id = await client.create_task(graph={"nodes": [{"node_id": "a", "type": "missing"}]})
        batch = f"batch-{task_id}-1"
        letter = DeadLetter(
            batch, 0.0, "batch", "boom", "no", task_id=task_id, node_id="a", uid="1"
        )
        await park_letters(store, [message(), letter])
        outcomes = {
            outcome.letter_id: outcome
            for outcome in await client.retry_dead_letters([batch, "message-m"])
        }
        assert {letter_id: outcome.done for letter_id, outcome in outcomes.items()} == {
            batch: False,
            "message-m": True,
        }
        assert "it was changed" in outcomes[batch].detail


async def test_a_node_that_cannot_run_without_a_failed_one_is_retried_with_it() -> None:
    """``task.end`` may finish a task in which nodes have failed."""
    repaired = False

    @handler("rows")
    async def rows(item: None, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        yield {"n": 1}
        if not repaired:
            await ctx.clock.sleep(60)
            raise ValueError("no more rows")

    @handler("load")
    async def load(row: dict[str, int]) -> dict[str, int]:
        if not repaired:
            raise ValueError("bad row")
        return row

    end = {"fn": "task.end", "fn_args": {"status": "finished"}}
    flow = graph(
        node("rows", "rows"),
        node("load", "load", io={"start_when": "first_batch"}, on_batch_failure="skip"),
        node("end", "coordinator_fn", "rows", "load", io=end, fan_in="ended"),
        edges_ex=[{"from": "rows", "to": "load", "trigger": "on_batch"}],
        on_node_failure="continue",
    )
    async with Cluster(handlers=[rows, load]) as cluster:
        client = cluster.client
        view = await cluster.run(flow)
        assert (view.status, view.nodes["rows"].status) == ("finished", "failed")
        letters = {one.node_id: one.letter_id for one in (await client.dead_letters()).items}
        (outcome,) = await client.retry_dead_letters([letters["load"]])
        assert not outcome.done
        assert outcome.detail == (
            "node 'load' cannot run without node 'rows', which did not finish; retry the dead"
            " letter of that node as well"
        )
        assert letters["load"] in {one.letter_id for one in (await client.dead_letters()).items}
        repaired = True
        outcomes = await client.retry_dead_letters(list(letters.values()))
        assert [one.done for one in outcomes] == [True, True]
        again = await client.wait(view.id)
        assert {name: str(one.status) for name, one in again.nodes.items()} == {
            "rows": "finished",
            "load": "finished",
            "end": "finished",
        }
        assert (await client.dead_letters()).items == []

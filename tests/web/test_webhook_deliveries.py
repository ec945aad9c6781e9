"""Webhooks deliver every change in order per task, over refusals of the receiver and crashes."""

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
import pytest
from pydantic_core import from_json, to_json

from flowkit import Client
from flowkit.cli.verbs import WebhookLetters
from flowkit.errors import RecordRefused, StoreError, StoreUnavailable
from flowkit.plugins import Plugins
from flowkit.protocols import Message, RecordChange, Store
from flowkit.task import DeadLetter
from flowkit_testing import InMemoryBus, InMemoryStore, ManualClock
from flowkit_web._webhook_config import WebhookConfig
from flowkit_web._webhook_deliveries import WebhookDeliveries
from flowkit_web._webhook_requests import NotDelivered
from tests.hooked_store import HookedStore, parks

TOPIC = "flowkit.changes"
SECRET = "whsec_" + "AAAA" * 8
HOUR = 3600.0


def config(**fields: object) -> WebhookConfig:
    return WebhookConfig.model_validate(
        {"url": "https://example.org/in", "secrets": [SECRET], **fields}
    )


async def publish(bus: InMemoryBus, *changes: tuple[str, int]) -> None:
    await bus.publish(
        [
            Message(TOPIC, to_json({"task_id": task_id, "seq": seq}), task_id)
            for task_id, seq in changes
        ]
    )


class Receiver:
    """A receiver that records what it accepts, and refuses what it is asked to."""

    def __init__(self, refuses: Callable[[str, int], bool] = lambda task_id, seq: False) -> None:
        self.refuses = refuses
        self.accepted: list[tuple[str, int]] = []
        self.ids: list[str] = []
        self.tries = 0

    async def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        change = from_json(body)
        self.tries += 1
        self.ids.append(headers["webhook-id"])
        if self.refuses(change["task_id"], change["seq"]):
            raise NotDelivered("it answered with status 500")
        self.accepted.append((change["task_id"], change["seq"]))

    def of(self, task_id: str) -> list[int]:
        """Return the numbers of the changes of a task, without later copies."""
        return list(dict.fromkeys(seq for one, seq in self.accepted if one == task_id))


@pytest.fixture
async def clock() -> AsyncIterator[ManualClock]:
    async with ManualClock().auto() as clock:
        yield clock


@asynccontextmanager
async def running(
    bus: InMemoryBus,
    clock: ManualClock,
    receiver: Receiver,
    *,
    name: str = "a",
    store: Store | None = None,
    **fields: object,
) -> AsyncIterator[anyio.CancelScope]:
    letters = WebhookLetters(name, store or InMemoryStore(), clock, Plugins(discover=False))
    deliveries = WebhookDeliveries(
        config(**fields),
        bus=bus,
        topic=TOPIC,
        group=f"flowkit.webhook.{name}",
        clock=clock,
        letters=letters,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(deliveries.run, receiver.post)
        yield group.cancel_scope
        group.cancel_scope.cancel()


async def test_a_change_that_is_refused_is_repeated_and_holds_back_only_its_own_task(
    clock: ManualClock,
) -> None:
    bus, receiver = InMemoryBus(), Receiver(lambda task_id, seq: (task_id, seq) == ("a", 1))
    await publish(bus, ("a", 1), ("a", 2), ("b", 1), ("b", 2))
    async with running(bus, clock, receiver):
        await clock.sleep(HOUR)
        assert receiver.accepted == [("b", 1), ("b", 2)]
        receiver.refuses = lambda task_id, seq: False
        await clock.sleep(HOUR)
    assert receiver.of("a") == [1, 2]


async def test_pauses_between_tries_grow_up_to_the_longest(clock: ManualClock) -> None:
    bus, receiver = InMemoryBus(), Receiver(lambda task_id, seq: True)
    await publish(bus, ("a", 1))
    async with running(bus, clock, receiver, longest_pause_sec=300):
        await clock.sleep(2 * HOUR)
    assert 2 * HOUR / 300 <= receiver.tries <= 2 * HOUR / 300 + 12
    assert len(set(receiver.ids)) == 1


async def test_what_was_not_accepted_before_a_restart_is_delivered_after_it(
    clock: ManualClock,
) -> None:
    bus, receiver = InMemoryBus(), Receiver(lambda task_id, seq: seq > 1)
    await publish(bus, ("a", 1), ("a", 2), ("a", 3))
    async with running(bus, clock, receiver):
        await clock.sleep(60)
    assert receiver.accepted == [("a", 1)]
    receiver.refuses = lambda task_id, seq: False
    async with running(bus, clock, receiver):
        await clock.sleep(60)
    assert receiver.accepted == [("a", 1), ("a", 2), ("a", 3)]


async def test_a_change_that_is_refused_for_too_long_becomes_a_dead_letter_and_is_logged(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    bus, receiver = InMemoryBus(), Receiver(lambda task_id, seq: seq == 1)
    await publish(bus, ("a", 1), ("a", 2))
    async with running(bus, clock, receiver, retry_for_sec=HOUR):
        await clock.sleep(2 * HOUR)
    assert receiver.accepted == [("a", 2)]
    async with bus.subscribe(["flowkit.dlq"], group="test") as letters:
        (letter,) = await letters.receive(max_messages=10)
    assert letter.message.headers["flowkit-reason"] == b"webhook a: it answered with status 500"
    (given_up,) = [line for line in caplog.records if line.levelname == "ERROR"]
    assert "gives up a change of task a" in given_up.getMessage()


# ---------------------------------------------------------------- dead letters


def refusing(task_id: str, seq: int) -> bool:
    return True


async def kept(bus: InMemoryBus, store: Store) -> list[DeadLetter]:
    """Return the dead letters of webhooks, as clients list them."""
    async with Client(store=store, bus=bus) as client:
        return (await client.dead_letters(kind="webhook")).items


async def retry_all(bus: InMemoryBus, store: Store) -> list[str]:
    """Retry the dead letters of webhooks, and return the outcomes."""
    async with Client(store=store, bus=bus) as client:
        letters = (await client.dead_letters(kind="webhook")).items
        return [
            one.detail
            for one in await client.retry_dead_letters([letter.letter_id for letter in letters])
        ]


async def test_a_change_that_was_given_up_is_listed_with_its_task_webhook_and_reason(
    clock: ManualClock,
) -> None:
    bus, store = InMemoryBus(), InMemoryStore()
    await publish(bus, ("a", 1))
    async with running(bus, clock, Receiver(refusing), store=store, retry_for_sec=HOUR):
        await clock.sleep(2 * HOUR)
    (letter,) = await kept(bus, store)
    assert (letter.task_id, letter.webhook, letter.reason_code) == ("a", "a", "not_delivered")
    assert letter.error == "webhook a: it answered with status 500"
    assert from_json(letter.data) == {"task_id": "a", "seq": 1}


async def test_a_retried_letter_is_delivered_to_its_webhook_alone_and_then_dropped(
    clock: ManualClock,
) -> None:
    bus, store = InMemoryBus(), InMemoryStore()
    down, other = Receiver(refusing), Receiver()
    await publish(bus, ("a", 1), ("a", 2))
    async with (
        running(bus, clock, down, store=store, retry_for_sec=HOUR),
        running(bus, clock, other, store=store, name="b"),
    ):
        await clock.sleep(2 * HOUR)
        down.refuses = lambda task_id, seq: False
        outcomes = await retry_all(bus, store)
        said = (
            "published for webhook 'a' again, which this configuration does not have; the letter"
            " stays until `flowkit webhooks` has delivered it"
        )
        assert outcomes == [said] * 2
        await clock.sleep(60)
        assert await kept(bus, store) == []
    assert sorted(down.accepted) == sorted(other.accepted) == [("a", 1), ("a", 2)]
    assert len(set(down.ids)) == 2


async def test_a_retried_letter_stays_while_no_process_serves_its_webhook(
    clock: ManualClock,
) -> None:
    bus, store = InMemoryBus(), InMemoryStore()
    await publish(bus, ("a", 1))
    async with running(bus, clock, Receiver(refusing), store=store, retry_for_sec=HOUR):
        await clock.sleep(2 * HOUR)
    (letter,) = await kept(bus, store)
    async with running(bus, clock, Receiver(), name="b"):
        await retry_all(bus, store)
        await clock.sleep(60)
    assert await kept(bus, store) == [letter]


async def test_a_retried_letter_that_is_refused_again_stays_one_letter(clock: ManualClock) -> None:
    bus, store = InMemoryBus(), InMemoryStore()
    await publish(bus, ("a", 1))
    async with running(bus, clock, Receiver(refusing), store=store, retry_for_sec=HOUR):
        await clock.sleep(2 * HOUR)
        (letter,) = await kept(bus, store)
        await retry_all(bus, store)
        await clock.sleep(2 * HOUR)
    assert await kept(bus, store) == [letter]


async def test_the_key_of_a_foreign_message_is_no_task_and_its_letter_is_kept(
    clock: ManualClock,
) -> None:
    bus, store = InMemoryBus(), InMemoryStore()
    body = to_json({"task_id": "x", "seq": 1})
    odd = ["", "a\n", "k" * 300]
    await bus.publish([Message(TOPIC, body + b" " * place, key) for place, key in enumerate(odd)])
    async with running(bus, clock, Receiver(refusing), store=store, retry_for_sec=HOUR):
        await clock.sleep(2 * HOUR)
    letters = await kept(bus, store)
    assert [letter.task_id for letter in letters] == [None] * 3
    assert sorted(letter.key for letter in letters) == sorted(odd)


class Refusing(HookedStore):
    """A store that does not accept letters."""

    error: StoreError | None = None

    async def before_change(self, change: RecordChange) -> None:
        if self.error is not None and parks(change):
            raise self.error


async def test_a_change_is_not_given_up_while_the_store_is_away(clock: ManualClock) -> None:
    bus, store = InMemoryBus(), Refusing()
    store.error = StoreUnavailable("away")
    await publish(bus, ("a", 1), ("a", 2))
    receiver = Receiver(lambda task_id, seq: seq == 1)
    async with running(bus, clock, receiver, store=store, retry_for_sec=HOUR):
        await clock.sleep(24 * HOUR)
        assert receiver.accepted == []
        store.error = None
        await clock.sleep(HOUR)
    assert receiver.accepted == [("a", 2)]
    assert len(await kept(bus, store)) == 1


async def test_a_change_is_posted_on_while_the_store_is_away(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    bus, store, repaired = InMemoryBus(), Refusing(), False
    store.error = StoreUnavailable("away")
    await publish(bus, ("a", 1), ("a", 2))
    receiver = Receiver(lambda task_id, seq: not repaired)
    async with running(bus, clock, receiver, store=store, retry_for_sec=HOUR):
        await clock.sleep(5 * HOUR)
        repaired = True
        await clock.sleep(HOUR)
        assert receiver.accepted == [("a", 1), ("a", 2)]
    assert await kept(bus, store) == []
    assert "gives up" not in caplog.text


async def test_a_letter_that_the_store_refuses_is_logged_and_holds_up_nothing(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    bus, store = InMemoryBus(), Refusing()
    store.error = RecordRefused("no")
    await publish(bus, ("a", 1), ("a", 2))
    receiver = Receiver(lambda task_id, seq: seq == 1)
    async with running(bus, clock, receiver, store=store, retry_for_sec=HOUR):
        await clock.sleep(2 * HOUR)
    assert receiver.accepted == [("a", 2)]
    assert "is on the dead-letter topic only: no" in caplog.text


# ---------------------------------------------------------------- several at the same time


async def test_a_receiver_that_never_answers_holds_up_no_other(clock: ManualClock) -> None:
    class Silent(Receiver):
        async def post(self, body: bytes, headers: Mapping[str, str]) -> None:
            await anyio.sleep_forever()

    bus, receiver = InMemoryBus(), Receiver()
    async with running(bus, clock, Silent(), name="silent"), running(bus, clock, receiver):
        await publish(bus, *((f"t{number}", 1) for number in range(50)))
        await clock.sleep(60)
    assert len(receiver.accepted) == 50


async def test_requests_at_the_same_time_are_limited(clock: ManualClock) -> None:
    class Slow(Receiver):
        now = most = 0

        async def post(self, body: bytes, headers: Mapping[str, str]) -> None:
            self.now += 1
            self.most = max(self.now, self.most)
            await clock.sleep(1)
            self.now -= 1

    bus, slow = InMemoryBus(), Slow()
    await publish(bus, *((f"t{number}", 1) for number in range(20)))
    async with running(bus, clock, slow, max_parallel=3):
        await clock.sleep(60)
    assert slow.most == 3


@pytest.mark.parametrize("seed", range(20))
async def test_no_change_is_lost_and_none_comes_early_over_crashes(
    seed: int, clock: ManualClock
) -> None:
    """Processes are killed at random moments, and the receiver fails at random."""
    chances, bus = random.Random(seed), InMemoryBus(partitions=3)
    receiver = Receiver(lambda task_id, seq: chances.random() < 0.3)
    tasks = {f"t{number}": 0 for number in range(5)}
    for _ in range(10):
        for task_id in chances.choices(list(tasks), k=5):
            tasks[task_id] += 1
            await publish(bus, (task_id, tasks[task_id]))
        async with running(bus, clock, receiver), running(bus, clock, receiver):
            await clock.sleep(chances.uniform(0, 3))
    receiver.refuses = lambda task_id, seq: False
    async with running(bus, clock, receiver):
        await clock.sleep(HOUR)
    assert {task_id: receiver.of(task_id) for task_id in tasks} == {
        task_id: list(range(1, last + 1)) for task_id, last in tasks.items()
    }

"""With signing keys configured, messages without a valid signature change nothing."""

import inspect
from typing import Any

import pytest

from flowkit import Client, CoordinatorConfig, WorkerConfig
from flowkit._codecs.bus_codec import SIGNATURE, Signatures, sealed, signature
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError
from flowkit.messages import (
    CancelRun,
    NodeSucceeded,
    RunNode,
    TaskTouched,
    decode,
    encode,
    headers_of,
)
from flowkit.plugins import Plugins
from flowkit.protocols import Message
from flowkit.task import Task
from flowkit.worker import _commands
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore
from flowkit_testing._cluster import UNHURRIED_COORDINATOR, UNHURRIED_WORKER
from tests.builders import work

OLD, NEW, FOREIGN = "an old signing key", "a new signing key", "a foreign signing key"
EVENTS, COMMANDS, CONTROL, LETTERS = (
    "flowkit.events",
    "flowkit.cmd.work",
    "flowkit.control",
    "flowkit.dlq",
)
GRAPH = {"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": 1}}]}
TOUCH = Message(EVENTS, encode(TaskTouched(task_id="t")), "t", headers_of(None))


def signing(*keys: str) -> tuple[CoordinatorConfig, WorkerConfig]:
    return (
        UNHURRIED_COORDINATOR.model_validate(
            {**UNHURRIED_COORDINATOR.model_dump(exclude_unset=True), "signing_keys": keys}
        ),
        UNHURRIED_WORKER.model_validate(
            {**UNHURRIED_WORKER.model_dump(exclude_unset=True), "signing_keys": keys}
        ),
    )


def cluster(
    bus: InMemoryBus,
    *keys: str,
    store: InMemoryStore | None = None,
    worker_keys: tuple[str, ...] | None = None,
) -> Cluster:
    coordinator, _ = signing(*keys)
    _, worker = signing(*(keys if worker_keys is None else worker_keys))
    return Cluster(
        bus=bus,
        store=store,
        handlers={"work": work},
        coordinator_config=coordinator,
        worker_config=worker,
    )


async def letters_of(subscription: Any) -> list[tuple[str, str]]:
    letters = await subscription.receive(max_messages=100)
    return [
        (
            item.message.headers["flowkit-topic"].decode(),
            item.message.headers["flowkit-reason"].decode(),
        )
        for item in letters
    ]


async def test_flows_run_under_signatures_and_every_message_bears_one() -> None:
    bus = InMemoryBus()
    async with (
        bus.subscribe([EVENTS, COMMANDS, CONTROL], group="look") as look,
        cluster(bus, NEW) as signed,
    ):
        assert (await signed.run(GRAPH)).result == {"a": 1}
        seen = await look.receive(max_messages=100)
    assert {type(decode(item.message.value)).__name__ for item in seen} >= {
        "RunNode",
        "TaskTouched",
        "NodeSucceeded",
    }
    for item in seen:
        assert item.message.headers[SIGNATURE] == signature(NEW.encode(), item.message)


async def test_without_keys_nothing_is_signed_and_the_bus_is_used_as_it_is() -> None:
    bus = InMemoryBus()
    assert sealed(bus, CommonConfig(), Plugins(discover=False)) is bus
    async with bus.subscribe([EVENTS], group="look") as look, cluster(bus) as plain:
        assert (await plain.run(GRAPH)).status == "finished"
        assert not any(
            SIGNATURE in item.message.headers for item in await look.receive(max_messages=100)
        )


@pytest.mark.parametrize("key", [None, FOREIGN])
async def test_reports_and_hints_of_strangers_are_parked(key: str | None) -> None:
    bus, store = InMemoryBus(), InMemoryStore()
    async with (
        bus.subscribe([LETTERS], group="look") as parked,
        cluster(bus, NEW, store=store) as signed,
    ):
        before = await signed.run(GRAPH)
        forged = NodeSucceeded(
            task_id=before.id,
            index=0,
            attempt=1,
            token="x",
            worker_id="w",
            started_at=1,
            at=2,
            result="forged",
        )
        for message in (TOUCH, Message(EVENTS, encode(forged), before.id)):
            await bus.publish(
                [message if key is None else Signatures([key.encode()]).close(message)]
            )
        await signed.run(GRAPH)
        refused = await letters_of(parked)
        assert (await signed.client.get_task(before.id)).result == {"a": 1}
    reason = "not signed" if key is None else "signed by a key that is not configured here"
    assert [topic for topic, _ in refused] == [EVENTS, EVENTS]
    assert all(reason in text for _, text in refused)


@pytest.mark.parametrize("key", [None, FOREIGN])
async def test_commands_of_strangers_are_parked_and_not_run(key: str | None) -> None:
    bus, ran = InMemoryBus(), []

    async def record(item: Any) -> None:
        ran.append(item)

    command = RunNode(
        task_id="t",
        index=0,
        attempt=1,
        token="x",
        node_id="a",
        role="work",
        data={"io": {"input_inline": "forged"}, "params": {}, "vars": {}, "results": {}},
    )
    coordinator, worker = signing(NEW)
    async with (
        bus.subscribe([LETTERS], group="look") as parked,
        Cluster(
            bus=bus, handlers={"work": record}, coordinator_config=coordinator, worker_config=worker
        ) as signed,
    ):
        message = Message(COMMANDS, encode(command), "t")
        await bus.publish([message if key is None else Signatures([key.encode()]).close(message)])
        await signed.run(
            {"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": "mine"}}]}
        )
        assert [topic for topic, _ in await letters_of(parked)] == [COMMANDS]
    assert ran == ["mine"]


async def test_cancels_of_strangers_are_ignored() -> None:
    bus = InMemoryBus()
    tokens: list[str] = []

    async with bus.subscribe([COMMANDS], group="look") as look:

        async def slow(item: Any) -> Any:
            (command,) = await look.receive(max_messages=1)
            run = decode(command.message.value)
            tokens.append(run.token)
            await bus.publish(
                [
                    Message(
                        CONTROL,
                        encode(CancelRun(task_id=run.task_id, index=0, attempt=1, token=run.token)),
                        "",
                    )
                ]
            )
            for _ in range(100):
                await signed.clock.sleep(0.01)
            return "done"

        coordinator, worker = signing(NEW)
        async with Cluster(
            bus=bus, handlers={"work": slow}, coordinator_config=coordinator, worker_config=worker
        ) as signed:
            assert (await signed.run(GRAPH)).result == {"a": "done"}
    assert tokens


async def test_keys_are_replaced_one_after_the_other_without_a_break() -> None:
    for coordinator_keys, worker_keys in (
        ((OLD,), (OLD, NEW)),
        ((OLD, NEW), (NEW, OLD)),
        ((NEW, OLD), (NEW,)),
    ):
        async with cluster(InMemoryBus(), *coordinator_keys, worker_keys=worker_keys) as signed:
            assert (await signed.run(GRAPH)).status == "finished"


@pytest.mark.parametrize(
    "changed",
    [
        Message(COMMANDS, TOUCH.value, TOUCH.key),
        Message(TOUCH.topic, TOUCH.value + b" ", TOUCH.key),
        Message(TOUCH.topic, TOUCH.value, "other"),
        Message(TOUCH.topic + TOUCH.key, TOUCH.value, ""),
        Message(TOUCH.topic, TOUCH.value[1:], TOUCH.key + TOUCH.value[:1].decode()),
    ],
    ids=["topic", "value", "key", "the key moved into the topic", "the value moved into the key"],
)
def test_a_signature_holds_for_one_message_only(changed: Message) -> None:
    key = NEW.encode()
    assert signature(key, TOUCH) != signature(key, changed)


@pytest.mark.parametrize(
    "given",
    [b"", b"1:", b"1:" + b"0" * 64, b"\xff" * 66, b"2:" + signature(NEW.encode(), TOUCH)[2:]],
)
async def test_what_only_looks_like_a_signature_is_none(given: bytes) -> None:
    bus = InMemoryBus()
    guarded = sealed(bus, CommonConfig(signing_keys=(NEW,)), Plugins(discover=False))
    async with guarded.subscribe([EVENTS], group="g") as subscription:
        await bus.publish([Message(EVENTS, TOUCH.value, TOUCH.key, {SIGNATURE: given})])
        (came,) = await subscription.receive(max_messages=1)
        with pytest.raises(ValueError, match="was changed, or is signed by a key"):
            decode(came.message.value)


async def test_a_refused_message_is_parked_as_it_came_and_can_be_given_back() -> None:
    bus = InMemoryBus()
    guarded = sealed(bus, CommonConfig(signing_keys=(NEW,)), Plugins(discover=False))
    async with (
        guarded.subscribe([EVENTS], group="g") as subscription,
        guarded.subscribe([LETTERS], group="g") as parked,
    ):
        await bus.publish([TOUCH])
        await subscription.release(await subscription.receive(max_messages=1))
        came = await subscription.receive(max_messages=1)
        await subscription.reject(came, "no signature")
        (letter,) = await parked.receive(max_messages=1)
        assert (letter.message.value, letter.message.key) == (TOUCH.value, TOUCH.key)
        assert decode(letter.message.value) == TaskTouched(task_id="t")


async def test_a_client_signs_as_well() -> None:
    bus, store = InMemoryBus(), InMemoryStore()
    async with bus.subscribe([EVENTS], group="look") as look:
        async with Client(bus=bus, store=store, cfg=CommonConfig(signing_keys=(NEW,))) as client:
            await client.create_task(graph=GRAPH)
        (hint,) = await look.receive(max_messages=1)
        assert hint.message.headers[SIGNATURE] == signature(NEW.encode(), hint.message)


# ---------------------------------------------------------------- configuration


def test_keys_come_from_the_environment_and_are_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOWKIT_SIGNING_KEYS", f"{NEW},{OLD}")
    for cfg in (CommonConfig.load(), CoordinatorConfig.load(), WorkerConfig.load()):
        assert [key.get_secret_value() for key in cfg.signing_keys] == [NEW, OLD]
        for shown in (repr(cfg), str(cfg), cfg.model_dump_json()):
            assert NEW not in shown


def test_a_short_key_is_refused_without_being_shown() -> None:
    with pytest.raises(
        ConfigError, match=r"signing_keys.*: a signing key has at least 16 characters"
    ) as caught:
        CommonConfig.load(overrides={"signing_keys": ["short-and-secret"[:9]]})
    assert "short-and" not in str(caught.value)


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    "compares",
    [Task.issued_token_matches, _commands.Attempts._run_of, Signatures.open],
    ids=lambda item: item.__qualname__,
)
def test_tokens_and_signatures_are_compared_in_constant_time(compares: Any) -> None:
    source = inspect.getsource(compares)
    assert "hmac.compare_digest(" in source
    assert "token ==" not in source
    assert "token !=" not in source

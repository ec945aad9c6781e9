"""With a codec, no user data is readable in the store or on the bus.

Without the key, it stays encrypted and the error says so.
"""

import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from examples.encryption.codec import Encryption
from flowkit import Client, Coordinator
from flowkit._codecs.bus_codec import Payloads, SealedBus, as_sent
from flowkit._codecs.store_codec import EncodedStore
from flowkit._records.letter_records import read_letters
from flowkit.errors import CorruptRecord, DecodeError, MessageTooLarge, NodeFailure, PayloadError
from flowkit.messages import decode
from flowkit.plugins import Plugins
from flowkit.protocols import ArtifactStore, Message, Store
from flowkit.worker import Batch, BatchResult, Handler, RunContext
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore

SECRET = "tulip-bulb-prices"
KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
GRAPH = {
    "nodes": [
        {"node_id": "make", "type": "make", "io": {"input_inline": {"which": SECRET}}},
        {
            "node_id": "note",
            "type": "coordinator_fn",
            "depends_on": ["make"],
            "io": {"fn": "vars.set", "fn_args": {"kv": {"seen": SECRET}}},
        },
        {
            "node_id": "read",
            "type": "read",
            "depends_on": ["make"],
            "io": {"input_inline": {"input_adapter": "pull.from_artifacts"}},
        },
        {
            "node_id": "odd",
            "type": "odd",
            "depends_on": ["note", "read"],
            "routing": {"on_failure": ["end"]},
        },
        {"node_id": "end", "type": "end"},
    ]
}


class Make(Handler):
    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        assert ctx.params == {"name": SECRET}
        ctx.heartbeat({"at": SECRET})
        return BatchResult(True, artifacts_ref={"about": SECRET})


async def read(item: Any) -> Any:
    return item


async def odd() -> None:
    raise ValueError(SECRET)


async def end(item: Any) -> Any:
    return {"all": SECRET}


HANDLERS = {"make": Make(), "read": read, "odd": odd, "end": end}


class Listening(InMemoryBus):
    """Bus that keeps a copy of every message."""

    def __init__(self) -> None:
        super().__init__()
        self.carried: list[Message] = []

    async def publish(self, messages: Any) -> Any:
        self.carried += messages
        return await super().publish(messages)


def encryption(**keys: bytes) -> Encryption:
    return Encryption(keys or {"first": KEY}, encrypt_with=next(iter(keys), "first"))


async def everything(store: Store, task_id: str) -> bytes:
    """Return all stored data of a task in its stored form."""
    record = (await store.load([task_id]))[task_id]
    found = [record.spec, *record.parts.values(), repr(record.header).encode()]
    found += [data for _, data in await store.scan_archive(task_id, prefix="")]
    found += [
        part
        for _, item in await store.artifacts.scan(task_id)
        for part in (item.meta or b"", item.metrics)
    ]
    for kind in ("letter", "worker"):
        found += [each.data for each in await store.records.scan(kind)]
    return b"\n".join(found)


async def test_no_plain_text_is_in_store_or_bus() -> None:
    bus, store = Listening(), InMemoryStore()
    async with Cluster(bus=bus, store=store, plugins=[encryption()], handlers=HANDLERS) as cluster:
        view = await cluster.run(GRAPH, params={"name": SECRET}, labels={"team": "red"})
        artifacts = [artifact.meta async for artifact in cluster.client.artifacts(view.id)]
        events = [event async for event in cluster.client.watch(view.id)]
    assert view.status == "finished"
    assert view.params == {"name": SECRET}
    assert view.vars == {"seen": SECRET}
    assert view.result == {"end": {"all": SECRET}}
    assert view.nodes["odd"].error == f"ValueError: {SECRET}"
    assert artifacts[0] == {"about": SECRET}
    assert len(events) > 10
    assert SECRET.encode() not in await everything(store, view.id)
    assert "red" in repr((await store.load([view.id]))[view.id].header)
    assert len(bus.carried) > 8
    for message in bus.carried:
        assert SECRET.encode() not in message.value
        with pytest.raises(DecodeError):
            decode(message.value)


async def test_without_a_codec_store_and_bus_are_used_as_they_are() -> None:
    async with (
        InMemoryBus() as bus,
        InMemoryStore() as store,
        Coordinator(bus=bus, store=store) as coordinator,
    ):
        assert coordinator.bus is bus
        assert coordinator.store is store


async def test_the_dead_letters_of_a_batch_tell_nothing_to_who_has_no_key() -> None:
    class Bad(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(False, reason_code="bad_input", permanent=True, error=f"no {SECRET}")

    store = InMemoryStore()
    plugins = [encryption()]
    async with Cluster(store=store, plugins=plugins, handlers={"work": Bad()}) as cluster:
        await cluster.run(
            {"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": SECRET}}]}
        )
        letters = list(await read_letters(cluster.client.store))
        raw = await read_letters(store)
        stored = await store.records.scan("letter")
    assert SECRET in letters[0].error
    assert SECRET.encode() in letters[0].data
    assert SECRET not in repr(raw)
    assert SECRET.encode() not in b"".join(each.data for each in stored)
    assert [(item.letter_id, item.kind, item.task_id) for item in raw] == [
        (item.letter_id, item.kind, item.task_id) for item in letters
    ]
    assert raw[0].fault is not None


async def test_with_a_wrong_key_the_task_is_quarantined_with_a_clear_error() -> None:
    bus, store = InMemoryBus(), InMemoryStore()
    async with Client(bus=bus, store=store, plugins=[encryption()]) as client:
        task_id = await client.create_task(
            graph={"nodes": [{"node_id": "a", "type": "work"}]}, params={"name": SECRET}
        )
    async with Client(bus=bus, store=store, plugins=[encryption(first=OTHER)]) as client:
        with pytest.raises(CorruptRecord, match="key 'first' does not fit"):
            await client.get_task(task_id)
        (listed,) = (await client.list_tasks()).items
        assert (listed.id, listed.status) == (task_id, "queued")
        assert listed.error is not None
        assert "key 'first' does not fit" in listed.error
    async with Client(bus=bus, store=store, plugins=[encryption(second=OTHER)]) as client:
        with pytest.raises(CorruptRecord, match="there is no key 'first'"):
            await client.get_task(task_id)
    async with Client(
        bus=bus, store=store, plugins=[encryption(second=OTHER, first=KEY)]
    ) as client:
        assert (await client.get_task(task_id)).params == {"name": SECRET}


async def test_messages_that_cannot_be_decrypted_are_parked_and_the_reason_names_the_key() -> None:
    bus, store = InMemoryBus(), InMemoryStore()
    async with (
        bus.subscribe(["flowkit.dlq"], group="look") as parked,
        Cluster(
            bus=bus, store=store, plugins=[encryption(second=OTHER)], handlers={"work": read}
        ) as cluster,
    ):
        async with Client(
            bus=bus, store=store, clock=cluster.clock, plugins=[encryption()]
        ) as stranger:
            await stranger.create_task(graph={"nodes": [{"node_id": "a", "type": "work"}]})
        (letter,) = await parked.receive(max_messages=10)
        assert b"there is no key 'first'" in letter.message.headers["flowkit-reason"]
        view = await cluster.run(
            {"nodes": [{"node_id": "b", "type": "work", "io": {"input_inline": 1}}]}
        )
    assert view.result == {"b": 1}


async def logged(
    caplog: pytest.LogCaptureFixture,
    graph: dict[str, Any],
    handlers: dict[str, Any],
    plugins: list[Any],
) -> str:
    """Return all log output of a task with service settings, including tracebacks."""
    with caplog.at_level(logging.INFO):
        async with Cluster(plugins=plugins, handlers=handlers) as cluster:
            await cluster.run(graph, params={"name": SECRET})
    assert len(caplog.records) > 2
    return caplog.text


class Failing(Handler):
    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        raise ValueError(f"no {batch.payload}")


async def refuses(item: Any) -> Any:
    raise NodeFailure("bad_input", f"no {SECRET}")


async def returns_a_set(item: Any) -> Any:
    return {SECRET}


def io(**options: Any) -> dict[str, Any]:
    return {"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": SECRET}, **options}]}


def breaks(ctx: Any) -> None:
    raise KeyError(SECRET)


class Misjudging(Failing):
    def classify_error(self, error: BaseException) -> Any:
        raise KeyError(str(error))


CALL = {"nodes": [{"node_id": "a", "type": "coordinator_fn", "io": {"fn": "break"}}]}
TWICE = {"retry_policy": {"max": 2, "backoff_sec": 1}}


@pytest.mark.parametrize(
    ("graph", "handler"),
    [
        (GRAPH, Make()),
        (io(), Failing()),
        (io(**TWICE), Failing()),
        (io(), Misjudging()),
        (io(), refuses),
        (io(), returns_a_set),
        (io(when=f"params.name == '{SECRET}' && params.name + 1"), refuses),
        (CALL, refuses),
    ],
    ids=[
        "graph",
        "batch",
        "batch again",
        "misjudged",
        "refused",
        "result",
        "condition",
        "function",
    ],
)
async def test_with_a_codec_errors_show_no_payload_in_logs(
    caplog: pytest.LogCaptureFixture, graph: dict[str, Any], handler: Any
) -> None:
    breaking = SimpleNamespace(
        __name__="breaking",
        flowkit_register_functions=lambda register: register("break", breaks),
        flowkit_task_changed=lambda after: breaks(after),
        flowkit_classify_error=lambda error: breaks(error),
    )
    text = await logged(caplog, graph, {**HANDLERS, "work": handler}, [encryption(), breaking])
    assert SECRET not in text
    assert "Plugin breaking raised in flowkit_task_changed" in text


async def test_without_a_codec_errors_are_logged_with_their_tracebacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = await logged(caplog, io(), {"work": Failing()}, [])
    assert re.search(f"ValueError: no .*{SECRET}", text)
    assert "Traceback" in text


async def test_with_a_codec_errors_are_logged_at_the_level_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "flowkit"):
        async with Cluster(plugins=[encryption()], handlers={"work": Failing()}) as cluster:
            await cluster.run(io())
    assert [
        SECRET in record.getMessage()
        for record in caplog.records
        if "Node a failed" in record.getMessage()
    ] == [False, True]


def test_an_encoder_that_breaks_shows_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    def encode(data: bytes) -> bytes:
        raise ValueError(f"cannot encrypt {data!r}")

    with (
        codec(encode) as plugins,
        pytest.raises(PayloadError, match="cannot encode a payload: ValueError") as caught,
    ):
        plugins.encode_payload(SECRET.encode())
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in caplog.text


def test_what_was_moved_elsewhere_cannot_be_decrypted() -> None:
    plugins = Plugins([encryption()], discover=False)
    data = plugins.encode_payload(b"x", "task/one/n1")
    assert plugins.decode_payload(data, "task/one/n1") == b"x"
    with pytest.raises(PayloadError, match="changed or moved"):
        plugins.decode_payload(data, "task/two/n1")


def test_the_same_payload_is_never_the_same_twice() -> None:
    codec = encryption()
    assert len({codec.flowkit_encode_payload(b"x", "") for _ in range(100)}) == 100


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_cut_off_payloads_are_refused_as_such(cut: int) -> None:
    plugins = Plugins([encryption()], discover=False)
    data = plugins.encode_payload(b"a payload", "")
    with pytest.raises(PayloadError, match="cannot decode"):
        plugins.decode_payload(data[:cut], "")


@contextmanager
def codec(encode: Any, decode_: Any = lambda data: data) -> Iterator[Plugins]:
    class Codec:
        __name__ = "odd codec"
        flowkit_encode_payload = staticmethod(encode)
        flowkit_decode_payload = staticmethod(decode_)

    yield Plugins([Codec()], discover=False)


def test_a_codec_that_breaks_is_named() -> None:
    with (
        codec(lambda data: 1 / 0) as plugins,
        pytest.raises(
            PayloadError, match="plugin 'odd codec' cannot encode a payload: ZeroDivision"
        ),
    ):
        plugins.encode_payload(b"x")
    with (
        codec(lambda data: "text") as plugins,
        pytest.raises(PayloadError, match="encoded payloads are bytes, not str"),
    ):
        plugins.encode_payload(b"x")


def test_a_codec_may_leave_a_payload_as_it_is() -> None:
    with codec(lambda data: None, lambda data: None) as plugins:
        assert plugins.encode_payload(b"x") == plugins.decode_payload(b"x") == b"x"


async def test_dead_letters_lie_on_the_bus_as_their_messages_came() -> None:
    plugins = Plugins([encryption()], discover=False)
    bus = InMemoryBus()
    sealed = SealedBus(bus, [Payloads(plugins)], plain={"flowkit.dlq"})
    async with (
        sealed.subscribe(["in"], group="g") as subscription,
        sealed.subscribe(["flowkit.dlq"], group="g") as letters,
    ):
        await sealed.publish([Message("in", SECRET.encode(), "key")])
        await bus.publish([Message("in", b"not encrypted", "key")])
        came = await subscription.receive(max_messages=2)
        assert came[0].message.value == SECRET.encode()
        await subscription.reject(came, "no use")
        first, second = await letters.receive(max_messages=2)
    assert SECRET.encode() not in first.message.value
    assert first.message == as_sent(first)
    assert first.message.value == as_sent(came[0]).value
    assert second.message.value == b"not encrypted"


@pytest.mark.parametrize(("wrapper", "protocol"), [(EncodedStore, Store), (SealedBus, None)])
def test_the_wrappers_have_every_method_of_what_they_stand_for(
    wrapper: type, protocol: Any
) -> None:
    names = {name for name in vars(protocol or InMemoryBus) if not name.startswith("_")} - {
        "auto_create"
    }
    assert {name for name in names if callable(getattr(protocol or InMemoryBus, name))} <= set(
        dir(wrapper)
    )


def test_the_artifact_store_is_wrapped_whole() -> None:
    store = EncodedStore(InMemoryStore(), Plugins(discover=False))
    assert {name for name in vars(ArtifactStore) if not name.startswith("_")} <= set(
        dir(store.artifacts)
    )


def test_the_example_reads_its_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYLOAD_KEYS", f"new={OTHER.hex()},old={KEY.hex()}")
    codec = Encryption.from_environment()
    old = encryption(old=KEY).flowkit_encode_payload(b"x", "here")
    assert codec.flowkit_decode_payload(old, "here") == b"x"
    assert b"new" in codec.flowkit_encode_payload(b"x", "")[:16]


async def test_there_is_room_for_what_a_codec_adds() -> None:
    bus = Listening()
    sealed = SealedBus(bus, [Payloads(Plugins([encryption()], discover=False))], room=4096)
    with pytest.raises(MessageTooLarge):
        await sealed.publish(
            [Message("in", b"first"), Message("in", b"x" * (sealed.max_message_bytes + 1))]
        )
    assert not bus.carried
    await sealed.publish([Message("in", b"x" * sealed.max_message_bytes)])
    assert len(bus.carried[0].value) <= bus.max_message_bytes

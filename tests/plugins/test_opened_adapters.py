"""Buses and stores of plugins: all parts of the protocol, and two plugins for one address."""

import logging
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from flowkit import Client, hookimpl
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError, PluginError, StoreUnavailable
from flowkit.plugins import Plugins
from flowkit_testing import InMemoryArtifactStore, InMemoryBus, InMemoryStore
from flowkit_testing._keyed_records import InMemoryRecordStore
from tests.triggers.memory_source import MemorySource


def opener(name: str, **makers: Callable[[], Any]) -> SimpleNamespace:
    hooks: dict[str, Any] = {}
    if "store" in makers:
        hooks["flowkit_open_store"] = lambda source: (
            makers["store"]() if str(source).startswith("mine://") else None
        )
    if "bus" in makers:
        hooks["flowkit_open_bus"] = lambda address: (
            makers["bus"]() if address.startswith("mine://") else None
        )
    return SimpleNamespace(__name__=name, **hooks)


def open_store(*plugins: object) -> Any:
    return Plugins(plugins, discover=False).open_store("mine://user:secret@here", CommonConfig())


def open_bus(*plugins: object) -> Any:
    return Plugins(plugins, discover=False).open_bus("mine://here", CommonConfig())


class KeyedRecords(InMemoryRecordStore):
    def __init__(self) -> None:
        super().__init__(max_record_bytes=1000)


def without(kind: type, name: str) -> Any:
    """Return an object of a class that lacks one attribute."""

    class Lacking(kind):  # type: ignore[misc]
        def __getattribute__(self, attribute: str) -> Any:
            if attribute == name:
                raise AttributeError(attribute)
            return super().__getattribute__(attribute)

    return Lacking()


@pytest.mark.parametrize(
    "method",
    [
        "create",
        "load",
        "commit",
        "due",
        "wait_for_change",
        "purge",
        "check",
        "scan_archive",
        "__aexit__",
    ],
)
def test_a_store_that_lacks_a_method_is_refused_by_name(method: str):
    with pytest.raises(
        PluginError,
        match=f"plugin 'mine': what flowkit_open_store returned lacks the method '{method}'",
    ):
        open_store(opener("mine", store=lambda: without(InMemoryStore, method)))


@pytest.mark.parametrize(
    "method", ["publish", "subscribe", "ensure_topics", "outstanding", "check", "__aenter__"]
)
def test_a_bus_that_lacks_a_method_is_refused_by_name(method: str):
    with pytest.raises(
        PluginError,
        match=f"plugin 'mine': what flowkit_open_bus returned lacks the method '{method}'",
    ):
        open_bus(opener("mine", bus=lambda: without(InMemoryBus, method)))


def test_a_bus_that_does_not_say_how_large_a_message_may_be_is_refused():
    class Bus:
        def __getattr__(self, name: str) -> Any:
            if name == "max_message_bytes":
                raise AttributeError(name)
            return getattr(InMemoryBus(), name)

        __aenter__ = InMemoryBus.__aenter__
        __aexit__ = InMemoryBus.__aexit__

    with pytest.raises(PluginError, match="lacks the attribute 'max_message_bytes'"):
        open_bus(opener("mine", bus=Bus))


def test_a_store_whose_artifacts_lack_a_method_is_refused():
    def make() -> InMemoryStore:
        store = InMemoryStore()
        store.artifacts = without(InMemoryArtifactStore, "known")
        return store

    with pytest.raises(
        PluginError, match="plugin 'mine'.* lacks the method 'known' of its artifacts"
    ):
        open_store(opener("mine", store=make))


def test_a_store_whose_keyed_records_lack_a_method_is_refused():
    def make() -> InMemoryStore:
        store = InMemoryStore()
        store.records = without(KeyedRecords, "due")
        return store

    with pytest.raises(PluginError, match="plugin 'mine'.* lacks the method 'due' of its records"):
        open_store(opener("mine", store=make))


def test_a_store_whose_method_lacks_an_argument_is_refused():
    class Old(InMemoryStore):
        async def wait_for_change(self, task_id: str, version: int) -> None:  # type: ignore[override]
            ...

    with pytest.raises(PluginError, match="lacks the argument 'ended' of 'wait_for_change'"):
        open_store(opener("mine", store=Old))


@pytest.mark.parametrize(
    "opened", [InMemoryStore, "mine://here", object()], ids=["class", "text", "object"]
)
def test_what_is_no_store_is_refused(opened: object):
    with pytest.raises(PluginError, match="plugin 'mine': what flowkit_open_store returned lacks"):
        open_store(opener("mine", store=lambda: opened))


def test_a_store_that_sets_its_artifacts_on_entering_is_taken():
    class Late(InMemoryStore):
        artifacts: Any

        def __init__(self) -> None:
            super().__init__()
            del self.artifacts

    assert isinstance(open_store(opener("mine", store=Late)), Late)


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (
            ValueError("no such port"),
            PluginError,
            "plugin 'mine': flowkit_open_store failed: ValueError: no such port",
        ),
        (
            ConfigError("options.mine.prot: unknown"),
            ConfigError,
            "plugin 'mine': options.mine.prot: unknown",
        ),
        (StoreUnavailable("away"), StoreUnavailable, "plugin 'mine': away"),
        (SystemExit(3), PluginError, "plugin 'mine': flowkit_open_store failed: SystemExit: 3"),
    ],
)
def test_an_error_while_opening_names_the_plugin_and_keeps_a_useful_type(
    raised: BaseException, expected: type[Exception], text: str
):
    def fail() -> Any:
        raise raised

    with pytest.raises(expected) as caught:
        open_store(opener("mine", store=fail))
    assert (type(caught.value), str(caught.value)) == (expected, text)


def test_an_error_without_a_text_names_the_plugin():
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def fail() -> Any:
        raise Mute

    with pytest.raises(PluginError, match="plugin 'mine': flowkit_open_store failed: Mute"):
        open_store(opener("mine", store=fail))


@pytest.mark.parametrize("given", [("first", "second"), ("second", "first")])
def test_two_plugins_that_answer_one_address_are_logged_with_the_one_that_is_used(
    given: Sequence[str], caplog: pytest.LogCaptureFixture
):
    stores = {name: InMemoryStore() for name in given}
    with caplog.at_level(logging.WARNING, "flowkit.plugins"):
        opened = open_store(*(opener(name, store=lambda name=name: stores[name]) for name in given))
    assert opened is stores[given[-1]]
    (record,) = caplog.records
    assert (
        record.getMessage()
        == f"Plugins {given[-1]} and {given[0]} answer mine://here; {given[-1]} is used"
    )


def test_a_plugin_that_answers_no_less_by_its_own_choice_is_asked_first(
    caplog: pytest.LogCaptureFixture,
):
    class Eager:
        store = InMemoryStore()

        @hookimpl(tryfirst=True)
        def flowkit_open_store(self, source: Any) -> Any:
            return self.store

    with caplog.at_level(logging.WARNING, "flowkit.plugins"):
        assert open_store(Eager(), opener("other", store=InMemoryStore)) is Eager.store
    assert "Eager is used" in caplog.text


def test_one_plugin_for_an_address_is_not_logged(caplog: pytest.LogCaptureFixture):
    open_bus(
        opener("mine", bus=InMemoryBus),
        SimpleNamespace(__name__="other", flowkit_open_bus=lambda address: None),
    )
    assert caplog.records == []


def test_a_plugin_that_is_not_used_and_raises_does_no_harm(caplog: pytest.LogCaptureFixture):
    def fail() -> Any:
        raise RuntimeError("dizzy")

    plugins = Plugins(
        [opener("broken", store=fail), opener("mine", store=InMemoryStore)], discover=False
    )
    assert isinstance(plugins.open_store("mine://here", CommonConfig()), InMemoryStore)
    assert "plugin 'broken': flowkit_open_store failed: RuntimeError: dizzy" in caplog.text


async def test_a_client_whose_store_lacks_a_part_fails_when_it_is_entered():
    client = Client(
        db="mine://here",
        bus="memory://",
        plugins=[opener("mine", store=lambda: without(InMemoryStore, "purge"))],
    )
    with pytest.raises(PluginError, match="plugin 'mine'.*'purge'"):
        async with client:
            pass


class Source:
    """A plugin with a source of triggers at ``mine://``."""

    def __init__(self, name: str, opened: Any) -> None:
        self.__name__ = name
        self._opened = opened

    def flowkit_open_trigger(self, source: str) -> Any:
        return self._opened if source.startswith("mine://") else None


def open_trigger(*plugins: object) -> Any:
    return Plugins(plugins, discover=False).open_trigger("mine://here/topic", CommonConfig())


@pytest.mark.parametrize("method", ["subscribe", "behind"])
def test_a_source_of_triggers_that_lacks_a_method_is_refused_by_name(method: str) -> None:
    with pytest.raises(PluginError, match=f"flowkit_open_trigger returned lacks .* '{method}'"):
        open_trigger(Source("mine", without(MemorySource, method)))


def test_a_source_of_two_plugins_is_opened_by_the_last_one_and_listed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, last = MemorySource(), MemorySource()
    assert open_trigger(Source("a", first), Source("b", last)) is last
    assert "Plugins b and a answer mine://here/topic; b is used" in caplog.text
    known = [row for row in Plugins().provided() if row.kind == "trigger"]
    assert [(row.plugin, row.name) for row in known] == [("kafka", "kafka://")]


def test_a_page_that_is_no_async_context_manager_is_refused() -> None:
    class Opener:
        @hookimpl
        def flowkit_open_page(self, config: CommonConfig) -> Any:
            return "http://localhost"

    with pytest.raises(PluginError, match="something else than an async context manager"):
        Plugins([Opener()], discover=False).open_page(CommonConfig())


def test_names_of_webhooks_of_all_plugins_are_known_and_a_text_is_refused() -> None:
    class Named:
        def __init__(self, name: str, answer: Any) -> None:
            self.__name__ = name
            self.answer = answer

        @hookimpl
        def flowkit_webhooks(self, config: CommonConfig) -> Any:
            return self.answer

    plugins = Plugins([Named("x", {"a": 1}), Named("y", None), Named("z", ["b"])], discover=False)
    assert plugins.webhooks(CommonConfig()) == {"a", "b"}
    with pytest.raises(PluginError, match="something else than names"):
        Plugins([Named("x", "audit")], discover=False).webhooks(CommonConfig())

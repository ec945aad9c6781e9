"""A plugin that cannot do what its author expects is refused at start, and the error names it."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flowkit import hookimpl
from flowkit.errors import PluginError
from flowkit.plugins import Plugins


def plugin(name: str, **hooks: Any) -> SimpleNamespace:
    return SimpleNamespace(__name__=name, **hooks)


class Observer:
    def flowkit_task_changed(self, after: Any) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("my_plugin", "plugin 'my_plugin' is a string"),
        (Observer, "plugin 'Observer' is a class; give an instance of it"),
        (None, "plugin 'None' is None"),
        (plugin("empty"), "plugin 'empty': it has no hook"),
        ([Observer()], "plugin 'builtins.list': it has no hook"),
        (5, "plugin 'builtins.int': it has no hook"),
    ],
    ids=["string", "class", "None", "no hook", "list", "number"],
)
def test_what_cannot_be_a_plugin_is_refused(wrong: object, reason: str) -> None:
    with pytest.raises(PluginError) as caught:
        Plugins([wrong], discover=False)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("loaded", "reason"),
    [("text", "is a string"), (Observer, "is a class"), (None, "is None"), (SimpleNamespace(), "has no hook")],
)
def test_an_installed_plugin_that_cannot_be_one_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, loaded: object, reason: str
) -> None:
    entry_point = SimpleNamespace(name="installed", load=lambda: loaded)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [entry_point])
    with pytest.raises(PluginError, match=f"plugin 'installed'.* {reason}"):
        Plugins()


def test_a_plugin_that_exits_while_it_is_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> object:
        raise SystemExit(3)

    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [SimpleNamespace(name="leaver", load=load)])
    with pytest.raises(PluginError, match="plugin 'leaver' cannot be imported: SystemExit: 3"):
        Plugins()


@pytest.mark.parametrize("name", ["flowkt_task_changed", "flow_kit_task_changed", "Flowkit_task_changed", "flowkit_task_chnged"])
def test_a_misspelt_hook_is_refused_also_where_its_prefix_is_wrong(name: str) -> None:
    with pytest.raises(PluginError, match=rf"plugin 'odd': .*'{name}'.*did you mean 'flowkit_task_changed'"):
        Plugins([plugin("odd", **{name: lambda after: None, "flowkit_node_changed": lambda after: None})], discover=False)


@pytest.mark.parametrize(
    "hook",
    [
        "flowkit_task_changed", "flowkit_node_changed", "flowkit_register_functions", "flowkit_encode_payload", "flowkit_before_submit",
        "flowkit_open_store",
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}], ids=["wrapper", "hookwrapper"])
def test_a_hook_wrapper_is_refused(hook: str, options: dict[str, Any]) -> None:
    def make(self: Any) -> Any:
        yield

    kind = type("Wrapping", (), {hook: hookimpl(**options)(make)})
    with pytest.raises(PluginError, match=rf"Wrapping': {hook} is a hook wrapper"):
        Plugins([kind()], discover=False)


def generator(after: Any) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("hook", "function", "reason"),
    [
        ("flowkit_task_changed", generator, "is a generator"),
        ("flowkit_task_changed", lambda after, before=None: None, "gives 'before' a default"),
        ("flowkit_encode_payload", lambda *, data: data, "takes 'data' by keyword only"),
        ("flowkit_encode_payload", lambda context: None, "does not take 'data'"),
        ("flowkit_open_store", lambda source, option: None, "takes 'option'; the arguments of this hook are config, source"),
    ],
)
def test_a_hook_whose_arguments_would_not_arrive_is_refused(hook: str, function: Any, reason: str) -> None:
    with pytest.raises(PluginError, match=rf"plugin 'odd': .*{reason}"):
        Plugins([plugin("odd", **{hook: function})], discover=False)


def test_an_argument_with_a_default_that_is_none_of_the_hooks_is_the_plugins_own() -> None:
    seen: list[Any] = []
    Plugins([plugin("own", flowkit_task_changed=lambda after, seen=seen: seen.append(after))], discover=False).notify(
        "flowkit_task_changed", before=None, after="view"
    )
    assert seen == ["view"]


@pytest.mark.parametrize(
    ("has", "lacks"),
    [("flowkit_encode_payload", "flowkit_decode_payload"), ("flowkit_decode_payload", "flowkit_encode_payload")],
)
def test_a_codec_that_only_encodes_or_only_decodes_is_refused(has: str, lacks: str) -> None:
    with pytest.raises(PluginError, match=f"plugin 'half': it has {has} but not {lacks}"):
        Plugins([plugin("half", **{has: lambda data: data})], discover=False)


def test_a_plugin_whose_attributes_raise_is_named() -> None:
    class Broken:
        __name__ = "broken"

        @property
        def flowkit_task_changed(self) -> Any:
            raise RuntimeError("no observer today")

    with pytest.raises(PluginError, match="plugin 'broken': .*no observer today"):
        Plugins([Broken()], discover=False)

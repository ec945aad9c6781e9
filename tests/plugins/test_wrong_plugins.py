"""A plugin that cannot work as its author expects is rejected at start with its name."""

from collections.abc import Iterator
from functools import lru_cache, partial, wraps
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import pytest

from flowkit import hookimpl
from flowkit.errors import ConfigError, PluginError
from flowkit.plugins import Plugins
from tests.builders import plugin


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
    [
        ("text", "is a string"),
        (Observer, "is a class"),
        (None, "is None"),
        (SimpleNamespace(), "has no hook"),
    ],
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

    monkeypatch.setattr(
        "importlib.metadata.entry_points",
        lambda *, group: [SimpleNamespace(name="leaver", load=load)],
    )
    with pytest.raises(PluginError, match="plugin 'leaver' cannot be imported: SystemExit: 3"):
        Plugins()


@pytest.mark.parametrize(
    "name",
    ["flowkt_task_changed", "flow_kit_task_changed", "Flowkit_task_changed", "flowkit_task_chnged"],
)
def test_a_misspelt_hook_is_refused_also_where_its_prefix_is_wrong(name: str) -> None:
    with pytest.raises(
        PluginError, match=rf"plugin 'odd': .*'{name}'.*did you mean 'flowkit_task_changed'"
    ):
        Plugins(
            [
                plugin(
                    "odd", **{name: lambda after: None, "flowkit_node_changed": lambda after: None}
                )
            ],
            discover=False,
        )


@pytest.mark.parametrize(
    "hook",
    [
        "flowkit_task_changed",
        "flowkit_node_changed",
        "flowkit_register_functions",
        "flowkit_encode_payload",
        "flowkit_before_submit",
        "flowkit_open_store",
    ],
)
@pytest.mark.parametrize(
    "options", [{"wrapper": True}, {"hookwrapper": True}], ids=["wrapper", "hookwrapper"]
)
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
        (
            "flowkit_open_store",
            lambda source, option: None,
            "takes 'option'; the arguments of this hook are config, source",
        ),
    ],
)
def test_a_hook_whose_arguments_would_not_arrive_is_refused(
    hook: str, function: Any, reason: str
) -> None:
    with pytest.raises(PluginError, match=rf"plugin 'odd': .*{reason}"):
        Plugins([plugin("odd", **{hook: function})], discover=False)


def test_an_argument_with_a_default_that_is_none_of_the_hooks_is_the_plugins_own() -> None:
    seen: list[Any] = []
    Plugins(
        [plugin("own", flowkit_task_changed=lambda after, seen=seen: seen.append(after))],
        discover=False,
    ).notify("flowkit_task_changed", before=None, after="view")
    assert seen == ["view"]


@pytest.mark.parametrize(
    ("has", "lacks"),
    [
        ("flowkit_encode_payload", "flowkit_decode_payload"),
        ("flowkit_decode_payload", "flowkit_encode_payload"),
    ],
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


def test_a_plugin_whose_other_attributes_raise_is_used() -> None:
    class Proxy(Observer):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"there is no {name}")

    assert Plugins([Proxy()], discover=False).observes_tasks


@pytest.mark.parametrize("plugins", [Observer(), 5])
def test_plugins_are_given_as_a_list(plugins: Any) -> None:
    with pytest.raises(
        ConfigError, match=f"plugins: expected a list of plugins, not {type(plugins).__name__}"
    ):
        Plugins(plugins, discover=False)


class Callable:
    def __call__(self, after: Any) -> None: ...


class Computed:
    __name__ = "odd"

    @property
    def flowkit_task_changed(self) -> Any:
        return lambda after: None


class Looked:
    __name__ = "odd"

    def __dir__(self) -> list[str]:
        return ["flowkit_task_changed"]

    def __getattr__(self, name: str) -> Any:
        return lambda after: None


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (partial(lambda after, more: None, more=1), "a functools.partial"),
        (Callable(), "an object of the type 'Callable'"),
        (Callable, "the class 'Callable'"),
        (max, "the built-in function 'max'"),
        (len, "the built-in function 'len'"),
        (int, "the class 'int'"),
        (lru_cache(lambda after: None), "an object of the type '_lru_cache_wrapper'"),
        (itemgetter(0), "an object of the type 'itemgetter'"),
    ],
)
def test_a_hook_that_is_neither_a_function_nor_a_method_is_refused_in_words(
    function: Any, kind: str
) -> None:
    with pytest.raises(PluginError) as caught:
        Plugins([plugin("odd", flowkit_task_changed=function)], discover=False)
    assert (
        str(caught.value)
        == f"plugin 'odd': flowkit_task_changed is {kind}; a hook is a function or a method: define"
        " one that calls it"
    )


@pytest.mark.parametrize("odd", [Computed(), Looked()], ids=["property", "__getattr__"])
def test_a_hook_that_is_computed_is_refused_in_words(odd: object) -> None:
    with pytest.raises(
        PluginError, match="plugin 'odd': flowkit_task_changed is computed when it is read"
    ):
        Plugins([odd], discover=False)


class Method:
    def seen(self, after: Any) -> None:
        self.after = after


def test_lambdas_bound_methods_and_wrapped_functions_are_hooks() -> None:
    seen: list[Any] = []
    method = Method()

    @wraps(seen.append)
    def counted(*args: Any) -> None:
        seen.append(args[0])

    counted.__wrapped__ = lambda after: None
    hooks = [lambda after: seen.append(after), method.seen, counted]
    plugins = Plugins(
        [plugin(f"p{number}", flowkit_task_changed=hook) for number, hook in enumerate(hooks)],
        discover=False,
    )
    plugins.notify("flowkit_task_changed", before=None, after="view")
    assert (seen, method.after) == (["view", "view"], "view")


async def rows(request: Any) -> Any:
    yield


class Rows:
    async def __call__(self, request: Any) -> Any:
        yield


REGISTRIES = {
    "function": "flowkit_register_functions",
    "handler": "flowkit_register_handlers",
    "input adapter": "flowkit_register_input_adapters",
}


@pytest.mark.parametrize("kind", REGISTRIES)
@pytest.mark.parametrize("name", ["", "  ", None, 5, []])
def test_a_name_that_is_none_is_refused_when_it_is_registered(kind: str, name: Any) -> None:
    offering = plugin("odd", **{REGISTRIES[kind]: lambda register: register(name, rows)})
    with pytest.raises(PluginError) as caught:
        Plugins([offering], discover=False)
    assert (
        str(caught.value)
        == f"plugin 'odd': the name of its {kind} is {name!r}; a name is a string that is not empty"
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [(kind, value) for kind in REGISTRIES for value in (None, 5, "text", {})]
    + [("input adapter", len)],
)
def test_a_value_that_cannot_be_used_is_refused_when_it_is_registered(
    kind: str, value: Any
) -> None:
    offering = plugin("odd", **{REGISTRIES[kind]: lambda register: register("mine", value)})
    with pytest.raises(PluginError) as caught:
        Plugins([offering], discover=False)
    assert str(caught.value).startswith(f"plugin 'odd': it registers {value!r} as {kind} 'mine'; a")


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_name_that_a_plugin_registers_twice_is_refused(kind: str) -> None:
    def offer(register: Any) -> None:
        register("mine", rows)
        register("mine", rows)

    with pytest.raises(PluginError, match=f"plugin 'odd': {kind} 'mine' is registered twice"):
        Plugins([plugin("odd", **{REGISTRIES[kind]: offer})], discover=False)


@pytest.mark.parametrize(
    "adapter", [rows, Rows(), partial(rows)], ids=["function", "object", "partial"]
)
def test_what_is_an_async_generator_function_is_an_input_adapter(adapter: Any) -> None:
    offering = plugin(
        "even", flowkit_register_input_adapters=lambda register: register("mine", adapter)
    )
    assert Plugins([offering], discover=False).input_adapters == {"mine": adapter}

"""Errors of plugins: they are found at the start, name the plugin, and affect no other."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from flowkit import TaskRefused, WorkerConfig, hookimpl
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError, NodeFailure, PluginError
from flowkit.plugins import Plugins
from flowkit.worker import Batch, BatchResult, Handler, InputRequest, RunContext, Worker, handler
from flowkit_testing import Cluster
from tests.builders import ONE, plugin, work


def test_a_misspelt_hook_is_refused_with_the_plugins_name_and_a_suggestion() -> None:
    with pytest.raises(
        PluginError, match="'wrong'.*'flowkit_node_chaned'.*did you mean 'flowkit_node_changed'"
    ):
        Plugins([plugin("wrong", flowkit_node_chaned=lambda task: None)])


def test_a_hook_with_an_argument_that_does_not_exist_is_refused_with_the_plugins_name() -> None:
    with pytest.raises(PluginError, match="'wrong'"):
        Plugins([plugin("wrong", flowkit_before_submit=lambda task, colour: None)])


async def asynchronous(before: Any, after: Any) -> None: ...


@pytest.mark.parametrize(
    ("hooks", "reason"),
    [
        ({"flowkit_task_changed": asynchronous}, "flowkit_task_changed is async"),
        ({"flowkit_task_changed": 5}, "flowkit_task_changed is not a function"),
        ({"flowkit_task_changed": lambda *given: None}, "flowkit_task_changed takes any arguments"),
        (
            {"flowkit_task_changed": lambda **given: None},
            "flowkit_task_changed takes any arguments",
        ),
        (
            {"flowkit_register_handlers": lambda: None},
            "flowkit_register_handlers does not take 'register'",
        ),
    ],
    ids=["async", "a number", "any positions", "any names", "nothing to register with"],
)
def test_a_hook_that_could_not_do_what_its_author_expects_is_refused_with_the_plugins_name(
    hooks: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PluginError, match=f"'wrong': {reason}"):
        Plugins([plugin("wrong", **hooks)])


@pytest.mark.parametrize(
    "raised",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        GeneratorExit(),
        BaseExceptionGroup("all", [SystemExit()]),
    ],
)
@pytest.mark.parametrize("hook", ["flowkit_task_changed", "flowkit_node_changed"])
async def test_an_observer_that_raises_what_is_no_exception_is_logged_by_name(
    caplog: pytest.LogCaptureFixture, hook: str, raised: BaseException
) -> None:
    def leave(before: Any, after: Any) -> None:
        raise raised

    async with Cluster(handlers=[work], plugins=[plugin("leaver", **{hook: leave})]) as cluster:
        assert (await cluster.run(ONE)).status == "finished"
    assert f"Plugin leaver raised in {hook}" in caplog.text


def test_all_observers_are_called_though_one_raises() -> None:
    seen: list[str] = []

    def fall_over(after: Any) -> None:
        raise RuntimeError("dizzy")

    observers = [
        plugin(name, flowkit_task_changed=lambda after, name=name: seen.append(name))
        for name in ("one", "two")
    ]
    plugins = Plugins(
        [observers[0], plugin("clumsy", flowkit_task_changed=fall_over), observers[1]],
        discover=False,
    )
    plugins.notify("flowkit_task_changed", before=None, after=None)
    assert sorted(seen) == ["one", "two"]


def test_hooks_marked_with_hookimpl_are_taken_under_their_specname() -> None:
    class Marked:
        @hookimpl(specname="flowkit_before_submit", tryfirst=True)
        def refuse(self, task: Any) -> str:
            return "closed"

    answer = Plugins([Marked()]).first("flowkit_before_submit", task=None)
    assert answer is not None
    assert answer.value == "closed"


def test_two_plugins_of_one_name_are_refused() -> None:
    with pytest.raises(PluginError, match="two plugins are called 'same'"):
        Plugins([plugin("same"), plugin("same")], discover=False)


@pytest.mark.parametrize(
    ("hook", "kind"),
    [
        ("flowkit_register_functions", "function"),
        ("flowkit_register_handlers", "handler"),
        ("flowkit_register_input_adapters", "input adapter"),
    ],
)
def test_two_plugins_that_offer_one_name_are_refused_and_both_are_named(
    hook: str, kind: str
) -> None:
    async def mine(request: Any) -> Any:
        yield

    def offer(register: Any) -> None:
        register("mine", mine)

    with pytest.raises(
        PluginError,
        match=rf"{kind} 'mine' is offered by two plugins: '(first|second)' and '(first|second)'",
    ):
        Plugins([plugin("first", **{hook: offer}), plugin("second", **{hook: offer})])


def test_a_plugin_that_raises_while_it_registers_is_named() -> None:
    def offer(register: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(PluginError, match="'broken'.*flowkit_register_functions"):
        Plugins([plugin("broken", flowkit_register_functions=offer)])


def test_installed_plugins_and_verbs_import_no_library_of_a_bus_store_or_server() -> None:
    program = (
        "import sys\n"
        "from flowkit.cli import _app\n"
        "from flowkit.plugins import Plugins\n"
        "Plugins()\n"
        "assert {'flowkit_kafka._plugin', 'flowkit_web._verbs'} <= set(sys.modules)\n"
        "late = {'aiokafka', 'motor', 'pymongo', 'sqlite3', 'fastapi', 'starlette', 'uvicorn'}\n"
        "print(sorted(late & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_builtins_come_through_the_same_hooks() -> None:
    provided = {(row.kind, row.name): row.plugin for row in Plugins().provided()}
    assert (
        provided["function", "vars.set"]
        == provided["input adapter", "pull.from_artifacts"]
        == "builtin"
    )


@pytest.mark.parametrize(
    "address",
    ["kafka+x://u:secret@host", "carrier-pigeon://roof", "u:secret@host", "a://u:secret@b://c"],
)
def test_an_address_that_no_plugin_opens_is_refused_without_showing_what_may_be_secret(
    address: str,
) -> None:
    with pytest.raises(ConfigError, match="no plugin opens a bus") as caught:
        Plugins().open_bus(address, CommonConfig())
    assert "secret" not in str(caught.value)


def test_the_error_for_an_address_without_a_scheme_shows_the_form_of_an_address() -> None:
    with pytest.raises(ConfigError, match="from 'mongodb'; an address has the form SCHEME://HOST"):
        Plugins().open_store("mongodb", CommonConfig())


def test_what_to_install_is_said_where_it_is_known() -> None:
    with pytest.raises(ConfigError, match="pip install flowkit-kafka"):
        Plugins(discover=False).open_bus("kafka://host", CommonConfig())
    with pytest.raises(ConfigError, match="pip install flowkit-mongo"):
        Plugins(discover=False).open_store(object(), CommonConfig())


def test_payload_codecs_are_applied_in_order_and_undone_in_reverse() -> None:
    def codec(name: str, letter: bytes) -> SimpleNamespace:
        return plugin(
            name,
            flowkit_encode_payload=lambda data: data + letter,
            flowkit_decode_payload=lambda data: data.removesuffix(letter),
        )

    plugins = Plugins([codec("one", b"1"), codec("two", b"2")])
    encoded = plugins.encode_payload(b"x")
    assert encoded in (b"x12", b"x21")
    assert plugins.decode_payload(encoded) == b"x"


async def test_observers_see_every_change_of_status_after_its_commit() -> None:
    seen: list[tuple[str | None, str]] = []
    tasks: list[tuple[str | None, str]] = []
    observer = plugin(
        "observer",
        flowkit_node_changed=lambda task, before, after: seen.append((before.status, after.status)),
        flowkit_task_changed=lambda before, after: tasks.append(
            (before and before.status, after.status)
        ),
    )
    async with Cluster(plugins=[observer]) as cluster:
        await cluster.run(ONE, handlers=[work])
    assert seen[-1][1] == "finished"
    assert tasks[0] == (None, "queued")
    assert tasks[-1][1] == "finished"


async def test_an_observer_that_raises_is_logged_by_name_and_stops_no_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fall_over(task: Any, before: Any, after: Any) -> None:
        raise RuntimeError("dizzy")

    with caplog.at_level(logging.ERROR, "flowkit.plugins"):
        async with Cluster(plugins=[plugin("clumsy", flowkit_node_changed=fall_over)]) as cluster:
            view = await cluster.run(ONE, handlers=[work])
    assert view.status == "finished"
    assert "clumsy" in caplog.text


async def test_a_plugin_may_refuse_a_submission_and_nothing_is_stored() -> None:
    guard = plugin(
        "guard",
        flowkit_before_submit=lambda task: (
            "not on a Sunday" if task.labels.get("day") == "sunday" else None
        ),
    )
    async with Cluster(plugins=[guard]) as cluster:
        with pytest.raises(TaskRefused, match="not on a Sunday"):
            await cluster.run(ONE, handlers=[work], labels={"day": "sunday"})
        assert (await cluster.client.list_tasks()).items == []
        assert (await cluster.run(ONE, handlers=[work])).status == "finished"


def closed(task: Any) -> str:
    raise TaskRefused("closed on Sundays")


def broken(task: Any) -> str:
    raise KeyError("owner")


@pytest.mark.parametrize(
    ("hook", "text"),
    [
        (lambda task: "not now", "plugin 'guard' refused the task: not now"),
        (closed, "plugin 'guard': closed on Sundays"),
        (broken, "plugin 'guard': flowkit_before_submit failed: KeyError: 'owner'"),
        (
            lambda task: False,
            (
                "plugin 'guard': flowkit_before_submit failed: TypeError: the reason for a refusal"
                " is a string, not bool"
            ),
        ),
    ],
)
async def test_a_refusal_names_the_plugin(hook: Any, text: str) -> None:
    async with Cluster(plugins=[plugin("guard", flowkit_before_submit=hook)]) as cluster:
        with pytest.raises(TaskRefused) as caught:
            await cluster.run(ONE, handlers=[work])
    assert str(caught.value) == text


def exits(error: Any) -> tuple[str, bool]:
    raise SystemExit(3)


@pytest.mark.parametrize(
    "hook",
    [exits, lambda error: "rate_limited", lambda error: (5, True)],
    ids=["exits", "no pair", "no text"],
)
async def test_a_classifier_that_fails_is_logged_by_name_and_the_handler_classifies(
    caplog: pytest.LogCaptureFixture, hook: Any
) -> None:
    @handler("work")
    async def fail(item: Any) -> str:
        raise RuntimeError("boom")

    async with Cluster(
        handlers=[fail], plugins=[plugin("judge", flowkit_classify_error=hook)]
    ) as cluster:
        view = await cluster.run(ONE)
    assert (view.status, view.nodes["a"].reason_code) == ("failed", "unexpected_error")
    assert "plugin 'judge': flowkit_classify_error failed" in caplog.text


async def test_a_plugins_function_runs_in_the_coordinator() -> None:
    def double(ctx: Any, number: int) -> int:
        ctx.set_vars({"last": number})
        return number * 2

    mathematician = plugin(
        "mathematician", flowkit_register_functions=lambda register: register("double", double)
    )
    graph = {
        "nodes": [
            {
                "node_id": "d",
                "type": "coordinator_fn",
                "io": {"fn": "double", "fn_args": {"number": 21}},
            }
        ]
    }
    async with Cluster(plugins=[mathematician]) as cluster:
        view = await cluster.run(graph)
    assert view.result == {"d": 42}
    assert view.vars == {"last": 21}


# ---------------------------------------------------------------- errors in registered code


def raises(ctx: Any) -> None:
    raise KeyError("owner")


def fails(ctx: Any) -> None:
    raise NodeFailure("not enough owners", reason_code="no_owners")


def returns_no_json(ctx: Any) -> Any:
    return object()


def takes_more(ctx: Any, number: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "reason_code", "text"),
    [
        (raises, "bad_input", " raised KeyError: 'owner'"),
        (fails, "no_owners", ": not enough owners"),
        (takes_more, "bad_input", ": missing a required argument: 'number'"),
        (returns_no_json, "bad_result", "the result of "),
    ],
)
async def test_an_error_of_a_plugins_function_names_the_plugin(
    function: Any, reason_code: str, text: str
) -> None:
    owned = plugin("owned", flowkit_register_functions=lambda register: register("f", function))
    graph = {
        "nodes": [
            {
                "node_id": "a",
                "type": "coordinator_fn",
                "io": {"fn": "f"},
                "retry_policy": {"max": 0},
            }
        ]
    }
    async with Cluster(plugins=[owned]) as cluster:
        node = (await cluster.run(graph)).nodes["a"]
    assert node.reason_code == reason_code
    assert "coordinator function 'f' of plugin 'owned'" in (node.error or "")
    assert text in (node.error or "")


async def raising(request: InputRequest) -> AsyncIterator[Batch]:
    raise KeyError("owner")
    yield


async def exiting(request: InputRequest) -> AsyncIterator[Batch]:
    raise SystemExit(3)
    yield


async def refusing(request: InputRequest) -> AsyncIterator[Batch]:
    raise request.bad("no owner is given")
    yield


@pytest.mark.parametrize(
    ("adapter", "reason_code", "text"),
    [
        (raising, "bad_input", "KeyError: 'owner'"),
        (exiting, "unexpected_error", "SystemExit: 3"),
        (refusing, "bad_input_args", "InputAdapterError: rows: no owner is given"),
    ],
)
async def test_an_error_of_a_plugins_input_adapter_names_the_plugin(
    adapter: Any, reason_code: str, text: str
) -> None:
    owned = plugin(
        "owned", flowkit_register_input_adapters=lambda register: register("rows", adapter)
    )
    graph = {
        "nodes": [
            {
                "node_id": "a",
                "type": "work",
                "io": {"input_inline": {"input_adapter": "rows"}},
                "retry_policy": {"max": 0},
            },
        ]
    }
    async with Cluster(handlers=[work], plugins=[owned]) as cluster:
        node = (await cluster.run(graph)).nodes["a"]
    assert (node.reason_code, node.error) == (
        reason_code,
        f"input adapter 'rows' of plugin 'owned': {text}",
    )


def test_a_plugins_handler_that_is_none_is_refused_by_a_worker_and_the_plugin_is_named() -> None:
    class Sized(Handler):
        def __init__(self, size: int) -> None: ...

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=True)

    owned = plugin("owned", flowkit_register_handlers=lambda register: register("work", Sized))
    with pytest.raises(ConfigError, match="plugin 'owned': Sized cannot be a handler"):
        Worker(db="memory://", cfg=WorkerConfig(roles=["work"]), plugins=[owned])

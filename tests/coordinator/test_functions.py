"""Coordinator functions: the built-in ones, and the calls of functions."""

import inspect
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import pytest

from flowkit._engine.vars import VarsOp, apply
from flowkit.clock import SystemClock
from flowkit.config import CommonConfig
from flowkit.coordinator._builtin_functions import BUILTIN_FUNCTIONS
from flowkit.coordinator._function_invocation import Returned, call_function
from flowkit.coordinator._shared_resources import SharedResources
from flowkit.coordinator.functions import ENDINGS, BatchMetrics, FunctionContext
from flowkit.errors import NodeFailure, StoreUnavailable, VarsError
from flowkit.graph._function_arguments import BUILTIN_ARGUMENTS
from flowkit.plugins import Plugins


class Reading:
    """A task with these results and stored batches."""

    def __init__(self, results: dict[str, Any], batches: dict[str, list[dict[str, float]]]) -> None:
        self._results = results
        self._batches = batches

    async def results(self, node_ids: Sequence[str]) -> dict[str, Any]:
        return {node_id: self._results[node_id] for node_id in node_ids if node_id in self._results}

    async def batch_metrics(self, node_id: str) -> tuple[int, dict[str, float]]:
        batches = self._batches.get(node_id, [])
        return len(batches), {
            name: sum(batch.get(name, 0) for batch in batches)
            for name in {key for batch in batches for key in batch}
        }


def context(
    *,
    vars: Any = None,  # noqa: A002
    params: Any = None,
    results: Any = None,
    batches: Any = None,
) -> FunctionContext:
    return FunctionContext(
        task_id="t1",
        node_id="f",
        params=params or {},
        vars=vars or {},
        results=results or {},
        errors={},
        clock=SystemClock(),
        reading=Reading(results or {}, batches or {}),
        resources=SharedResources(CommonConfig()),
    )


async def call(
    name: str, args: Any = None, ctx: FunctionContext | None = None, **functions: Any
) -> Returned:
    return await call_function(BUILTIN_FUNCTIONS | functions, name, args or {}, ctx or context())


async def refusal(
    name: str, args: Any = None, ctx: FunctionContext | None = None, **functions: Any
) -> NodeFailure:
    with pytest.raises(NodeFailure) as caught:
        await call(name, args, ctx, **functions)
    return caught.value


# ---------------------------------------------------------------- built in


@pytest.mark.parametrize(
    ("name", "args", "result", "after"),
    [
        (
            "vars.set",
            {"kv": {"a.b": 1, "c": {"d": 2}}},
            {"keys": ["a.b", "c"]},
            {"a": {"b": 1}, "c": {"d": 2}, "n": 5},
        ),
        (
            "vars.set",
            {"kv": {"a": 1}, "block_sensitive": True},
            {"keys": ["a"]},
            {"a": 1, "c": {"x": 1}, "n": 5},
        ),
        ("vars.merge", {"data": {"c": {"y": 2}}}, {"keys": ["c"]}, {"c": {"x": 1, "y": 2}, "n": 5}),
        (
            "vars.merge",
            {"data": {"a": 1}, "block_sensitive": True},
            {"keys": ["a"]},
            {"a": 1, "c": {"x": 1}, "n": 5},
        ),
        ("vars.incr", {"key": "n"}, {"key": "n", "by": 1}, {"c": {"x": 1}, "n": 6}),
        (
            "vars.incr",
            {"key": "m.n", "by": -0.5},
            {"key": "m.n", "by": -0.5},
            {"c": {"x": 1}, "n": 5, "m": {"n": -0.5}},
        ),
        ("vars.unset", {"keys": "c.x"}, {"keys": ["c.x"]}, {"n": 5}),
        ("vars.unset", {"keys": ["n", "missing"]}, {"keys": ["n", "missing"]}, {"c": {"x": 1}}),
        ("noop", {}, None, {"c": {"x": 1}, "n": 5}),
    ],
)
async def test_a_function_returns_what_it_did_and_the_changes_to_apply(
    name: str, args: Any, result: Any, after: Any
):
    before = {"c": {"x": 1}, "n": 5}

    returned = await call(name, args, context(vars=before))

    assert returned.result == result
    assert apply(before, returned.ops) == after


@pytest.mark.parametrize("name", ["vars.set", "vars.merge"])
async def test_a_secret_is_refused_only_where_that_is_asked_for(name: str):
    secret = "AKIA" + "IOSFODNN7EXAMPLE"
    argument = {"vars.set": "kv", "vars.merge": "data"}[name]

    assert (await call(name, {argument: {"key": secret}})).ops
    failure = await refusal(name, {argument: {"key": secret}, "block_sensitive": True})

    assert isinstance(failure, VarsError)
    assert secret not in str(failure)


async def test_results_are_merged_in_order_and_stored_at_the_target():
    results = {
        "a": {"n": {"x": 1, "y": 1}, "list": [1]},
        "b": {"n": {"y": 2, "z": {"deep": 1}}, "list": [2]},
        "c": 7,
        "d": None,
        "e": {"n": 0},
    }
    ctx = context(results=results)

    returned = await call(
        "merge.generic", {"from_nodes": ["a", "b", "c", "d"], "target": "all.merged"}, ctx
    )

    assert returned.result == {"n": {"x": 1, "y": 2, "z": {"deep": 1}}, "list": [2], "c": 7}
    assert apply({"all": {"kept": 1}}, returned.ops) == {
        "all": {"kept": 1, "merged": returned.result}
    }
    assert (
        await call("merge.generic", {"from_nodes": ["b", "a", "e"], "target": "m"}, ctx)
    ).result == {"n": 0, "list": [1]}


async def test_merging_leaves_the_results_it_reads_as_they_are():
    results = {"a": {"n": {"x": 1}}, "b": {"n": {"y": 2}}}

    await call("merge.generic", {"from_nodes": ["a", "b"], "target": "m"}, context(results=results))

    assert results == {"a": {"n": {"x": 1}}, "b": {"n": {"y": 2}}}


async def test_one_node_can_be_merged_by_its_name():
    returned = await call(
        "merge.generic", {"from_nodes": "a", "target": "m"}, context(results={"a": [1, 2]})
    )

    assert returned.result == {"a": [1, 2]}


async def test_merging_a_node_that_is_not_in_the_task_is_refused():
    failure = await refusal(
        "merge.generic", {"from_nodes": ["a", "ghost"], "target": "m"}, context(results={"a": {}})
    )

    assert str(failure) == "node 'ghost' is not in the task"
    assert (failure.reason_code, failure.permanent) == ("bad_input", True)


@pytest.mark.parametrize(
    ("mode", "batches", "metrics"),
    [
        ({}, [{"rows": 4, "bytes": 10}, {"rows": 2}], {"rows": 6, "bytes": 10}),
        ({"mode": "sum"}, [{"rows": 4}], {"rows": 4}),
        ({"mode": "mean"}, [{"rows": 4, "bytes": 10}, {"rows": 2}], {"rows": 3, "bytes": 5}),
        ({"mode": "mean"}, [], {}),
        ({"mode": "sum"}, [], {}),
    ],
)
async def test_metrics_of_stored_batches_are_summed_up_or_averaged(
    mode: Any, batches: Any, metrics: Any
):
    ctx = context(results={"load": None}, batches={"load": batches})

    returned = await call("metrics.aggregate", {"node_id": "load", **mode}, ctx)

    assert returned.result == {
        "node_id": "load",
        "mode": mode.get("mode", "sum"),
        "batches": len(batches),
        "metrics": metrics,
    }
    assert returned.ops == ()


@pytest.mark.parametrize(
    ("name", "args", "complaint"),
    [
        ("vars.set", {}, "coordinator function 'vars.set': missing a required argument: 'kv'"),
        (
            "vars.set",
            {"kv": {}, "values": {}},
            "'vars.set': got an unexpected keyword argument 'values'",
        ),
        ("vars.set", {"kv": {}, "ctx": 1}, "'vars.set': got an unexpected keyword argument 'ctx'"),
        ("vars.set", {"kv": ["a"]}, "vars.set: kv is an object"),
        ("vars.merge", {"kv": {}}, "'vars.merge': missing a required argument: 'data'"),
        ("vars.merge", {"data": {"": 1}}, "is empty"),
        ("vars.incr", {"by": 2}, "'vars.incr': missing a required argument: 'key'"),
        ("vars.incr", {"key": "n", "by": "2"}, "vars.incr: by, for 'n', must be a finite number"),
        ("vars.unset", {}, "'vars.unset': missing a required argument: 'keys'"),
        ("vars.unset", {"keys": 5}, "vars.unset: keys is a key or a list"),
        (
            "merge.generic",
            {"from_nodes": ["a"]},
            "'merge.generic': missing a required argument: 'target'",
        ),
        (
            "merge.generic",
            {"from_nodes": {"a": 1}, "target": "m"},
            "merge.generic: from_nodes is a node id or a list",
        ),
        (
            "merge.generic",
            {"from_nodes": [1], "target": "m"},
            "merge.generic: from_nodes is a node id or a list",
        ),
        (
            "merge.generic",
            {"from_nodes": ["a"], "target": {"key": "m"}},
            "merge.generic: target is the path of a var",
        ),
        ("merge.generic", {"from_nodes": ["a"], "target": "m..n"}, "is empty"),
        (
            "merge.generic",
            {"from_nodes": ["dotted"], "target": "m"},
            "'m.x.y' has a segment that has a dot in it",
        ),
        ("metrics.aggregate", {}, "'metrics.aggregate': missing a required argument: 'node_id'"),
        ("metrics.aggregate", {"node_id": "ghost"}, "node 'ghost' is not in the task"),
        (
            "metrics.aggregate",
            {"node_id": "a", "mode": "median"},
            "metrics.aggregate: mode is 'sum' or 'mean'",
        ),
        ("noop", {"x": 1}, "'noop': got an unexpected keyword argument 'x'"),
        ("vars.rename", {}, "there is no coordinator function 'vars.rename'"),
    ],
)
async def test_wrong_arguments_are_refused_for_good_with_their_names(
    name: str, args: Any, complaint: str
):
    failure = await refusal(name, args, context(results={"a": {}, "dotted": {"x.y": 1}}))

    assert complaint in str(failure)
    assert (failure.reason_code, failure.permanent) == ("bad_input", True)


def test_the_arguments_that_are_checked_at_submission_are_those_of_the_functions():
    for name, function in BUILTIN_FUNCTIONS.items():
        _, *parameters = inspect.signature(function).parameters.values()
        required = [each.name for each in parameters if each.default is each.empty]
        optional = [each.name for each in parameters if each.default is not each.empty]
        checked = BUILTIN_ARGUMENTS[name]
        assert (list(checked.required), list(checked.optional)) == (required, optional), name
    assert BUILTIN_ARGUMENTS.keys() == BUILTIN_FUNCTIONS.keys()
    assert BUILTIN_ARGUMENTS["task.end"].choices["status"] == ENDINGS


def test_the_built_in_functions_come_through_the_hook():
    assert {*BUILTIN_FUNCTIONS} == {
        *("vars.set", "vars.merge", "vars.incr", "vars.unset"),
        *("merge.generic", "metrics.aggregate", "noop", "task.end"),
    }
    assert Plugins().functions.items() >= BUILTIN_FUNCTIONS.items()


# ---------------------------------------------------------------- calling


class Greeter:
    async def __call__(self, ctx: FunctionContext, who: str) -> str:
        return f"{ctx.node_id} greets {who}"

    def greet(self, ctx: FunctionContext, who: str) -> str:
        return f"{ctx.node_id} greets {who}"


async def greet(ctx: FunctionContext, who: str) -> str:
    return f"{ctx.node_id} greets {who}"


@pytest.mark.parametrize(
    "function",
    [
        greet,
        Greeter(),
        Greeter().greet,
        partial(greet),
        lambda ctx, who: greet(ctx, who),
        lambda ctx, **args: f"{ctx.node_id} greets {args['who']}",
    ],
)
async def test_anything_that_can_be_called_is_a_function(function: Any):
    assert (await call("greet", {"who": "Ada"}, greet=function)).result == "f greets Ada"


async def test_a_plain_function_runs_in_a_thread_of_its_own():
    def where(ctx: FunctionContext) -> bool:
        ctx.set_vars({"seen": True})
        return threading.current_thread() is threading.main_thread()

    async def async_where(ctx: FunctionContext) -> bool:
        return threading.current_thread() is threading.main_thread()

    returned = await call("where", where=where)

    assert returned.result is False
    assert apply({}, returned.ops) == {"seen": True}
    assert (await call("where", where=async_where)).result is True


async def test_a_plain_function_that_hangs_does_not_hold_up_a_cancelled_call():
    entered, release = anyio.Event(), threading.Event()

    def hang(ctx: FunctionContext) -> None:
        anyio.from_thread.run_sync(entered.set)
        release.wait(timeout=60)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(call, "hang", hang=hang))
        await entered.wait()
        tasks.cancel_scope.cancel()
    release.set()


@pytest.mark.parametrize(
    ("error", "reason_code", "permanent"),
    [
        (TypeError("no"), "bad_input", False),  # the retry policy decides
        (ValueError("no"), "bad_input", False),
        (KeyError("no"), "bad_input", False),
        (UnicodeError("no"), "unexpected_error", False),
        (RuntimeError("no"), "unexpected_error", False),
        (StoreUnavailable("no"), "unexpected_error", False),
        (NodeFailure("no", reason_code="quota", permanent=True), "quota", True),
        (NodeFailure("no", reason_code="quota"), "quota", False),
    ],
)
@pytest.mark.parametrize("in_thread", [False, True])
async def test_what_a_function_raises_is_classified(
    error: Exception, reason_code: str, permanent: bool, in_thread: bool
):
    async def fail(ctx: FunctionContext) -> None:
        ctx.set_vars({"a": 1})
        raise error

    def fail_in_thread(ctx: FunctionContext) -> None:
        raise error

    failure = await refusal("fail", fail=fail_in_thread if in_thread else fail)

    assert (failure.reason_code, failure.permanent) == (reason_code, permanent)
    assert failure is error or str(failure).startswith(
        f"coordinator function 'fail' raised {type(error).__name__}: "
    )


@pytest.mark.parametrize("result", [{1, b"\xff"}, object(), "\ud800"])
async def test_a_result_that_is_not_json_is_refused(result: Any):
    async def odd(ctx: FunctionContext) -> Any:
        return result

    failure = await refusal("odd", odd=odd)

    assert "the result of coordinator function 'odd' is not JSON" in str(failure)
    assert (failure.reason_code, failure.permanent) == ("bad_result", True)


async def test_what_cannot_be_asked_for_its_arguments_is_refused():
    failure = await refusal("odd", odd=iter)

    assert failure.reason_code == "bad_input"


# ---------------------------------------------------------------- the context


async def test_a_function_sees_its_task_and_can_change_none_of_it():
    params, vars_, results = {"p": [1]}, {"v": {"x": 1}}, {"a": {"r": [1]}}

    async def look(ctx: FunctionContext) -> Any:
        seen = [
            ctx.task_id,
            ctx.node_id,
            {**ctx.params},
            {**ctx.vars},
            {**ctx.results},
            ctx.clock.now() > 0,
        ]
        ctx.params["p"].append(2)
        ctx.vars["v"]["x"] = 2
        ctx.results["a"]["r"].append(2)
        return seen

    returned = await call(
        "look", None, context(params=params, vars=vars_, results=results), look=look
    )

    assert returned.result[:2] == ["t1", "f"]
    assert (params, vars_, results) == ({"p": [1]}, {"v": {"x": 1}}, {"a": {"r": [1]}})


async def test_changes_are_recorded_in_order_and_do_not_show_in_the_snapshot():
    async def change(ctx: FunctionContext) -> Any:
        ctx.set_vars({"a.b": 1})
        ctx.merge_vars({"a": {"c": 2}})
        ctx.incr_var("a.b", 4)
        ctx.incr_var("n")
        ctx.unset_vars("a.c")
        assert len(ctx.ops) == 5
        return ctx.vars

    returned = await call("change", None, context(vars={"a": {"b": 9}}), change=change)

    assert returned.result == {"a": {"b": 9}}
    assert apply({"a": {"b": 9}}, returned.ops) == {"a": {"b": 5}, "n": 1}


async def test_what_was_recorded_does_not_change_with_the_object_it_came_from():
    kv = {"a": [1]}
    ctx = context()

    ctx.set_vars(kv)
    kv["a"].append(2)

    assert ctx.ops == (VarsOp("set", {"kv": {"a": [1]}, "block_sensitive": False}),)


async def test_a_change_beyond_the_limits_is_refused_where_it_is_recorded():
    ctx = context()

    for record in (
        lambda: ctx.set_vars({"": 1}),
        lambda: ctx.merge_vars({"a": float("nan")}),
        lambda: ctx.incr_var("n", True),
        lambda: ctx.unset_vars(["$a"]),
        lambda: ctx.set_vars({"password": "s3cr3t-value"}, block_sensitive=True),
        lambda: ctx.merge_vars({"password": "s3cr3t-value"}, block_sensitive=True),
    ):
        with pytest.raises(VarsError):
            record()
    assert ctx.ops == ()


async def test_a_function_can_read_other_nodes_of_its_task():
    async def read(ctx: FunctionContext) -> Any:
        assert await ctx.metrics_of("load") == BatchMetrics(2, {"rows": 3})
        return [await ctx.result_of("load"), await ctx.results_of(["late", "load"])]

    ctx = context(
        results={"load": {"n": 1}, "late": None}, batches={"load": [{"rows": 1}, {"rows": 2}]}
    )

    assert (await call("read", None, ctx, read=read)).result == [
        {"n": 1},
        {"late": None, "load": {"n": 1}},
    ]

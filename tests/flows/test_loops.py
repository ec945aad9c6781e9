"""Nodes that run a graph again and again, on a cluster in virtual time."""

from typing import Any

import anyio
import pytest

from flowkit.errors import TaskRefused
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.builders import graph, node
from tests.flows.test_subflows import QUICK, until_running

ADDS = graph(node("x", "add", io={"input_inline": "${params.n}"}))
"""Graph of a round with the result ``{"x": n + 1}``."""
AFTER_FIRST = "${previous == null ? 0 : previous.x}"


def loop(node_id: str, inner: Any, *after: str, **fields: Any) -> dict[str, Any]:
    """Return a loop. ``while_`` is the field ``while``."""
    names = ("params", "while_", "until", "max_iterations", "delay_sec")
    io = {name.rstrip("_"): fields.pop(name) for name in names if name in fields}
    return node(node_id, "loop", *after, io={"graph": inner, **io}, **fields)


def counting(**io: Any) -> dict[str, Any]:
    """Return a loop each round of which adds 1 to the result of the round before."""
    return loop("l", ADDS, params={"n": AFTER_FIRST}, **io)


@handler("work")
async def work(item: Any) -> Any:
    return item


@handler("add")
async def add(item: Any) -> Any:
    return item + 1


class Flaky:
    """Handler that fails in some runs, which are counted from 1."""

    def __init__(self, *bad: int) -> None:
        self.runs: list[Any] = []
        self.bad = bad

    @property
    def handler(self) -> Any:
        @handler("add")
        async def run(item: Any) -> Any:
            self.runs.append(item)
            if len(self.runs) in self.bad:
                raise ValueError("broken")
            return item + 1

        return run


@handler("hang")
async def hang(ctx: RunContext) -> None:
    await anyio.sleep_forever()


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("io", "rounds"),
    [
        ({"until": "previous.x >= 3"}, 3),
        ({"until": "true"}, 1),
        ({"until": "iteration == 4"}, 5),
        ({"until": "previous.x == params.most"}, 2),
        ({"while_": "iteration < 3"}, 3),
        ({"while_": "previous == null || previous.x < 4"}, 4),
        ({"while_": "iteration < results.a", "max_iterations": 2}, 2),
        ({"until": "previous.x >= 3", "delay_sec": 5}, 3),
        ({"while_": "iteration < 3", "delay_sec": 5}, 3),
        ({"until": "iteration == 2", "max_iterations": "${params.most + 1}"}, 3),
    ],
)
async def test_a_loop_has_the_result_of_its_last_round(io: dict[str, Any], rounds: int) -> None:
    flow = graph(
        node("a", io={"input_inline": 2}),
        counting(**io) | {"depends_on": ["a"]},
        node("z", "work", "l", io={"input_inline": "${results.l.x}"}),
    )
    async with Cluster(handlers=[work, add]) as cluster:
        view = await cluster.run(flow, params={"most": 2})
        tasks = (await cluster.client.list_tasks()).items
        last = await cluster.client.get_task(view.nodes["l"].child_task_id or "")
    assert view.result == {"z": rounds}
    assert view.nodes["l"].progress == {"rounds": rounds}
    assert (last.params, last.parent, last.parent_node) == ({"n": rounds - 1}, view.id, "l")
    assert [task.status for task in tasks] == ["finished"] * (1 + rounds)


async def test_a_loop_whose_condition_is_false_at_first_runs_no_round() -> None:
    flow = graph(counting(while_="iteration > 0"), node("z", "work", "l", io={"input_inline": 1}))
    async with Cluster(handlers=[work, add]) as cluster:
        view = await cluster.run(flow)
        assert len((await cluster.client.list_tasks()).items) == 1
    assert (view.status, view.nodes["l"].result, view.nodes["l"].child_task_id) == (
        "finished",
        None,
        None,
    )


@pytest.mark.parametrize("io", [{"until": "true"}, {"while_": "iteration < 1"}])
@pytest.mark.parametrize("most", ["${'a'}", "${2.5}", "${0}", "${null}"])
async def test_max_iterations_is_checked_before_the_first_round(
    io: dict[str, Any], most: str
) -> None:
    adds = Flaky()
    async with Cluster(handlers=[adds.handler]) as cluster:
        view = await cluster.run(graph(counting(max_iterations=most, **io)))
    assert view.nodes["l"].reason_code == "bad_input"
    assert str(view.nodes["l"].error).startswith("io.max_iterations must be ")
    assert adds.runs == []


async def test_a_loop_fails_above_max_iterations() -> None:
    flow = graph(counting(until="false", max_iterations=4, retry_policy={"max": 3}))
    async with Cluster(handlers=[add]) as cluster:
        view = await cluster.run(flow)
        tasks = (await cluster.client.list_tasks()).items
    one = view.nodes["l"]
    assert (one.reason_code, one.attempt, one.result) == ("loop_limit", 1, None)
    assert len(tasks) == 5


async def test_a_loop_that_ends_in_its_last_round_finishes() -> None:
    async with Cluster(handlers=[add]) as cluster:
        for io in ({"until": "previous.x == 4"}, {"while_": "iteration < 4"}):
            view = await cluster.run(graph(counting(max_iterations=4, **io)))
            assert view.result == {"l": {"x": 4}}


async def test_a_hundred_rounds_are_the_most_unless_the_loop_says_otherwise() -> None:
    async with Cluster(handlers=[add]) as cluster:
        view = await cluster.run(graph(counting(until="iteration == 99")))
        assert view.result == {"l": {"x": 100}}
        view = await cluster.run(graph(counting(until="iteration == 100")))
        assert view.nodes["l"].reason_code == "loop_limit"


@pytest.mark.parametrize(
    ("io", "reason_code", "error"),
    [
        ({"until": "previous.x"}, "bad_expression", "/io/until: the value of 'previous.x' must be"),
        ({"while_": "iteration"}, "bad_expression", "/io/while: the value of 'iteration' must be"),
        ({"until": "previous.y"}, "bad_expression", "/io/until: 'previous.y' cannot be evaluated"),
        (
            {"while_": "1 / iteration > 0"},
            "bad_expression",
            "/io/while: '1 / iteration > 0' cannot",
        ),
        ({"until": "false", "delay_sec": "${0 - 1}"}, "bad_input", "io.delay_sec must be at least"),
        ({"until": "false", "delay_sec": "${'x'}"}, "bad_input", "io.delay_sec must be a number"),
        ({"until": "false", "max_iterations": "${0}"}, "bad_input", "io.max_iterations must be at"),
        ({"until": "false", "delay_sec": "${previous.y}"}, "bad_expression", "/io/delay_sec: "),
    ],
)
async def test_an_argument_without_a_valid_value_fails_the_loop_for_good(
    io: dict[str, Any], reason_code: str, error: str
) -> None:
    async with Cluster(handlers=[add]) as cluster:
        view = await cluster.run(graph(counting(retry_policy={"max": 3}, **io)))
    one = view.nodes["l"]
    assert (one.reason_code, one.attempt) == (reason_code, 1)
    assert str(one.error).startswith(error)


async def test_params_of_a_round_that_do_not_fit_fail_the_loop() -> None:
    typed = {**ADDS, "params": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    flow = graph(loop("l", typed, params={"n": "${iteration < 2 ? 1 : 'x'}"}, until="false"))
    async with Cluster(handlers=[add]) as cluster:
        view = await cluster.run(flow)
        tasks = (await cluster.client.list_tasks()).items
    assert (view.nodes["l"].reason_code, len(tasks)) == ("bad_input", 3)
    assert sorted(view.nodes["l"].rounds) == [0, 1]
    assert view.nodes["l"].child_task_id == view.nodes["l"].rounds[1]


# ---------------------------------------------------------------- pauses


async def test_pauses_lie_between_rounds_and_may_grow() -> None:
    async with Cluster(handlers=[add]) as cluster:
        for io, seconds in (
            ({"while_": "iteration < 3", "delay_sec": 3600}, 2 * 3600),
            ({"until": "iteration == 2", "delay_sec": 3600}, 2 * 3600),
            ({"until": "iteration == 3", "delay_sec": "${(iteration + 1) * 10}"}, 10 + 20 + 30),
            ({"until": "iteration == 2", "delay_sec": "${previous.x * 100}"}, 100 + 200),
        ):
            view = await cluster.run(graph(counting(**io)))
            assert view.started_at is not None
            assert view.finished_at is not None
            took = (view.finished_at - view.started_at).total_seconds()
            assert took == pytest.approx(seconds, abs=0.5)


async def test_a_loop_says_what_it_waits_for() -> None:
    inner = graph(node("x", "sleep", io={"for_sec": 10}))
    flow = graph(loop("l", inner, until="false", delay_sec=60, max_iterations=7))
    async with Cluster() as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow)
        await cluster.clock.sleep(5)
        view = (await client.get_task(task_id)).nodes["l"]
        first = view.child_task_id
        assert (view.status, view.waiting) == ("running", None)
        assert await client.explain(task_id, "l") == (
            f"'l' waits for round 1 of at most 7, task {first!r}, in which 'x' sleeps until"
            f" 2026-01-01T00:00:10+00:00 (5.0 s). `flowkit run-now {first} x` ends that at once."
        )
        await cluster.clock.sleep(35)
        view = (await client.get_task(task_id)).nodes["l"]
        assert (view.status, view.waiting, view.child_task_id) == ("deferred", "timer", first)
        assert await client.explain(task_id, "l") == (
            "'l' waits until 2026-01-01T00:01:10+00:00 (30.0 s) before round 2 of at most 7."
            f" `flowkit run-now {task_id} l` ends that at once."
        )
        await cluster.clock.sleep(35)
        view = (await client.get_task(task_id)).nodes["l"]
        assert (view.status, view.child_task_id == first) == ("running", False)
        await client.cancel(task_id)
        assert (await client.wait(task_id)).status == "cancelled"


async def test_a_while_loop_is_checked_again_when_its_pause_has_ended() -> None:
    stop = node(
        "stop", "coordinator_fn", "nap", io={"fn": "vars.set", "fn_args": {"kv": {"stop": 1}}}
    )
    flow = graph(
        counting(while_="!has(vars.stop)", delay_sec=60),
        node("nap", "sleep", io={"for_sec": 90}),
        stop,
    )
    async with Cluster(handlers=[add]) as cluster:
        view = await cluster.run(flow)
    assert view.nodes["l"].result == {"x": 2}
    assert view.nodes["l"].progress == {"rounds": 2}


# ---------------------------------------------------------------- failures and retries


async def test_a_failed_round_fails_the_loop_and_a_retry_goes_on_in_it() -> None:
    flaky = Flaky(3)
    async with Cluster(handlers=[flaky.handler]) as cluster:
        view = await cluster.run(graph(counting(until="previous.x == 4")))
        one = view.nodes["l"]
        assert one.reason_code == "subflow_failed"
        assert one.error == (
            f"task {one.child_task_id!r} failed: node 'x' failed: bad_input: ValueError: broken"
        )
        await cluster.client.retry(view.id)
        again = await cluster.client.wait(view.id)
        tasks = (await cluster.client.list_tasks()).items
    assert again.result == {"l": {"x": 4}}
    assert flaky.runs == [0, 1, 2, 2, 3]
    assert len(tasks) == 5


async def test_the_retry_policy_counts_the_failures_of_all_rounds() -> None:
    flaky = Flaky(1, 3, 5)
    policy = {"max": 2, "backoff_sec": 1, "jitter": 0}
    async with Cluster(handlers=[flaky.handler]) as cluster:
        view = await cluster.run(graph(counting(until="false", retry_policy=policy)))
    assert view.nodes["l"].attempt == 3
    assert flaky.runs == [0, 0, 1, 1, 2]


async def test_a_finished_loop_that_runs_again_begins_with_its_first_round() -> None:
    flaky = Flaky()
    flow = graph(counting(until="previous.x == 2"), node("b", "bad", "l"))

    @handler("bad")
    async def bad() -> None:
        raise ValueError("broken")

    async with Cluster(handlers=[flaky.handler, bad]) as cluster:
        view = await cluster.run(flow)
        await cluster.client.retry(view.id, from_nodes=["l"])
        again = await cluster.client.wait(view.id)
    assert flaky.runs == [0, 1, 0, 1]
    assert again.nodes["l"].child_task_id != view.nodes["l"].child_task_id


async def test_a_round_before_the_last_is_not_retried_alone() -> None:
    inner = graph(node("x", "bad", optional=True), node("nap", "sleep", io={"for_sec": 10}))

    @handler("bad")
    async def bad() -> None:
        raise ValueError("broken")

    async with Cluster(handlers=[bad]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(loop("l", inner, until="iteration == 1")))
        await cluster.clock.sleep(5)
        first = (await client.get_task(task_id)).nodes["l"].child_task_id or ""
        await cluster.clock.sleep(10)
        letters = await client.dead_letters(task_id=first)
        (outcome,) = await client.retry_dead_letters([letters.items[0].letter_id])
        assert not outcome.done
        assert "that node is a loop whose later rounds have begun" in outcome.detail
        with pytest.raises(TaskRefused):
            await client.retry(first)
        assert (await client.wait(task_id)).status == "finished"


async def test_the_task_goes_on_after_an_optional_loop() -> None:
    flow = graph(
        counting(until="false", max_iterations=2, optional=True),
        node("z", "work", "l", io={"input_inline": "${results.l}"}, fan_in="ended"),
    )
    async with Cluster(handlers=[work, add]) as cluster:
        view = await cluster.run(flow)
    assert (view.status, view.result) == ("finished", {"z": None})


# ---------------------------------------------------------------- down


async def test_a_cancellation_stops_the_current_round() -> None:
    inner = graph(node("x", "hang"))
    async with Cluster(handlers=[hang]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(loop("l", inner, until="false")))
        view = await until_running(client, task_id, "l")
        await cluster.clock.sleep(1)
        await client.cancel(task_id, "enough")
        view = await client.wait(task_id)
        child = await client.get_task(view.nodes["l"].child_task_id or "")
    assert (view.status, child.status) == ("cancelled", "cancelled")
    assert child.error == "node 'l' of the parent was stopped: enough"


async def test_a_pause_stops_a_loop_between_rounds() -> None:
    inner = graph(node("x", "sleep", io={"for_sec": 10}), node("y", "work", "x"))
    flow = graph(loop("l", inner, until="iteration == 2", delay_sec=10))
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        for moment in (5, 15):
            task_id = await client.create_task(graph=flow)
            await cluster.clock.sleep(moment)
            await client.pause(task_id)
            await cluster.clock.sleep(1000)
            tasks = (await client.list_tasks(status="paused")).items
            assert len(tasks) == (2 if moment == 5 else 1)
            await client.resume(task_id)
            assert (await client.wait(task_id)).status == "finished"


async def test_a_deadline_ends_a_loop_between_rounds_at_once() -> None:
    flow = graph(counting(until="false", delay_sec=3600), deadline_sec=100)
    async with Cluster(handlers=[add]) as cluster:
        view = await cluster.run(flow)
    assert (view.status, view.nodes["l"].reason_code) == ("failed", "deadline_exceeded")
    assert view.nodes["l"].status == "cancelled"


async def test_loops_nest_and_run_in_subflows_and_in_finally() -> None:
    two = loop(
        "in",
        ADDS,
        params={"n": "${previous == null ? params.n : previous.x}"},
        until="iteration == 1",
    )
    outer = loop(
        "out",
        graph(two, params={"type": "object"}),
        params={"n": "${previous == null ? 0 : previous['in'].x}"},
        while_="iteration < 3",
    )
    flow = graph(
        node("s", "subflow", io={"graph": graph(outer)}),
        final=[counting(until="iteration == 1")],
    )
    flow["finally"] = flow.pop("final")
    async with Cluster(handlers=[add]) as cluster:
        view = await cluster.run(flow)
        tasks = (await cluster.client.list_tasks(limit=100)).items
    assert view.result == {"s": {"out": {"in": {"x": 6}}}}
    assert view.nodes["l"].result == {"x": 2}
    assert len(tasks) == 1 + 1 + 3 + 6 + 2


async def test_a_finished_loop_is_undone_with_its_result() -> None:
    undone: list[Any] = []

    @handler("take_back")
    async def take_back(item: Any) -> None:
        undone.append(item)

    @handler("bad")
    async def bad() -> None:
        raise ValueError("broken")

    undo = {"type": "take_back", "io": {"input_inline": "${result}"}}
    flow = graph(counting(until="iteration == 1", undo=undo), node("b", "bad", "l"))
    async with Cluster(handlers=[add, bad, take_back]) as cluster:
        view = await cluster.run(flow)
    assert (view.status, undone) == ("failed", [{"x": 2}])


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("seconds", [0, 0.001, 5, 15, 25])
async def test_another_coordinator_continues_a_loop(seconds: float) -> None:
    inner = graph(
        node("x", "sleep", io={"for_sec": 10}),
        node("y", "add", "x", io={"input_inline": "${params.n}"}),
    )
    flow = graph(
        loop("l", inner, params={"n": "${iteration}"}, while_="iteration < 3", delay_sec=10)
    )
    async with Cluster(handlers=[add], coordinator_config=QUICK) as cluster:
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(seconds)
        await cluster.coordinators.pop().stop()
        await cluster.clock.sleep(120)
        await cluster.add_coordinator()
        view = await cluster.client.wait(task_id)
        tasks = (await cluster.client.list_tasks()).items
    assert view.result == {"l": {"y": 3}}
    assert len(tasks) == 4


async def test_a_loop_between_rounds_costs_no_wake_ups() -> None:
    flow = graph(counting(until="false", delay_sec=30 * 86_400, max_iterations=3))
    async with Cluster(handlers=[add]) as cluster:
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(60)
        record = (await cluster.store.load([task_id]))[task_id]
        await cluster.clock.sleep(86_400)
        assert (await cluster.store.load([task_id]))[task_id].header == record.header
        view = await cluster.client.wait(task_id)
    assert view.nodes["l"].reason_code == "loop_limit"


@pytest.mark.parametrize("io", [{"until": "iteration == 2"}, {"while_": "iteration < 3"}])
async def test_a_loop_that_is_paused_during_a_round_names_no_round_that_has_not_begun(
    io: dict[str, Any],
) -> None:
    @handler("add")
    async def slow(item: Any, ctx: RunContext) -> Any:
        await ctx.clock.sleep(10)
        return item + 1

    async with Cluster(handlers=[slow]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(counting(**io)))
        await cluster.clock.sleep(5)
        await client.pause(task_id)
        running = (await client.get_task(task_id)).nodes["l"]
        await cluster.clock.sleep(1000)
        paused = (await client.get_task(task_id)).nodes["l"]
        assert (paused.rounds, paused.child_task_id) == (running.rounds, running.child_task_id)
        assert (await client.get_task(str(paused.child_task_id))).status == "finished"
        explained = await client.explain(task_id, "l")
        resume = f"`flowkit resume {task_id}` ends that."
        assert explained == f"'l' waits because the task is paused. {resume}"
        await client.resume(task_id)
        view = await client.wait(task_id, timeout=1000)
    assert (view.status, list(view.nodes["l"].rounds)) == ("finished", [0, 1, 2])

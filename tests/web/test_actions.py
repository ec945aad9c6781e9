"""The actions that are listed for tasks and nodes are those that the API carries out."""

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio
import httpx

from flowkit import Client
from flowkit.errors import NodeFailure
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore
from tests.builders import DAY, graph, node
from tests.web.api import serving

Call = tuple[str, dict[str, Any] | None]
"""Path below that of the task, and the body."""
NODE_CALLS: dict[str, Callable[[str], Call]] = {
    "run_now": lambda node_id: (f"nodes/{quote(node_id)}/run-now", None),
    "retry": lambda node_id: ("retry", {"from_nodes": [node_id]}),
    "resolve": lambda node_id: (f"nodes/{quote(node_id)}/resolve", {"outcome": "skipped"}),
}
TASK_CALLS: dict[str, Call] = {
    "cancel": ("cancel", None),
    "force_cancel": ("cancel", {"force": True}),
    "pause": ("pause", None),
    "resume": ("resume", None),
    "retry": ("retry", None),
}


@handler("work")
async def work(item: Any) -> Any:
    return item


@handler("fail")
async def fail(item: Any) -> Any:
    raise NodeFailure("bad luck")


@handler("long")
async def long(item: Any) -> Any:
    await anyio.sleep_forever()


@handler("holds")
async def holds(item: Any, ctx: RunContext) -> Any:
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.clock.sleep(5)


@handler("numbers")
async def numbers(item: int) -> AsyncIterator[dict[str, int]]:
    for number in range(item):
        yield {"n": number}


class Reads(Handler):
    """Reads numbers, and never ends with the number 1."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        if batch.payload["meta"]["n"] == 1:
            await anyio.sleep_forever()
        return BatchResult(success=True)


NEVER = {"max": 0}
LONG = graph(node("long", "long"))
AT_WORK = graph(
    node("done"),
    node("held", "work", "long"),
    node("long", "long"),
    node("again", "fail", retry_policy={"max": 2, "backoff_sec": DAY}),
    node("map", "long", map={"over": "${[1, 2, 3]}", "max_parallel": 2}),
    node("numbers", "numbers", io={"input_inline": 4}),
    node("reads", "reads", "numbers", io={"start_when": "first_batch", "shards": 2}),
    node("sleep", "sleep", io={"for_sec": DAY}),
    node("signal", "wait_signal", io={"signal": "go"}),
    node("asks", "approval", io={"prompt": "?", "choices": ["yes"]}),
    node("sub", "subflow", io={"graph": LONG}),
    node("loop", "loop", io={"graph": LONG, "until": "true"}),
    node(
        "pause", "loop", io={"graph": graph(node("a")), "until": "iteration == 1", "delay_sec": DAY}
    ),
    **{"finally": [node("last")]},
)
FAILED = graph(
    node("done", undo={"type": "work"}),
    node("bad", "fail", "done", retry_policy=NEVER),
    node("below", "work", "bad"),
    node("map", "fail", map={"over": "${[1, 2, 3]}"}, retry_policy=NEVER),
    node("numbers", "numbers", io={"input_inline": 2}),
    node("reads", "reads", "numbers", io={"start_when": "first_batch", "shards": 2}),
    node("sub", "subflow", io={"graph": graph(node("bad", "fail", retry_policy=NEVER))}),
    **{"finally": [node("last")]},
)
ENDING = graph(node("done"), node("long", "long"), **{"finally": [node("last", "long")]})


HANDLERS = {
    "work": work,
    "fail": fail,
    "long": long,
    "holds": holds,
    "numbers": numbers,
    "reads": Reads(),
}


@dataclass
class Stopped:
    """A task in a store in which nothing happens by itself, and the API of that store."""

    http: httpx.AsyncClient
    client: Client
    task_id: str
    restore: Callable[[], None]

    async def posted(self, call: Call) -> tuple[int, bool]:
        """Post to the task as it was. Return the status of the answer, and whether the task has
        changed.
        """
        path, body = call
        self.restore()
        before = await self.client.get_task(self.task_id, nodes="none")
        answer = await self.http.post(f"/tasks/{self.task_id}/{path}", json=body)
        after = await self.client.get_task(self.task_id, nodes="none")
        self.restore()
        return answer.status_code, (after.seq, after.status) != (before.seq, before.status)

    async def listed(self, path: str) -> list[str]:
        answer = await self.http.get(f"/tasks/{self.task_id}/{path}")
        assert answer.status_code == 200, answer.text
        actions: list[str] = answer.json()["actions"]
        return actions

    async def actions_of_nodes(self) -> dict[str, str]:
        """Return the listed actions of each node, and check that the API accepts these alone."""
        found = {}
        for view in (await self.client.nodes(self.task_id)).items:
            actions = await self.listed(f"nodes/{quote(view.node_id)}/actions")
            for action, call in NODE_CALLS.items():
                outcome = await self.posted(call(view.node_id))
                expected = (204, True) if action in actions else (409, False)
                assert outcome == expected, (view.node_id, view.status, action)
            found[view.node_id] = " ".join(actions)
        return found

    async def actions(self) -> str:
        """Return the listed actions of the task, and check that these alone have an effect."""
        actions = await self.listed("actions")
        for action, call in TASK_CALLS.items():
            status, changed = await self.posted(call)
            assert changed == (action in actions), action
            assert status == (204 if changed or action != "retry" else 409)
        return " ".join(actions)


def copied(store: InMemoryStore) -> InMemoryStore:
    """Return a store with the same data, for whose changes no caller waits."""
    return copy.deepcopy(store, {id(store._waiting): {}})


@asynccontextmanager
async def stopped(
    document: dict[str, Any],
    *verbs: Callable[[Client, str], Awaitable[object]],
    wait_sec: float = 20,
) -> AsyncIterator[Stopped]:
    """Run a task until only time passes, call verbs, wait after each, and stop everything."""
    async with Cluster(handlers=HANDLERS) as cluster:
        task_id = await cluster.client.create_task(graph=document)
        await cluster.clock.sleep(wait_sec)
        for verb in verbs:
            await verb(cluster.client, task_id)
            await cluster.clock.sleep(wait_sec)
        store, clock = copied(cluster.store), cluster.clock
        async with (
            Client(store=store, bus=InMemoryBus(), clock=clock) as client,
            serving(client) as http,
        ):
            kept = copied(store)
            yield Stopped(http, client, task_id, lambda: vars(store).update(vars(copied(kept))))


async def test_nodes_of_a_task_at_work() -> None:
    async with stopped(AT_WORK) as task:
        assert await task.actions_of_nodes() == {
            "done": "",
            "held": "resolve",
            "long": "resolve",
            "again": "run_now resolve",
            "map": "resolve",
            "map[0]": "resolve",
            "map[1]": "resolve",
            "map[2]": "resolve",
            "numbers": "",
            "reads": "resolve",
            "reads[0]": "",
            "reads[1]": "",
            "sleep": "run_now resolve",
            "signal": "resolve",
            "asks": "resolve",
            "sub": "resolve",
            "loop": "resolve",
            "pause": "run_now resolve",
            "last": "",
        }
        assert await task.actions() == "cancel force_cancel pause"


async def test_nodes_of_a_paused_task() -> None:
    async with stopped(AT_WORK, lambda client, task_id: client.pause(task_id)) as task:
        nodes = await task.actions_of_nodes()
        assert (nodes["pause"], nodes["reads[1]"], nodes["last"]) == ("run_now resolve", "", "")
        assert await task.actions() == "cancel force_cancel resume"


async def test_nodes_of_a_task_that_is_cancelled() -> None:
    async with stopped(ENDING, lambda client, task_id: client.cancel(task_id)) as task:
        assert await task.actions_of_nodes() == {"done": "", "long": "", "last": "resolve"}
        assert await task.actions() == "force_cancel"


async def test_a_task_that_is_cancelled_by_force_has_no_action_left() -> None:
    document = graph(node("holds", "holds"), node("sub", "subflow", io={"graph": LONG}))
    force = lambda client, task_id: client.cancel(task_id, force=True)  # noqa: E731
    async with stopped(document, force, wait_sec=1) as task:
        assert await task.actions_of_nodes() == {"holds": "", "sub": ""}
        assert await task.actions() == ""


async def test_a_task_whose_nodes_have_ended_and_whose_finally_runs() -> None:
    def settle(client: Client, task_id: str) -> Awaitable[None]:
        return client.resolve_node(task_id, "long", "finished", by="ann")

    async with stopped(ENDING, settle) as task:
        assert await task.actions_of_nodes() == {"done": "", "long": "", "last": "resolve"}
        assert await task.actions() == "force_cancel"


async def test_nodes_of_a_failed_task() -> None:
    async with stopped(FAILED) as task:
        assert await task.actions_of_nodes() == {
            "done": "retry",
            "bad": "retry",
            "below": "retry",
            "map": "retry",
            "map[0]": "retry",
            "map[1]": "retry",
            "map[2]": "retry",
            "numbers": "retry",
            "reads": "retry",
            "reads[0]": "retry",
            "reads[1]": "retry",
            "sub": "retry",
            "done~undo": "",
            "last": "",
        }
        assert await task.actions() == "retry"


async def test_a_node_below_a_failed_one_is_not_retried_alone() -> None:
    async with stopped(
        graph(node("bad", "fail", retry_policy=NEVER), node("b", "work", "bad"))
    ) as task:
        assert await task.actions_of_nodes() == {"bad": "retry", "b": ""}


async def test_a_child_task_is_not_retried_alone_after_its_node_has_ended() -> None:
    async with stopped(FAILED) as task:
        task.task_id = (await task.client.get_node(task.task_id, "sub")).child_task_id or ""
        assert await task.actions_of_nodes() == {"bad": ""}
        assert await task.actions() == ""


async def test_nothing_is_done_with_a_finished_task() -> None:
    async with stopped(graph(node("done"))) as task:
        assert await task.actions_of_nodes() == {"done": ""}
        assert await task.actions() == ""

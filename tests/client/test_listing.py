"""Lists of tasks by what their nodes do, on a cluster in virtual time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from flowkit.errors import NodeFailure, StoreError, TaskNotFound
from flowkit.protocols import TaskQuery, TaskRecord
from flowkit.worker import handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import graph, node

SLEEP = {"for_sec": 60}
APPROVAL = {"prompt": "Go?"}
AWAITED = ("signal 'paid'", "decision about 'c'", "worker of role 'unserved'")


@handler("work")
async def work(item: Any, ctx: Any) -> Any:
    if item.get("code"):
        raise NodeFailure("it fails", reason_code=item["code"], permanent=item.get("last", False))
    return 1


def fails(node_id: str, *after: str, code: str = "flaky", last: bool = True, **more: Any) -> Any:
    return node(node_id, "work", *after, io={"input_inline": {"code": code, "last": last}}, **more)


async def ids(cluster: Cluster, **query: Any) -> list[str]:
    return [view.id for view in (await cluster.client.list_tasks(**query)).items]


async def submit(cluster: Cluster, task_id: str, *nodes: Any, **fields: Any) -> None:
    await cluster.client.create_task(graph=graph(*nodes, **fields), task_id=task_id)


async def test_tasks_are_listed_by_what_their_nodes_wait_for() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await submit(cluster, "sleeps", node("a", "sleep", io=SLEEP))
        await submit(cluster, "listens", node("a", "wait_signal", io={"signal": "go"}))
        await submit(cluster, "asks", node("a", "approval", io=APPROVAL))
        await submit(cluster, "queued", node("a", "unserved"))
        both = [node("a", "approval", io=APPROVAL), node("b", "sleep", io=SLEEP)]
        await submit(cluster, "both", *both, node("c", "unserved"))
        await cluster.clock.sleep(1)
        waits = {
            "timer": {"sleeps", "both"},
            "signal": {"listens"},
            "approval": {"asks", "both"},
            "key": set(),
            "rate": set(),
            "worker": {"queued", "both"},
        }
        for what, expected in waits.items():
            assert set(await ids(cluster, waiting=what)) == expected, what
        await cluster.client.decide("both", "a", "approve", by="ann")
        await cluster.client.signal("listens", "go")
        await cluster.clock.sleep(100)
        assert await ids(cluster, waiting="timer") == []
        assert await ids(cluster, waiting="signal") == []
        assert await ids(cluster, waiting="approval") == ["asks"]
        await cluster.client.pause("asks")
        await cluster.client.cancel("queued")
        assert await ids(cluster, waiting="approval") == ["asks"]
        assert await ids(cluster, waiting="worker") == ["both"]


async def test_tasks_with_a_node_that_is_tried_again_are_listed_until_it_ends() -> None:
    async with Cluster(handlers=[work]) as cluster:
        retries = {"max": 1, "backoff_sec": 30, "jitter": 0}
        await submit(cluster, "again", fails("a", last=False, retry_policy=retries))
        await submit(cluster, "sleeps", node("a", "sleep", io=SLEEP))
        await cluster.clock.sleep(1)
        assert await ids(cluster, retrying=True) == ["again"]
        assert await ids(cluster, reason_code="flaky") == ["again"]
        assert await ids(cluster, waiting="timer") == ["sleeps"]
        view = await cluster.client.wait("again")
        assert (view.status, view.nodes["a"].attempt) == ("failed", 2)
        assert await ids(cluster, retrying=True) == []
        assert await ids(cluster, reason_code="flaky", status="failed") == ["again"]


async def test_a_node_that_succeeds_at_last_leaves_no_trace_in_the_lists() -> None:
    tries = []

    @handler("second")
    async def second(item: Any, ctx: Any) -> Any:
        tries.append(await ids(cluster, retrying=True))
        if len(tries) == 1:
            raise NodeFailure("not yet", reason_code="flaky")

    async with Cluster(handlers=[second]) as cluster:
        await submit(cluster, "t", node("a", "second"))
        await cluster.client.wait("t")
        assert tries == [[], ["t"]]
        assert await ids(cluster, retrying=True) == await ids(cluster, reason_code="flaky") == []


async def test_tasks_are_listed_by_the_reason_codes_of_all_failures_until_a_retry() -> None:
    async with Cluster(handlers=[work]) as cluster:
        handled = [fails("a", code="handled"), node("b", "work", io={"input_inline": {}})]
        handled[0]["routing"] = {"on_failure": ["b"]}
        await submit(cluster, "fine", *handled)
        await submit(
            cluster,
            "bad",
            fails("a", code="first"),
            fails("b", code="second"),
            node("c", "work", "a", io={"input_inline": {}}),
            on_node_failure="continue",
        )
        await cluster.client.wait("fine")
        await cluster.client.wait("bad")
        assert await ids(cluster, reason_code="handled") == ["fine"]
        assert await ids(cluster, reason_code="handled", status="failed") == []
        for code in ("first", "second"):
            assert await ids(cluster, reason_code=code) == ["bad"]
        assert await ids(cluster, reason_code="upstream_failed") == []
        await cluster.client.retry("bad", from_nodes=["a"])
        assert await ids(cluster, reason_code="first") == []
        assert await ids(cluster, reason_code="second") == ["bad"]


async def test_reason_codes_of_nodes_in_the_archive_are_found_and_forgotten() -> None:
    """A record keeps 256 ended nodes. The others are in the archive."""
    async with Cluster(handlers=[work]) as cluster:
        nodes = [fails(f"n{number}", code=f"code{number % 3}") for number in range(400)]
        await submit(cluster, "t", *nodes, on_node_failure="continue")
        await cluster.client.wait("t")
        for number in range(3):
            assert await ids(cluster, reason_code=f"code{number}") == ["t"]
        first = [f"n{number}" for number in range(0, 400, 3)]
        await cluster.client.retry("t", from_nodes=first)
        assert await ids(cluster, reason_code="code0") == []
        assert await ids(cluster, reason_code="code1") == ["t"]


async def test_the_children_of_a_map_count_like_other_nodes() -> None:
    async with Cluster(handlers=[work]) as cluster:
        items = [{"code": "odd", "last": True}, {}, {"code": "rare", "last": True}]
        mapped = node(
            "m",
            "work",
            map={"over": items, "on_item_failure": "continue"},
            io={"input_inline": "${item}"},
        )
        await submit(cluster, "t", mapped)
        assert (await cluster.client.wait("t")).status == "finished"
        assert await ids(cluster, reason_code="odd") == ["t"]
        assert await ids(cluster, reason_code="rare", parent="x") == []


async def test_of_many_reason_codes_the_first_ones_are_listed() -> None:
    async with Cluster(handlers=[work]) as cluster:
        chain = [fails("n0", code="code0")]
        for number in range(1, 20):
            chain.append(fails(f"n{number}", f"n{number - 1}", code=f"code{number}"))
            chain[-1]["fan_in"] = "ended"
        await submit(cluster, "t", *chain, on_node_failure="continue")
        await cluster.client.wait("t")
        listed = [n for n in range(20) if await ids(cluster, reason_code=f"code{n}")]
        assert listed == list(range(16))


async def test_child_tasks_are_listed_by_their_parent() -> None:
    inner = {"nodes": [{"node_id": "s", "type": "sleep", "io": SLEEP}]}
    async with Cluster(handlers=[work]) as cluster:
        await submit(cluster, "parent", *(node(n, "subflow", io={"graph": inner}) for n in "ab"))
        await submit(cluster, "other", node("a", "subflow", io={"graph": inner}))
        await cluster.clock.sleep(1)
        views = (await cluster.client.list_tasks(parent="parent")).items
        assert {view.parent_node for view in views} == {"a", "b"}
        assert {view.parent for view in views} == {"parent"}
        assert len(await ids(cluster, parent="parent", waiting="timer")) == 2
        assert await ids(cluster, parent="parent", waiting="signal") == []
        assert sorted(await ids(cluster, root=True)) == ["other", "parent"]
        assert await ids(cluster, root=True, waiting="timer") == []
        await cluster.client.wait("parent")
        assert len(await ids(cluster, parent="parent", status="finished")) == 2


async def test_tasks_are_listed_by_the_time_of_their_creation() -> None:
    async with Cluster(handlers=[work]) as cluster:
        for number in range(4):
            cluster.clock.jump(1)
            await submit(cluster, f"t{number}", node("a", "sleep", io=SLEEP))
        moments = [(await cluster.client.get_task(f"t{n}")).created_at for n in range(4)]
        query = {"created_after": moments[0], "created_before": moments[3]}
        assert await ids(cluster, **query) == ["t2", "t1"]
        assert await ids(cluster, **query, waiting="timer", limit=1) == ["t2"]
        later = moments[0] + timedelta(microseconds=1)
        assert await ids(cluster, created_before=later) == ["t0"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a status": ({"status": "lost"}, "status is one of queued, running, .*, not 'lost'"),
    "statuses": ({"status": ["queued", 3]}, "status is one of .*, not 3"),
    "a number as the status": ({"status": 3}, "status is one of .*, not 3"),
    "a pipeline": ({"pipeline": 3}, "pipeline is a text, not 3"),
    "labels": ({"labels": {"a": 1}}, "labels maps names to texts, and is not {'a': 1}"),
    "a parent": ({"parent": 3}, "parent is a text, not 3"),
    "a time as text": (
        {"created_after": "2026-11-27"},
        "created_after is a datetime with a time zone, not '2026-11-27'",
    ),
    "a time without a zone": (
        {"created_before": datetime(2026, 11, 27)},
        "created_before is a datetime with a time zone, not datetime",
    ),
    "no child tasks": ({"root": False}, "root is True or None, not False"),
    "a parent of root tasks": ({"root": True, "parent": "p"}, "no task has both root and parent"),
    "False": ({"retrying": False}, "retrying is True or None, not False"),
    "a number": ({"retrying": 1}, "retrying is True or None, not 1"),
    "a wait": (
        {"waiting": "lunch"},
        "waiting is one of timer, signal, approval, cache, key, rate, worker, not 'lunch'",
    ),
    "waits": ({"waiting": ["timer"]}, r"waiting is one of .*, not \['timer'\]"),
    "a reason": ({"reason_code": 3}, "reason_code is a text, not 3"),
    "a limit": ({"limit": 0}, "limit is at least 1, not 0"),
    "a limit beyond all": ({"limit": 10**30}, "limit is at most 2,147,483,647, not 1,000"),
    "half a character": ({"pipeline": "a\ud800"}, r"pipeline is not Unicode: 'a\\ud800'"),
    "half a label": ({"labels": {"a\ud800": ""}}, r"labels is not Unicode: 'a\\ud800'"),
    "half a cursor": ({"after": "1|\ud800"}, r"after is not Unicode: '1\|\\ud800'"),
    "a limit as text": ({"limit": "5"}, "limit is a whole number, not '5'"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_value_that_no_task_can_match_is_refused(name: str) -> None:
    query, error = WRONG[name]
    async with Cluster() as cluster:
        with pytest.raises(ValueError, match=error):
            await cluster.client.list_tasks(**query)


async def test_a_cursor_of_nowhere_is_refused_with_filters_too() -> None:
    async with Cluster() as cluster:
        with pytest.raises(StoreError, match="nowhere"):
            await cluster.client.list_tasks(waiting="timer", after="nowhere")


class CountingStore(InMemoryStore):
    """Counts the records that lists of tasks return."""

    listed = 0

    async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
        records, after = await super().list_tasks(query)
        self.listed += len(records)
        return records, after


async def test_approvals_are_found_without_reading_the_other_open_tasks() -> None:
    store = CountingStore()
    async with Cluster(handlers=[work], store=store) as cluster:
        for number in range(150):
            waits = number % 50 == 7
            kind, io = ("approval", APPROVAL) if waits else ("sleep", SLEEP)
            await submit(cluster, f"t{number}", node("a", kind, io=io))
        await cluster.clock.sleep(1)
        store.listed = 0
        found = (await cluster.client.approvals()).items
        assert {one.task_id for one in found} == {"t7", "t57", "t107"}
        assert store.listed == 3


async def test_tasks_are_counted_up_to_a_limit() -> None:
    async with Cluster(handlers=[work]) as cluster:
        for number in range(3):
            await submit(cluster, f"t{number}", node("a", "unserved"))
        await submit(cluster, "sleeps", node("a", "sleep", io=SLEEP))
        client = cluster.client
        assert await client.count_tasks() == 4
        assert await client.count_tasks(waiting="timer") == 1
        assert await client.count_tasks(status="finished") == 0
        assert await client.count_tasks(most=2) == 2
        with pytest.raises(ValueError, match="limit is at least 1"):
            await client.count_tasks(most=0)


async def test_tasks_are_counted_by_the_reasons_of_their_failures() -> None:
    async with Cluster(handlers=[work]) as cluster:
        for code in ("late", "odd"):
            await cluster.run(graph(fails("a", code=code)))
        await cluster.clock.sleep(10)
        later = cluster.clock.now_dt() - timedelta(seconds=1)
        await cluster.run(graph(fails("a", code="late")))
        await cluster.clock.sleep(1)
        await cluster.run(graph(node("a", "work", io={"input_inline": {}})))
        count = cluster.client.count_reasons
        assert list((await count()).items()) == [("late", 2), ("odd", 1)]
        assert await count(status="failed", created_after=later) == {"late": 1}
        assert await count(most=1) == {}
        with pytest.raises(ValueError, match="limit is at least 1"):
            await count(most=0)


async def test_lists_have_the_nodes_that_are_asked_for() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await cluster.run(graph(node("a", "work", io={"input_inline": {}})))
        (full,) = (await cluster.client.list_tasks()).items
        (brief,) = (await cluster.client.list_tasks(nodes="none")).items
        assert list(full.nodes) == ["a"]
        assert brief == full.model_copy(update={"nodes": {}})
        with pytest.raises(ValueError, match="nodes is one of"):
            await cluster.client.list_tasks(nodes="some")


async def test_any_node_of_a_task_is_found_by_its_id() -> None:
    async with Cluster(handlers=[work]) as cluster:
        over = [{"index": number} for number in range(1_200)]
        view = await cluster.run(
            graph(node("m", "work", map={"over": over}, io={"input_inline": {}}))
        )
        assert "m[1100]" not in view.nodes
        client = cluster.client
        child = await client.get_node(view.id, "m[1100]")
        assert (child.status, child.result) == ("finished", 1)
        assert await client.get_node(view.id, "m") == view.nodes["m"]
        for unknown in ("m[1200]", "x"):
            with pytest.raises(TaskNotFound, match="has no node"):
                await client.get_node(view.id, unknown)


async def test_a_view_has_the_nodes_that_are_asked_for_and_always_its_result() -> None:
    flow = graph(
        node("m", "work", map={"over": [1, 2]}, io={"input_inline": {}}), node("end", "work", "m")
    )
    async with Cluster(handlers=[work]) as cluster:
        every = await cluster.run(flow)
        assert list(every.nodes) == ["m", "end", "m[0]", "m[1]"]
        client = cluster.client
        for shown, ids in [("all", [*every.nodes]), ("graph", ["m", "end"]), ("none", [])]:
            view = await client.get_task(every.id, nodes=shown)  # type: ignore[arg-type]
            assert view == every.model_copy(
                update={"nodes": {node_id: every.nodes[node_id] for node_id in ids}}
            )
        with pytest.raises(ValueError, match="nodes is one of all, graph, none, not 'some'"):
            await client.get_task(every.id, nodes="some")  # type: ignore[arg-type]


async def test_the_graph_of_a_task_is_as_it_was_written() -> None:
    flow = {"nodes": [node("a"), node("b")], "edges": [["a", "b"]]}
    async with Cluster(handlers=[work]) as cluster:
        await cluster.run(flow, task_id="t")
        assert await cluster.client.get_graph("t") == flow
        with pytest.raises(TaskNotFound):
            await cluster.client.get_graph("other")


async def test_approvals_of_one_task_are_found_by_its_id() -> None:
    async with Cluster(handlers=[work]) as cluster:
        for name in ("t1", "t2"):
            await submit(cluster, name, node("a", "approval", io=APPROVAL))
        await cluster.clock.sleep(1)
        client = cluster.client
        assert [one.task_id for one in (await client.approvals(task_id="t1")).items] == ["t1"]
        with pytest.raises(TaskNotFound):
            await client.approvals(task_id="other")


async def test_a_view_names_what_its_task_waits_for() -> None:
    nodes = [
        node("a", "wait_signal", io={"signal": "paid"}),
        node("b", "wait_signal", io={"signal": "paid"}),
        node("c", "approval", io={"prompt": "Go?"}),
        node("d", "unserved"),
    ]
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.create_task(graph=graph(*nodes), task_id="t")
        await cluster.clock.sleep(1)
        await cluster.client.create_task(graph=graph(node("e", "sleep", io={"for_sec": 60})))
        await cluster.clock.sleep(1)
        for shown in ("all", "none"):
            sleeping, waiting = (await cluster.client.list_tasks(nodes=shown)).items
            assert waiting.waits == (
                "signal 'paid'",
                "decision about 'c'",
                "worker of role 'unserved'",
            )
            assert sleeping.waits[0].startswith("the time 2")
        await cluster.clock.sleep(61)
        assert (await cluster.client.list_tasks(status="finished")).items[0].waits == ()


async def test_a_view_names_the_key_of_a_task_and_those_of_its_nodes() -> None:
    keyed = node("a", "sleep", io={"for_sec": 60})
    async with Cluster(handlers=[work]) as cluster:
        for _ in range(2):
            document = {**graph(keyed), "concurrency": {"key": "tenant"}}
            await cluster.client.create_task(graph=document)
            await cluster.clock.sleep(1)
        newest = (await cluster.client.list_tasks()).items[0]
        assert newest.waits == ("key 'tenant'",)

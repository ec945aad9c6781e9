"""Display of a task while it runs."""

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.cli._connection import closing
from flowkit.cli._live_view import event_line, follow, progress_table
from flowkit.cli._output import (
    compact,
    details,
    hidden_children,
    print_end,
    print_result,
    seconds_text,
    table,
)
from flowkit.cli._progress import BatchCounter, TaskProgress
from flowkit.config import CommonConfig
from flowkit.protocols import ArtifactRecord, Stream
from flowkit.task import NodeStatus, NodeView, TaskEvent, TaskStatus, TaskView
from flowkit.worker import Worker, handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import graph, node
from tests.cli.installations import ONE, STREAM, Installation, batches

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def fed(progress: TaskProgress, *items: tuple[str | None, str, Any]) -> TaskProgress:
    for number, (node_id, status, data) in enumerate(items, start=1):
        progress.apply(fed_event(node_id, status, data, number))
    return progress


def fed_event(node_id: str | None, status: str, data: Any, number: int = 1) -> TaskEvent:
    kind = status if status in ("progress", "children", "batch") else "status"
    return TaskEvent(
        seq=number,
        at=NOON + timedelta(seconds=number),
        task_id="t",
        node_id=node_id,
        kind=kind,
        status=status if kind == "status" else None,
        data=data,
    )


def test_an_attempt_that_was_handed_back_does_not_count():
    progress = fed(
        TaskProgress.of(["a"]),
        ("a", "queued", None),
        ("a", "running", {"worker_id": "w1"}),
        ("a", "queued", {"released_by": "w1"}),
        ("a", "queued", None),
        ("a", "running", {"worker_id": "w2"}),
    )
    assert (progress.nodes["a"].attempt, progress.nodes["a"].worker_id) == (1, "w2")


def test_a_failed_attempt_counts_and_says_why():
    node = fed(
        TaskProgress.of(["a"]),
        ("a", "running", {"worker_id": "w1"}),
        ("a", "deferred", {"reason_code": "net", "error": "gone", "attempt": 1}),
    ).nodes["a"]
    assert (node.attempt, node.note) == (1, "net: gone")
    fed(
        TaskProgress({"a": node}),
        ("a", "queued", None),
        ("a", "running", {"worker_id": "w1"}),
        ("a", "finished", None),
    )
    assert (node.attempt, node.note, node.seconds(NOON)) == (2, "", 1.0)


def test_a_node_that_waits_for_a_worker_again_is_shown_with_its_attempt():
    node = fed(TaskProgress.of(["a"]), ("a", "queued", None), ("a", "queued", {"attempt": 2}))
    assert node.nodes["a"].note == "attempt 2"


def test_of_many_nodes_those_that_run_are_shown_first():
    names = [f"n{number}" for number in range(100)]
    progress = fed(
        TaskProgress.of(names),
        *((name, "finished", None) for name in names[:50]),
        ("n70", "running", {}),
        ("n60", "failed", {}),
    )
    assert [node.node_id for node in progress.most_interesting(4)] == ["n48", "n49", "n60", "n70"]


def test_the_table_tells_how_many_nodes_it_leaves_out():
    progress = fed(
        TaskProgress.of(f"n{number}" for number in range(30)),
        (None, "running", None),
        ("n3", "running", {"worker_id": "w"}),
    )
    out = Console(width=100, record=True, file=io.StringIO())
    out.print(progress_table(progress, NOON + timedelta(seconds=4), height=14))
    text = out.export_text()
    assert "task running: 29 queued, 1 running (24 not shown)" in text
    assert [
        part.strip()
        for part in next(line for line in text.splitlines() if " n3 " in line).split("│")[1:-1]
    ] == ["n3", "running", "1", "", "", "2.00 s", "w"]


def test_the_table_says_which_nodes_skipped_batches_and_why_the_task_was_cancelled():
    progress = fed(
        TaskProgress.of(["a"]),
        ("a", "finished", {"skipped_batches": 2}),
        (None, "cancelled", "wrong month"),
    )
    out = Console(width=100, record=True, file=io.StringIO())
    out.print(progress_table(progress, NOON, height=14))
    text = out.export_text()
    assert "2 failed batches skipped" in text
    assert "task cancelled (wrong month): 1 finished" in text


def test_a_line_tells_what_happened_when():
    progress = fed(
        TaskProgress.of(["a"]), (None, "queued", None), ("a", "running", {"worker_id": "w"})
    )
    event = TaskEvent(
        seq=3,
        at=NOON + timedelta(seconds=2.5),
        task_id="t",
        node_id="a",
        kind="progress",
        data={"done": 1, "total": 4},
    )
    assert event_line(event, progress).plain == "    1.500 s  a  progress 1/4"


async def test_batches_are_counted_exactly_as_they_come():
    progress = TaskProgress.of(["a"])
    async with InMemoryStore() as store:
        counter = BatchCounter(store.artifacts, "t")
        for uids, partial, count in ((["0", "1"], True, 2), (["2"], True, 3), (["all"], False, 3)):
            await store.artifacts.put(
                [ArtifactRecord(Stream("t", "a"), uid, partial, None, b"{}", 1.0) for uid in uids]
            )
            await counter.update(progress)
            assert progress.nodes["a"].batches == count
        await store.artifacts.put(
            [ArtifactRecord(Stream("t", "a", 1), "0", True, None, b"{}", 2.0)]
        )
        await counter.update(progress)
        assert progress.nodes["a"].batches == 1


async def test_on_a_terminal_a_table_is_drawn_in_place():
    address = Installation().address
    out = Console(force_terminal=True, width=100, height=30, file=io.StringIO(), color_system=None)
    worker = Worker(cfg=WorkerConfig(db=address, worker_id="w"), handlers=[batches])
    async with Coordinator(cfg=CoordinatorConfig(db=address)) as coordinator, worker:
        view = await follow(coordinator, await coordinator.create_task(graph=STREAM), out)
    assert view.status == "finished"
    last = out.file.getvalue().rsplit("┏", 1)[1]  # type: ignore[attr-defined]
    row = next(line for line in last.splitlines() if line.startswith("│ a "))
    assert [cell.strip() for cell in row.split("│")[1:-1]][:4] == ["a", "finished", "1", "3"]
    assert "task finished: 1 finished" in last


async def test_two_events_of_a_node_that_look_the_same_are_one_line():
    @handler("numbers")
    async def numbers(item: int) -> AsyncIterator[dict[str, int]]:
        yield {"number": item}

    @handler("reads")
    async def reads(item: Any) -> None:
        pass

    shards = {"start_when": "first_batch", "shards": 2}
    sharded = graph(node("n", "numbers"), node("r", "reads", "n", io=shards))
    out, seen = Console(width=100, file=io.StringIO(), color_system=None), list[TaskEvent]()
    async with Cluster(handlers=[numbers, reads]) as cluster:
        task_id = (await cluster.run(sharded)).id
        await follow(cluster.client, task_id, out, notice=seen.append)

    queued = [event.at for event in seen if (event.node_id, event.status) == ("r", "queued")]
    assert queued == [queued[0]] * 2  # it is ready, and issued at once
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    texts = [line.partition(" r  ")[2].partition("  ")[0] for line in lines if " r  " in line]
    assert texts == ["running", "2 children", "first batch stored", "queued", "running", "finished"]


def test_values_are_shown_in_little_room():
    assert compact({"done": 3, "total": 8}) == "3/8"
    assert compact(0.25) == "25%"
    assert compact({"a": 1}) == '{"a": 1}'
    assert compact("x" * 100, 10) == "xxxxxxxxx…"
    assert compact(None) == ""


def test_durations_are_shown_with_what_matters():
    assert [seconds_text(value) for value in (None, 0.004, 12.34, 99.9, 125, 7260)] == [
        "",
        "0.00 s",
        "12.3 s",
        "99.9 s",
        "2 min 5 s",
        "2 h 1 min",
    ]


def printed(result: dict[str, Any]) -> str:
    out = Console(width=100, record=True, file=io.StringIO(), markup=False)
    print_result(out, result)
    return out.export_text()


def test_a_result_with_tables_is_shown_as_tables():
    tables = [
        {"title": "T", "columns": ["a", "b"], "rows": [["x", 1], ["y", None]]},
        {"columns": ["c"], "rows": []},
    ]
    text = printed({"n": {"tables": tables}})
    assert "│ x │ 1 │" in text
    assert "n:" not in text


def test_tables_of_another_form_are_shown_as_they_are():
    assert printed({"n": {"tables": [{"columns": ["a"], "rows": [["x", "too many"]]}]}}).startswith(
        'n: {"tables": [{"columns"'
    )


def test_results_that_are_null_are_shown():
    assert printed({"n": None, "m": {}}) == "n: null\nm: {}\n"
    assert printed(None) == "result: null\n"
    assert printed({"n": {"tables": [{"columns": ["a"], "rows": []}]}}).count(":") == 0


def test_numbers_stand_to_the_right_and_values_of_any_kind_are_shown():
    made = table(None, ["n", "v"], [[1, True], [2.5, {"a": [1]}]])
    assert [column.justify for column in made.columns] == ["right", "left"]
    out = Console(width=60, record=True, file=io.StringIO())
    out.print(made)
    text = out.export_text()
    assert '2.50 │ {"a": [1]}' in text
    assert "   1 │ yes" in text


async def test_a_task_that_is_left_in_the_middle_is_let_go():
    async with Client(cfg=CommonConfig(db=Installation().address)) as client:
        task_id = await client.create_task(graph=ONE)
        async with closing(client.watch(task_id)) as events:
            assert (await anext(events)).seq == 1


def test_children_of_a_map_are_counted_in_the_row_of_the_map():
    progress = fed(
        TaskProgress.of(["m", "m[0]", "x[1]"]),
        ("m", "running", None),
        ("m", "children", {"number": 1_500, "added": 1_500}),
        ("m[0]", "running", {"worker_id": "w"}),
        ("m[1]", "running", {"worker_id": "w"}),
        ("m[0]", "finished", None),
    )
    assert list(progress.nodes) == ["m", "x[1]"]
    assert progress.nodes["m"].children == {"running": 1, "finished": 1, "queued": 1_498}
    line = event_line(fed_event("m", "children", {"number": 3, "added": 3}), progress)
    assert line.plain.endswith("m  1500 children")
    fed(progress, ("m[1]", "failed", None), ("m", "failed", None))
    assert progress.nodes["m"].children == {"finished": 1, "failed": 1, "cancelled": 1_498}


def test_the_children_of_a_new_list_replace_those_of_the_last_one():
    progress = fed(
        TaskProgress.of(["m"]),
        ("m", "children", {"number": 2, "added": 2}),
        ("m[0]", "running", {"worker_id": "w"}),
        ("m[1]", "running", {"worker_id": "w"}),
        ("m[1]", "finished", None),
        ("m", "children", {"number": 3, "added": 3}),
        ("m[0]", "running", {"worker_id": "w"}),
    )
    assert progress.nodes["m"].children == {"running": 1, "queued": 2}


def test_a_view_that_leaves_out_children_is_counted_in_full():
    def node(name: str, **fields: Any) -> NodeView:
        return NodeView(node_id=name, type="t", status=NodeStatus.FINISHED, **fields)

    nodes = [node("a"), node("m", children={"finished": 1_200, "failed": 3}), node("m[0]")]
    view = TaskView(
        id="t",
        status=TaskStatus.FINISHED,
        created_at=NOON,
        nodes={one.node_id: one for one in nodes},
    )
    out = Console(file=io.StringIO(), width=200)
    print_end(out, view)
    assert "1205 nodes" in out.file.getvalue()  # type: ignore[attr-defined]
    assert hidden_children(view) == {"m": 1_202}
    assert details(nodes[1]) == "1200 finished, 3 failed"


def test_the_duration_of_a_retried_task_says_how_many_nodes_it_leaves_out():
    def node(name: str, began_sec: float) -> NodeView:
        at = NOON + timedelta(seconds=began_sec)
        done = NodeStatus.FINISHED
        return NodeView(node_id=name, type="t", status=done, started_at=at, finished_at=at)

    def ended(began_sec: float) -> str:
        task = TaskView(
            id="t",
            status=TaskStatus.FINISHED,
            created_at=NOON,
            started_at=NOON + timedelta(seconds=began_sec),
            finished_at=NOON + timedelta(seconds=101),
            nodes={name: node(name, sec) for name, sec in (("a", 1), ("b", 2), ("c", 100))},
            result={},
        )
        out = Console(file=io.StringIO(), width=200)
        print_end(out, task)
        return out.file.getvalue()  # type: ignore[attr-defined]

    assert ended(100) == (
        "task t finished: 3 nodes in 1.00 s since the retry, which kept 2 of them\n"
    )
    assert ended(1) == "task t finished: 3 nodes in 1 min 40 s\n"


def test_the_rounds_of_a_loop_are_one_attempt():
    wait = {"attempt": 1, "waiting": "timer", "until": "2030-01-01T12:01Z"}
    node = fed(
        TaskProgress.of(["l"]),
        ("l", "running", None),
        ("l", "deferred", wait),
        ("l", "queued", None),
        ("l", "running", {"attempt": 1}),
    ).nodes["l"]
    assert (node.attempt, node.started_at) == (1, NOON + timedelta(seconds=1))


def test_the_details_of_a_loop_name_its_round():
    fields = {"node_id": "l", "type": "loop", "child_task_id": "c2", "rounds": {1: "c1", 2: "c2"}}
    running = NodeView(status=NodeStatus.RUNNING, **fields)
    assert details(running) == "runs as task c2 (round 3)"
    waiting = {"waiting": "timer", "waiting_until": NOON}
    text = details(NodeView(status=NodeStatus.DEFERRED, **waiting, **fields))
    assert (text[:20], text[-15:]) == ("waits until 2030-01-", " before round 4")


def test_a_batch_that_the_record_of_its_node_has_kept_is_counted():
    progress = TaskProgress.of(["a"])
    fed(progress, ("a", "batch", None))
    assert progress.nodes["a"].batches == 1

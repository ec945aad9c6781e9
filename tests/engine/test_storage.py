"""The layout of a task in its record, and the parts that move to the archive."""

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit._engine import CommandsSent, SentCommand, Transition, VarsOp, advance
from flowkit._records.node_packs import MAX_PACK_BYTES, PACK_NODES, decode_pack
from flowkit._records.queries import records_of
from flowkit._records.record_parts import (
    KEEP_ENDED,
    KEEP_LOG_PARTS,
    RecordWriter,
    decode_log,
    decode_node,
    encode_node,
    node_part,
)
from flowkit._records.task_records import (
    PlanCache,
    decode_spec,
    decode_task,
    encode_spec,
    header_of,
)
from flowkit.errors import CorruptRecord
from flowkit.graph import Graph
from flowkit.protocols import ArchivedPart, Commit, TaskRecord
from flowkit.task import (
    ENDED,
    ChildLink,
    KeptArtifact,
    KeyClaim,
    NodeRecord,
    Resolution,
    SegmentIssue,
    Task,
    TaskSpec,
    Wait,
)
from flowkit.tracing import TraceContext
from tests.engine.drive import FUNCTION, NOON, Play, copy_of, graph


class Stored(Play):
    """A task whose changes are committed to a record and an archive, as in a store."""

    def __init__(self, flow: Graph, **more: Any) -> None:
        self.flow = flow
        self.version = 0
        self.parts: dict[str, bytes] = {}
        self.archive: dict[str, tuple[int, bytes]] = {}
        self.commits: list[Commit] = []
        super().__init__(flow, **more)
        assert self.version == 1
        self.commits.clear()

    def do(self, event: Any) -> Transition:
        step = advance(self.task, event, now=self.now, settings=self.settings)
        if step.ignored:
            return step
        step.apply()
        if not self.parts:
            self.writer = RecordWriter(self.task, {})
        self.writer.add(step)
        if not isinstance(event, CommandsSent):
            self.commit()
        return step

    @property
    def spec(self) -> bytes:
        return encode_spec(self.task.spec, self.flow.to_json())

    def commit(self) -> None:
        commit = self.writer.commit(self.task, f"op{len(self.commits)}")
        assert commit.expected_version == self.version
        assert not set(commit.put) & set(commit.drop)
        for part in commit.archive:
            if self.archive.get(part.name, (-1, b""))[0] < part.rank:
                self.archive[part.name] = (part.rank, part.data)
        for name in commit.drop:
            del self.parts[name]
        self.parts.update(commit.put)
        self.version += 1
        self.writer.committed(self.task, commit)
        self.commits.append(commit)
        assert self.task.version == self.version
        stored = {int(name[1:]) for name in self.parts if name[0] == "n"}
        assert set(self.writer.ended) == {
            index for index in stored if self.task.marks[index] in ENDED
        }

    def load(self) -> Task:
        """Return the task as another process reads it."""
        return decode_task(
            TaskRecord(header_of(self.task), self.spec, self.parts, version=self.version)
        )

    def reload(self) -> None:
        self.task = self.load()
        self.writer = RecordWriter(self.task, self.parts)

    def history(self) -> list[tuple[int, Any]]:
        """Return every change with its number, from the archive and the record."""
        parts = {name: data for name, (_, data) in self.archive.items() if name[0] == "e"}
        parts.update({name: data for name, data in self.parts.items() if name[0] == "e"})
        return [change for name in sorted(parts) for change in decode_log(name, parts[name], "t")]

    def records(self) -> dict[int, NodeRecord]:
        """Return the record of every node, as another process reads it."""
        task = self.load()
        return asyncio.run(records_of(self, task, range(len(task.marks))))

    async def read_archive(self, task_id: str, names: Collection[str]) -> dict[str, bytes]:
        return {name: self.archive[name][1] for name in names if name in self.archive}


def nodes_in(archive: Sequence[ArchivedPart]) -> dict[str, bytes]:
    """Return the parts of nodes among these archived parts and in their packs."""
    parts = {part.name: part.data for part in archive if part.name[0] == "n"}
    for pack in archive:
        if pack.name[0] == "p":
            parts |= {node_part(index): data for index, data in decode_pack(pack.data).items()}
    return parts


def assert_the_same(one: Task, other: Task) -> None:
    one, other = copy_of(one), copy_of(other)
    for task in (one, other):  # equal but for cached entries
        task.ready, task.ready_later = [], []
        if task.outcome:
            task.taken = task.empty = task.broken = []
    assert one == other


# ---------------------------------------------------------------- specs and records


def test_what_was_submitted_comes_back():
    flow = graph("a -> b", b={"io": {"input_inline": {"text": "line\nbreak"}}})
    spec = TaskSpec(
        "t",
        flow.plan,
        created_at=NOON,
        secret=b"\x00\xff",
        params={"n": [1, None, "ä"], "m": 2},
        defaulted=("m",),
        pipeline="p",
        labels={"team": "x"},
        priority=3,
        idempotency_key="once",
        deadline_sec=60.0,
        trace=TraceContext(f"00-{'1' * 32}-{'2' * 16}-01", "a=b"),
    )
    assert decode_spec("t", encode_spec(spec, flow.to_json())) == spec


def test_one_line_tells_of_the_task_and_one_has_its_graph():
    flow = graph("a")
    head, body = encode_spec(TaskSpec("t", flow.plan, NOON, b"key"), flow.to_json()).split(b"\n")
    assert json.loads(head)["v"] == 1
    assert "trace" not in json.loads(head)
    assert Graph.parse(body) == flow


def test_tasks_with_one_graph_share_its_plan_while_there_are_not_too_many():
    def specs(flow: Graph) -> bytes:
        return encode_spec(TaskSpec("t", flow.plan, NOON, b"key"), flow.to_json())

    first = specs(graph("first"))
    plan = decode_spec("t", first).plan
    for index in range(255):
        decode_spec("t", specs(graph(f"n{index}")))
    assert decode_spec("u", first).plan is plan
    for index in range(256):
        decode_spec("t", specs(graph(f"m{index}")))
    assert decode_spec("t", first).plan is not plan


FULL = NodeRecord(
    attempt=3,
    first_attempt=2,
    generation=1,
    handovers=4,
    sent=True,
    place=(2, 7),
    claimed=True,
    confirmed_at=1.75,
    has_batch=True,
    issued_at=1.5,
    first_issued_at=0.5,
    worker_id="w",
    started_at=2.0,
    heard_at=2.5,
    finished_at=3.0,
    next_retry_at=4.0,
    cancel_by=5.0,
    reason_code="boom",
    error="it broke",
    result={"n": [1, 2.5, None]},
    metrics={"n": 1, "x": 0.5},
    progress={"done": 3},
    batches=3,
    in_batches=True,
    pulled=True,
    retries={"number": 1, "tries": {"uid": 1}},
    held_up_by=("r", 5),
    skipped=2,
    letter=2,
    required=True,
    wait=Wait("signal", 9.5, {"signal": "go"}),
    ended_task=True,
    after=3,
    child=ChildLink(created=True, overdue=True, iteration=2, due=False, previous=[1]),
    resolution=Resolution("finished", "ann", "by hand", {"n": 1}),
    key=KeyClaim("k", 2, "held", 9.5),
    overdue=True,
    rate=KeyClaim("r", 3, "queued", 9.75),
    cache=KeyClaim("role:r", 3, "over", 8.5),
    cached=True,
    kept=(KeptArtifact("uid", True, {"x": [1, None]}, {"n": 1, "x": 0.5}, 2.75),),
    sharded_since=1.5,
    segment=SegmentIssue(3, 4, "ab"),
    promised=5,
)


def test_every_field_of_a_record_comes_back():
    assert all(
        getattr(FULL, field.name) != getattr(NodeRecord(), field.name)
        for field in fields(NodeRecord)
    )
    assert decode_node(encode_node(FULL), "t", "a") == FULL
    assert decode_node(encode_node(NodeRecord()), "t", "a") == NodeRecord()


def test_every_field_of_a_record_is_copied():
    assert FULL.copy() == FULL


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@given(JSON, JSON)
def test_results_and_progress_of_any_kind_are_read_as_they_were_stored(result: Any, progress: Any):
    record = decode_node(encode_node(NodeRecord(result=result, progress=progress)), "t", "a")
    assert (record.result, record.progress) == (result, progress)
    assert type(record.result) is type(result)


# ---------------------------------------------------------------- tasks


def test_a_new_record_holds_the_whole_task():
    flow = graph("f -> b", "a", f=FUNCTION)
    play = Stored(flow, deadline_sec=60)
    record = TaskRecord(header_of(play.task), play.spec, play.parts)
    assert set(record.parts) == {"state", "n0", "n2", "e0000000001"}
    assert (record.version, record.header.task_id, record.header.wake_at) == (1, "t", NOON + 5)
    task = decode_task(record)
    task.version = play.task.version
    assert_the_same(task, play.task)
    seen = decode_task(record, to_look_at=True)
    assert (seen.marks, seen.records, seen.taken) == (task.marks, task.records, [])


def test_a_commit_holds_what_changed_alone():
    play = Stored(graph("a b -> c"))
    play.starts("a")
    commit = play.commits[-1]
    assert set(commit.put) == {"state", "n0", "e0000000004"}
    assert (commit.task_id, commit.op_id, commit.expected_version, commit.status) == (
        "t",
        "op0",
        1,
        "running",
    )
    assert (commit.drop, commit.archive) == ([], [])


def test_vars_are_written_when_they_change():
    play = Stored(graph("f g -> a", f=FUNCTION, g=FUNCTION))
    play.returns("g")
    assert "vars" not in play.commits[-1].put
    play.returns("f", None, VarsOp("set", {"kv": {"x": {"y": [1]}}}))
    assert json.loads(play.commits[-1].put["vars"]) == {"x": {"y": [1]}}
    play.starts("a")
    assert "vars" not in play.commits[-1].put
    assert play.load().vars == {"x": {"y": [1]}}


def test_a_commit_tells_when_to_look_and_when_the_task_ended():
    play = Stored(graph("a"))
    play.starts("a")
    assert (play.commits[-1].wake_at, play.commits[-1].finished_at) == (NOON + 5, None)
    play.now += 2
    play.succeeds("a")
    assert (play.commits[-1].wake_at, play.commits[-1].finished_at, play.commits[-1].status) == (
        None,
        NOON + 2,
        "finished",
    )


def test_several_changes_go_into_one_commit():
    play = Play(graph("a b -> c"))
    writer = RecordWriter(play.task, {})
    for name in "ab":
        writer.add(play.succeeds(name))
    commit = writer.commit(play.task, "op")
    assert set(commit.put) == {"state", "n0", "n1", "n2", "e0000000004"}
    assert len(decode_log("e0000000004", commit.put["e0000000004"], "t")) == play.task.seq - 3


def test_a_change_without_history_writes_none():
    play = Stored(graph("a"))
    play.starts("a")
    play.stores_a_batch("a")
    play.stores_a_batch("a")
    assert set(play.commits[-1].put) == {"state", "n0"}


def test_what_was_sent_is_remembered_with_the_next_commit():
    play = Stored(graph("a b"))
    sent = CommandsSent(
        [
            SentCommand(0, 1, 0, (2, 7)),
            SentCommand(0, 1, 0, (2, 9)),
            SentCommand(1, 9, 0, None),
            SentCommand(1, 1, 5, None),
            SentCommand(7, 1, 0, None),
        ]
    )
    assert not play.do(sent).ignored
    assert play.writer.changed == {0}
    play.starts("b")
    assert [(record.sent, record.place) for record in play.load().records.values()] == [
        (True, (2, 7)),
        (True, None),
    ]
    assert play.writer.changed == set()


def test_the_history_is_numbered_without_a_gap():
    names = [f"n{index}" for index in range(200)]
    play = Stored(graph(" ".join(names), "n0 -> z"))
    for name in names:
        play.starts(name)
        play.progresses(name, name)
        play.succeeds(name)
    assert len([name for name in play.parts if name[0] == "e"]) <= KEEP_LOG_PARTS + 1
    assert any(name[0] == "e" for name in play.archive)
    history = play.history()
    assert [seq for seq, _ in history] == list(range(1, play.task.seq + 1))
    assert [entry[4] for _, entry in history if entry[2] == "progress"] == names


def test_the_history_goes_on_in_another_process():
    names = [f"n{index}" for index in range(200)]
    play = Stored(graph(" ".join(names)))
    for place, name in enumerate(names):
        play.succeeds(name)
        if place % 70 == 0:
            play.reload()
    assert [seq for seq, _ in play.history()] == list(range(1, play.task.seq + 1))


def test_nodes_that_ended_are_kept_while_they_are_few():
    play = Stored(graph(*(f"n{index} -> n{index + 1}" for index in range(KEEP_ENDED // 2))))
    for index in range(KEEP_ENDED // 2):
        play.succeeds(f"n{index}")
    assert play.archive == {} or all(name[0] == "e" for name in play.archive)


@pytest.mark.parametrize("reloads", [False, True])
def test_a_record_is_as_large_as_what_is_in_flight(reloads: bool):
    size = 4 * KEEP_ENDED
    play = Stored(graph(*(f"n{index} -> n{index + 1}" for index in range(size))), check=False)
    largest = 0
    for index in range(size):
        play.succeeds(f"n{index}", index)
        largest = max(largest, len([name for name in play.parts if name[0] == "n"]))
        if reloads and index % 100 == 0:
            play.reload()
    assert largest <= KEEP_ENDED + 3
    assert set(play.task.records) == {int(name[1:]) for name in play.parts if name[0] == "n"}
    records = play.records()
    assert [records[index].result for index in range(size)] == list(range(size))
    assert_the_same(play.load(), play.task)


def test_what_is_archived_was_stored_before():
    """A part moves to the archive in a later commit than the one that changes it."""
    size = 2 * KEEP_ENDED
    play = Stored(graph(*(f"n{index} -> n{index + 1}" for index in range(size))), check=False)
    for index in range(size):
        stored = dict(play.parts)
        play.succeeds(f"n{index}")
        commit = play.commits[-1]
        dropped = {name: stored[name] for name in commit.drop if name[0] == "n"}
        assert nodes_in(commit.archive) == dropped


def test_what_changes_in_a_commit_is_not_archived_by_it():
    names = [f"n{index}" for index in range(KEEP_ENDED - 1)]
    play = Stored(graph("a -> b", " ".join(names), on_node_failure="continue"))
    play.breaks("a")
    for name in names:
        play.succeeds(name)
    assert len(play.writer.ended) == KEEP_ENDED + 1
    play.retry("b")
    assert play.commits[-1].archive
    assert node_part(1) in play.commits[-1].put
    assert node_part(1) not in play.commits[-1].drop


def test_a_retry_brings_nodes_back_from_the_archive_and_to_it():
    size = 2 * KEEP_ENDED
    play = Stored(graph(*(f"n{index} -> n{index + 1}" for index in range(size))), check=False)
    for index in range(size):
        play.succeeds(f"n{index}", "first")
    play.breaks(f"n{size}")
    assert 0 not in play.task.records
    play.task.records.update(
        {
            index: record
            for index, record in play.records().items()
            if index not in play.task.records
        }
    )
    play.retry("n0")
    assert node_part(0) in play.parts
    assert play.task.records[0].generation == 1
    for index in range(size + 1):
        assert play.succeeds(f"n{index}", "first", attempt=1).ignored
        play.succeeds(f"n{index}", "second")
    records = play.records()
    assert {records[index].result for index in range(size + 1)} == {"second"}
    assert len([name for name in play.parts if name[0] == "n"]) <= KEEP_ENDED + 3
    assert all(mark in ENDED for mark in play.load().marks)


# ---------------------------------------------------------------- packs

SIZE = KEEP_ENDED + 2 * PACK_NODES


def wide(size: int = SIZE) -> Stored:
    """Return a task of independent nodes."""
    return Stored(graph(" ".join(f"n{index}" for index in range(size))), check=False)


def archived_names(play: Stored) -> set[str]:
    return {name for name in play.archive if name[0] in "np"}


def test_neighbours_that_ended_share_a_part_of_the_archive():
    play = wide()
    for index in range(SIZE):
        play.succeeds(f"n{index}", index)
    packs = (KEEP_ENDED // 2 + 1) // PACK_NODES + 1
    assert archived_names(play) == {f"p{number}" for number in range(packs)}
    assert {index: record.result for index, record in play.records().items()} == {
        index: index for index in range(SIZE)
    }
    assert_the_same(play.load(), play.task)


def test_a_node_that_runs_keeps_its_neighbours_until_too_many_have_ended():
    play = wide()
    play.starts("n5")
    for index in range(KEEP_ENDED + 1):
        if index != 5:
            play.succeeds(f"n{index}", index)
    assert archived_names(play) == set()
    play.succeeds(f"n{KEEP_ENDED + 1}")
    play.succeeds(f"n{KEEP_ENDED + 2}")
    assert "p0" not in archived_names(play)
    assert {"p1", "p2", "p3"} <= archived_names(play)
    assert node_part(0) in play.parts


def test_nodes_whose_neighbours_run_are_archived_one_by_one():
    play = wide(3 * SIZE)
    ended = range(0, 3 * SIZE, 2)
    for index in ended:
        play.succeeds(f"n{index}", index)
    assert {name[0] for name in archived_names(play)} == {"n"}
    assert len(play.writer.ended) <= KEEP_ENDED
    records = play.records()
    assert [records[index].result for index in ended] == list(ended)


def test_large_records_are_archived_one_by_one():
    play = wide(3 * PACK_NODES)
    for index in range(3 * PACK_NODES):
        play.succeeds(f"n{index}", "x" * (MAX_PACK_BYTES // 8))
    assert {name[0] for name in archived_names(play)} == {"n"}


def test_a_node_leaves_its_pack_when_it_runs_again():
    play = wide()
    for index in range(1, SIZE):
        play.succeeds(f"n{index}", index)
    play.breaks("n0")
    assert play.task.is_packed(40)
    play.task.records |= play.records()
    play.retry("n40")
    assert not play.load().is_packed(40)
    assert play.load().is_packed(41)
    play.succeeds("n40", "again")
    assert (play.records()[40].result, play.records()[41].result) == ("again", 41)
    assert play.load().packed == play.task.packed
    play.reload()
    assert (play.records()[40].result, play.records()[41].result) == ("again", 41)


def test_a_pack_is_replaced_by_one_with_all_of_its_nodes():
    """A reader of an older state of the task looks for all of them."""
    play = wide()
    for index in range(1, SIZE):
        play.succeeds(f"n{index}", "first")
    play.breaks("n0")
    before = play.load()
    assert [before.is_packed(index) for index in (0, PACK_NODES)] == [False, True]
    play.task.records |= play.records()
    play.retry(*(f"n{index}" for index in range(PACK_NODES, SIZE)))
    for index in range(PACK_NODES, SIZE):
        play.succeeds(f"n{index}", "second")
    assert play.task.is_packed(PACK_NODES)
    read = asyncio.run(records_of(play, before, range(PACK_NODES, 2 * PACK_NODES)))
    assert {record.result for record in read.values()} == {"second"}
    assert len(read) == PACK_NODES


@pytest.mark.parametrize(
    "packed", ["[[0,2]]", "[[1,0]]", "[[0,0],[0,1]]", "[[1,1],[0,0]]", "[[-1,0]]", "[[0]]"]
)
def test_a_state_whose_packs_do_not_fit_its_nodes_is_damaged(packed: str):
    play = Stored(graph("a b"))
    play.parts["state"] = play.parts["state"][:-1] + b',"packed":' + packed.encode() + b"}"
    with pytest.raises(CorruptRecord, match=r"packs do not fit|packed"):
        play.load()


@pytest.mark.parametrize("data", [b"", b"x {}", b'{"32":{}}'])
def test_a_pack_that_cannot_be_read_is_damaged(data: bytes):
    play = wide()
    for index in range(SIZE):
        play.succeeds(f"n{index}", index)
    play.archive["p1"] = (9, data)
    with pytest.raises(CorruptRecord, match="the pack 'p1' of task 't' cannot be read"):
        play.records()


# ---------------------------------------------------------------- plans


def test_plans_are_kept_up_to_a_number_of_nodes_and_the_last_one_in_any_case():
    sources = [
        Graph.parse({"nodes": [{"node_id": f"{name}{i}", "type": "w"} for i in range(3)]}).source
        for name in "abc"
    ]
    plans = PlanCache(max_plans=10, max_nodes=6)
    for source in sources:
        plans.get(source)
    assert [source in plans for source in sources] == [False, True, True]
    plans.get(sources[1])
    plans.get(sources[0])
    assert [source in plans for source in sources] == [True, True, False]
    small = PlanCache(max_plans=1, max_nodes=2)
    assert small.get(sources[0]) is small.get(sources[0])
    small.get(sources[1])
    assert [source in small for source in sources] == [False, True, False]

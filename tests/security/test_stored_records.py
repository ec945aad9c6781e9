"""A record with a changed state quarantines its own task and affects no other task."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import Graph
from flowkit._engine import EngineSettings
from flowkit._records.letter_records import read_letters
from flowkit._records.record_parts import decode_log, decode_node
from flowkit._records.task_records import decode_task
from flowkit._tasks.submission import submission
from flowkit.errors import CorruptRecord
from flowkit.protocols import Commit, TaskHeader, TaskRecord
from flowkit.task import TaskSpec
from flowkit_mongo._blobs import _read_inline
from flowkit_mongo._document_schemas import SHAPES
from flowkit_mongo._documents import inline, task_document, task_record, unreadable_task
from flowkit_testing import Cluster
from flowkit_testing._cluster import DAY
from tests.builders import TWO, work


def stored() -> TaskRecord:
    graph = Graph.parse(TWO)
    spec = TaskSpec("t", graph.plan, 1.0, b"0123456789abcdef", params={"n": 1})
    return submission(spec, graph.source, certainly_new=True, settings=EngineSettings()).record


WHOLE = stored()
STATE = json.loads(WHOLE.parts["state"])
HEAD = json.loads(WHOLE.spec.partition(b"\n")[0])
NODE = json.loads(WHOLE.parts["n0"])
RUNNING = {**NODE, "sent": True, "worker_id": "w", "started_at": 1.0, "heard_at": 1.0}


def changed(parts: Mapping[str, bytes | None], spec: bytes = WHOLE.spec) -> TaskRecord:
    merged = {name: data for name, data in {**WHOLE.parts, **parts}.items() if data is not None}
    return TaskRecord(TaskHeader("t", "queued", 1.0), spec, merged)


def dumped(value: Any, **fields: Any) -> bytes:
    return json.dumps({**value, **fields}).encode()


CORRUPT = {
    "no state": changed({"state": None}),
    "state is no JSON": changed({"state": b"\xff{"}),
    "state is a list": changed({"state": b"[]"}),
    "an unknown status": changed({"state": dumped(STATE, status="great")}),
    "too few marks": changed({"state": dumped(STATE, marks="q")}),
    "unknown marks": changed({"state": dumped(STATE, marks="q!")}),
    "marks that are no ASCII": changed({"state": dumped(STATE, marks="q\u00e9")}),
    "a count that is a text": changed({"state": dumped(STATE, seq="3")}),
    "a time that is no number": changed({"state": dumped(STATE, started_at="noon")}),
    "a time after the year 9999": changed({"state": dumped(STATE, finished_at=1e300)}),
    "a time that is infinite": changed({"state": dumped(STATE, started_at=float("inf"))}),
    "an output that is a text": changed({"state": dumped(STATE, output="x")}),
    "a delay after the year 9999": changed({"state": dumped(STATE, output={"since": 1e12})}),
    "a deadline after the year 9999": changed({"state": dumped(STATE, deadline_at=1e12)}),
    "deep state": changed({"state": b"[" * 100_000}),
    "vars are a list": changed({"vars": b"[]"}),
    "deep vars": changed({"vars": b'{"a":' * 1000 + b"1" + b"}" * 1000}),
    "a node that is not there": changed({"n7": dumped(NODE)}),
    "no record of a node that has begun": changed({"n0": None}),
    "a node without a number": changed({"nx": dumped(NODE)}),
    "a node that is a text": changed({"n0": b'"x"'}),
    "an attempt that is a text": changed({"n0": dumped(NODE, attempt="1")}),
    "a node's time after the year 9999": changed({"n0": dumped(NODE, next_retry_at=1e12)}),
    "metrics that are a list": changed({"n0": dumped(NODE, metrics=[1])}),
    "an attempt below zero": changed({"n0": dumped(NODE, attempt=-1)}),
    "an attempt that no message can name": changed({"n0": dumped(NODE, attempt=2**70)}),
    "a command without an attempt": changed({"n0": dumped(NODE, attempt=0)}),
    "a command of an attempt of an earlier run": changed({"n0": dumped(NODE, first_attempt=2)}),
    "a first attempt that no message can name": changed({"n0": dumped(NODE, first_attempt=2**63)}),
    "a first attempt of zero": changed({"n0": dumped(NODE, first_attempt=0)}),
    "a command whose record says nothing": changed({"n0": b"{}"}),
    "a running node without an attempt": changed(
        {"state": dumped(STATE, marks="u."), "n0": dumped(RUNNING, attempt=0)}
    ),
    "a running node without a worker's name": changed(
        {"state": dumped(STATE, marks="u."), "n0": dumped(RUNNING, worker_id="")}
    ),
    "a count of handovers below zero": changed({"n0": dumped(NODE, handovers=-1)}),
    "a generation below zero": changed({"n0": dumped(NODE, generation=-1)}),
    "a place before the first": changed({"n0": dumped(NODE, place=[0, -1])}),
    "retries of batches that are no counts": changed(
        {"n0": dumped(NODE, retries={"number": 1, "tries": {"u": "x"}})}
    ),
    "a change before the first": changed({"state": dumped(STATE, seq=-1)}),
    "a node that waits for a parent that has ended": changed({"state": dumped(STATE, marks="F.")}),
    "a first node that waits": changed({"state": dumped(STATE, marks="..")}),
    "an ended task with a node that has not ended": changed(
        {"state": dumped(STATE, status="finished")}
    ),
    "a running task without a node to run": changed(
        {"state": dumped(STATE, status="running", marks="FF")}
    ),
    "history of a node below the first": changed(
        {"e0000000001": b'[[1.0,-2,"status","queued",null]]'}
    ),
    "history that is an object": changed({"e0000000001": b"{}"}),
    "history of short entries": changed({"e0000000001": b"[[1.0]]"}),
    "history before the year 1": changed({"e0000000001": b'[[-1e12,0,"started",null,null]]'}),
    "history without a number": changed({"ex": b"[]"}),
    "no spec": changed({}, b""),
    "a spec of one line": changed({}, WHOLE.spec.partition(b"\n")[0]),
    "a graph that is none": changed({}, json.dumps(HEAD).encode() + b"\n{}"),
    "an edge to nowhere": changed(
        {},
        json.dumps(HEAD).encode() + b'\n{"nodes":[{"node_id":"a","type":"w"}],"edges":[["a","z"]]}',
    ),
    "a secret that is no hexadecimal number": changed(
        {}, dumped(HEAD, secret="zz") + b"\n" + WHOLE.spec.partition(b"\n")[2]
    ),
    "parameters that are a text": changed(
        {}, dumped(HEAD, params="x") + b"\n" + WHOLE.spec.partition(b"\n")[2]
    ),
    "submitted after the year 9999": changed(
        {}, dumped(HEAD, created_at=1e12) + b"\n" + WHOLE.spec.partition(b"\n")[2]
    ),
    "a later version": changed({}, dumped(HEAD, v=2) + b"\n" + WHOLE.spec.partition(b"\n")[2]),
}


def test_what_was_not_changed_is_read() -> None:
    assert decode_task(changed({})).spec.params == {"n": 1}


@pytest.mark.parametrize("record", CORRUPT.values(), ids=CORRUPT)
def test_a_record_that_was_changed_is_refused_as_such(record: TaskRecord) -> None:
    with pytest.raises(CorruptRecord, match="of task 't'|task 't' cannot be read"):
        decode_task(record)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"n0": b"{"}, "the record of node 'a' of task 't' cannot be read: Invalid JSON"),
        ({"n0": dumped(NODE, handovers=-1)}, "node 'a' of task 't' cannot be read: handovers: "),
        ({"n9": dumped(NODE)}, "task 't' cannot be read: ValueError: it has records of nodes"),
        ({"signals": b"[]"}, "the signals of task 't' cannot be read: Input should be"),
        ({"e0000000001": b"{}"}, "part e0000000001 of the history of task 't' cannot be read"),
    ],
    ids=["no JSON", "a field", "no node", "signals", "history"],
)
def test_the_error_names_the_task_and_what_is_damaged_in_it(
    parts: dict[str, bytes], message: str
) -> None:
    with pytest.raises(CorruptRecord) as caught:
        decode_task(changed(parts))
    assert message in str(caught.value)


@given(st.binary())
def test_parts_of_the_archive_are_read_or_refused(data: bytes) -> None:
    for read in (
        lambda data: decode_node(data, "t", "a"),
        lambda data: decode_log("e1", data, "t"),
    ):
        with contextlib.suppress(CorruptRecord):
            read(data)


def test_the_error_shows_nothing_of_what_is_stored() -> None:
    with pytest.raises(CorruptRecord) as caught:
        decode_task(changed({"state": dumped(STATE, status="tulip-bulbs")}))
    assert "tulip" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "name",
    [
        "state is no JSON",
        "unknown marks",
        "an attempt below zero",
        "a node that is not there",
        "history of short entries",
    ],
)
async def test_its_task_is_quarantined_once_and_the_others_go_on(name: str) -> None:
    async with Cluster(coordinators=0, handlers={"work": work}) as cluster:
        broken, whole = [await cluster.client.create_task(graph=TWO) for _ in range(2)]
        row = (await cluster.store.load([broken]))[broken]
        change = Commit(
            task_id=broken,
            expected_version=row.version,
            op_id="x",
            status="queued",
            wake_at=row.header.wake_at,
            finished_at=None,
            put=CORRUPT[name].parts,
        )
        assert await cluster.store.commit([change]) == [True]
        await cluster.add_coordinator()
        assert (await cluster.client.wait(whole, timeout=DAY)).status == "finished"
        # Every sweep finds it again.
        await cluster.clock.sleep(5 * DAY)
        letters = await read_letters(cluster.store, task_id=broken)
        listed = (await cluster.client.list_tasks()).items
        with pytest.raises(CorruptRecord):
            assert [event async for event in cluster.client.watch(broken)]
    assert [letter.kind for letter in letters] == ["task"]
    assert "CorruptRecord" in letters[0].error
    assert {view.id: view.status for view in listed} == {broken: "queued", whole: "finished"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spec", None),
        ("spec", 7),
        ("parts", []),
        ("parts", "x"),
        ("parts", {"state": 7}),
        ("parts", {"state": {"no": "blob"}}),
        ("created_at", "noon"),
        ("wake_at", "noon"),
        ("labels", 7),
        ("labels", [{"k": "a"}]),
        ("version", None),
        ("op_id", ...),
        ("created_at", 1e300),
        ("finished_at", 1e300),
        ("status", ...),
        ("created_at", ...),
        ("spec", ...),
        ("parts", ...),
        ("version", ...),
    ],
)
def test_a_document_that_was_changed_harms_no_other(field: str, value: Any) -> None:
    document = {**task_document(WHOLE, lambda name, data: inline(data)), field: value}
    if value is ...:
        del document[field]
    fault = SHAPES["tasks"].fault(document)
    assert fault is not None
    row = unreadable_task(document, fault)
    assert (row.header.task_id, row.spec, dict(row.parts)) == ("t", b"", {})
    with pytest.raises(CorruptRecord, match="not one that FlowKit wrote"):
        decode_task(row)


def test_a_document_that_was_not_changed_is_read() -> None:
    document = task_document(WHOLE, lambda name, data: inline(data))
    assert SHAPES["tasks"].fault(document) is None
    assert task_record(document, _read_inline) == WHOLE

"""Messages are validated strictly; the error names the place of the invalid value."""

import json
from typing import Any

import pytest

from flowkit import messages
from flowkit._json.limits import FIRST_MOMENT, LAST_MOMENT
from flowkit.errors import DecodeError, MessageError, MessageTooLarge
from flowkit.graph import RetryPolicy
from flowkit.messages import (
    AskRun,
    BatchesRetried,
    BatchRetries,
    BatchStored,
    CancelRun,
    ChildEnded,
    EndSegments,
    ExpressionData,
    NextStart,
    NodeFailed,
    NodeHeldUp,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
    RequestRuns,
    RunContextData,
    RunNode,
    RunsWaiting,
    ScheduleTouched,
    Segment,
    SegmentNode,
    Source,
    StreamMoved,
    StreamRead,
    TaskTouched,
    decode,
    encode,
)

IDS: dict[str, Any] = {"task_id": "t", "index": 3, "attempt": 1, "token": "ab"}
REPORT: dict[str, Any] = {**IDS, "worker_id": "w", "at": 1.5}
ALL: list[Any] = [
    RunNode(
        **IDS,
        node_id="n",
        role="r",
        data=RunContextData(
            io={"input_inline": {"a": [1, None, "é"]}},
            params={},
            vars={},
            results={"p": 1},
            errors={"q": {"attempt": 1}},
        ),
        sources=(Source(node_id="p", generation=2, ended=True),),
        progress={"done": 3},
        earlier_attempts=1,
        first_issued_at=1.5,
        retry_policy=RetryPolicy(max=4, permanent_on=("no",)),
        retries=BatchRetries(number=3, tries={"uid": 1}),
        on_batch_failure="skip",
        heartbeat_sec=2.0,
        segment=Segment(
            nodes=(
                SegmentNode(index=4, token="cd", node_id="n2", role="r", io={}, reads=("n",)),
                SegmentNode(index=5, token="ef", node_id="n3", role="s", io={"input_inline": 1}),
            ),
            eager=True,
            expressions=ExpressionData(created_at=1.5),
        ),
    ),
    EndSegments(task_id="t"),
    CancelRun(**IDS, reason="why"),
    AskRun(**IDS, worker_id="w"),
    StreamMoved(task_id="t", node_id="n", generation=1, ended=True),
    StreamRead(task_id="t", node_id="n", generation=1, reader="r", position=5, max_ahead=1000),
    RunsWaiting(worker_id="w", roles={"r": 3}),
    RequestRuns(worker_id="w", roles=("r",), most=2),
    NodeStarted(**REPORT),
    NodeProgressed(**REPORT, progress=[1]),
    BatchStored(**REPORT),
    BatchesRetried(**REPORT, retries=BatchRetries(number=4, tries={"uid": 2})),
    NodeHeldUp(**REPORT, reader="r", batches=1000),
    NodeSucceeded(**REPORT, started_at=1.0, result={"x": 1}, metrics={"n": 2, "f": 0.5}, batches=2),
    NodeSucceeded(**REPORT, started_at=1.0, next=NextStart(index=4, attempt=1, token="cd")),
    NodeFailed(**REPORT, started_at=1.0, reason_code="bad", permanent=True, error="no"),
    NodeStopped(**REPORT),
    NodeReleased(**REPORT, progress=1),
    TaskTouched(task_id="t"),
    ScheduleTouched(schedule_id="s"),
    ChildEnded(task_id="t", index=3),
]
STARTED = json.loads(encode(NodeStarted(**REPORT)))


def test_every_kind_is_here() -> None:
    assert {message.kind for message in ALL} == set(messages.KINDS)


@pytest.mark.parametrize("message", ALL, ids=lambda message: message.kind)
def test_a_message_is_read_as_it_was_written(message: Any) -> None:
    data = encode(message)
    assert decode(data) == message
    assert json.loads(data)["v"] == 1


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"", "message"),
        (b"\xff\xfe", "message"),
        (b"null", "message"),
        (b"[]", "message"),
        (b'"x"', "message"),
        (b"{", "message"),
        (b"{}", "kind"),
        (b'{"kind":null}', "kind"),
        (b'{"kind":"launch"}', "launch"),
        (json.dumps({**STARTED, "v": 2}).encode(), "v"),
        (json.dumps({**STARTED, "v": "1"}).encode(), "v"),
        (json.dumps({**STARTED, "colour": 1}).encode(), "colour"),
        (json.dumps({**STARTED, "index": -1}).encode(), "index"),
        (json.dumps({**STARTED, "index": "one"}).encode(), "index"),
        (json.dumps({**STARTED, "index": 2**70}).encode(), "index"),
        (json.dumps({**STARTED, "attempt": 0}).encode(), "attempt"),
        (json.dumps({**STARTED, "attempt": 1.5}).encode(), "attempt"),
        (json.dumps({**STARTED, "token": "x" * 65}).encode(), "token"),
        (json.dumps({**STARTED, "token": None}).encode(), "token"),
        (json.dumps({**STARTED, "token": "gu\u00e9ssed"}).encode(), "token"),
        (json.dumps({**STARTED, "token": "ab\n"}).encode(), "token"),
        (json.dumps({**STARTED, "task_id": "x" * 201}).encode(), "task_id"),
        (json.dumps({**STARTED, "task_id": 7}).encode(), "task_id"),
        (json.dumps({**STARTED, "at": "noon"}).encode(), "at"),
        (json.dumps({**STARTED, "at": float("nan")}).encode(), "at"),
        (json.dumps({**STARTED, "at": float("inf")}).encode(), "at"),
        (json.dumps({**STARTED, "at": 1e300}).encode(), "at"),
        (json.dumps({**STARTED, "at": LAST_MOMENT + 1}).encode(), "at"),
        (json.dumps({**STARTED, "at": FIRST_MOMENT - 1}).encode(), "at"),
        (
            json.dumps(
                {key: value for key, value in STARTED.items() if key != "worker_id"}
            ).encode(),
            "worker_id",
        ),
        (json.dumps({**STARTED, "kind": "node_succeeded"}).encode(), "started_at"),
        (
            json.dumps(
                {**STARTED, "kind": "node_succeeded", "started_at": 1, "metrics": {"n": "many"}}
            ).encode(),
            "metrics",
        ),
        (json.dumps({**STARTED, "kind": "run_node"}).encode(), "node_id"),
        (b"[" * 100_000, "message"),
        (b'{"kind":"task_touched","v":1,"task_id":"t"}{}', "message"),
    ],
)
def test_what_is_no_message_is_refused_with_its_place(data: bytes, place: str) -> None:
    with pytest.raises(DecodeError, match=place):
        decode(data)


def test_sizes_are_bounded_both_ways() -> None:
    message = TaskTouched(task_id="t" * 100)
    size = len(encode(message))
    assert len(encode(message, limit=size)) == size
    with pytest.raises(MessageTooLarge, match=f"{size} bytes is above the limit of {size - 1}"):
        encode(message, limit=size - 1)
    assert decode(encode(message), limit=size) == message
    with pytest.raises(DecodeError, match=f"{size} bytes is above the limit"):
        decode(encode(message), limit=size - 1)


def test_what_is_not_json_cannot_be_sent() -> None:
    with pytest.raises(MessageError, match="a NodeProgressed cannot be written as JSON"):
        encode(NodeProgressed(**REPORT, progress=object()))

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from flowkit.cli._timeline import draw, spans
from flowkit.task import TaskEvent

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def history(*items: tuple[float, str | None, str, Any]) -> list[TaskEvent]:
    """Return events at these seconds; each is a status or the word ``batch``."""
    return [
        TaskEvent(
            seq=number,
            at=NOON + timedelta(seconds=at),
            task_id="t",
            node_id=node_id,
            kind="batch" if status == "batch" else "status",
            status=None if status == "batch" else status,
            data=data,
        )
        for number, (at, node_id, status, data) in enumerate(items, start=1)
    ]


def summary(*items: tuple[float, str | None, str, Any]) -> list[tuple[str, str, str]]:
    return [(span.node_id, span.worker_id, span.ending) for span in spans(history(*items))]


def test_a_node_that_was_handed_back_has_a_span_for_each_worker():
    assert summary(
        (0, None, "running", None),
        (0, "a", "running", {"worker_id": "w1"}),
        (1, "a", "queued", {"released_by": "w1"}),
        (1, "a", "queued", None),
        (2, "a", "running", {"worker_id": "w2"}),
        (3, "a", "finished", None),
    ) == [("a", "w1", "handed back"), ("a", "w2", "finished")]


def test_a_failed_attempt_ends_its_span():
    assert summary(
        (0, "a", "running", {"worker_id": "w1"}),
        (1, "a", "deferred", {"reason_code": "x"}),
        (2, "a", "queued", None),
        (3, "a", "running", {"worker_id": "w1"}),
        (4, "a", "failed", {"reason_code": "x"}),
    ) == [("a", "w1", "to be retried"), ("a", "w1", "failed")]


def test_a_node_that_is_being_cancelled_still_runs():
    found = spans(
        history(
            (0, "a", "running", {"worker_id": "w"}),
            (1, "a", "cancelling", None),
            (3, "a", "cancelled", None),
        )
    )
    assert [(span.ending, span.ended_at) for span in found] == [
        ("cancelled", NOON + timedelta(seconds=3))
    ]


def test_bars_share_one_axis_and_show_the_first_batch():
    found = spans(
        history(
            (0, "a", "running", {"worker_id": "w1"}),
            (3, "a", "batch", None),
            (5, "b", "running", None),
            (10, "a", "finished", None),
            (10, "b", "finished", None),
        )
    )
    out = Console(width=120, record=True, file=io.StringIO())
    out.print(draw(found, room=72))
    lines = out.export_text().splitlines()
    assert lines[0].split() == ["node", "worker", "0", "s", "10.0", "s", "time", "end"]
    assert lines[1].split() == ["a", "w1", "██████◆█████████████", "10.0", "s", "finished"]
    assert lines[2].split() == ["b", "coordinator", "██████████", "5.00", "s", "finished"]
    assert lines[3] == "◆ first batch stored"


def test_a_wait_is_a_span_of_what_it_waits_for():
    assert summary(
        (0, "nap", "deferred", {"attempt": 1}),
        (1, "nap", "deferred", {"attempt": 1, "waiting": "timer", "until": "2030-01-01T12:01Z"}),
        (2, "dawn", "deferred", {"attempt": 1}),
        (9, "nap", "finished", None),
    ) == [("nap", "timer", "finished"), ("dawn", "coordinator", "waiting")]


def test_a_loop_with_pauses_has_a_span_for_each_round_and_each_pause():
    wait = {"attempt": 1, "waiting": "timer", "until": "2030-01-01T12:01Z"}
    assert summary(
        (0, "l", "running", None),
        (2, "l", "deferred", wait),
        (8, "l", "queued", None),
        (8, "l", "running", {"attempt": 1}),
        (9, "l", "finished", None),
    ) == [
        ("l", "coordinator", "to wait"),
        ("l", "timer", "queued"),
        ("l", "coordinator", "finished"),
    ]

"""Spans of attempts and batches that handlers change."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from threading import Barrier
from typing import Any

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode, TraceFlags

from flowkit.worker import handler
from flowkit_telemetry._deferred_spans import DeferredSpan
from flowkit_testing import Cluster
from tests.builders import ONE, graph, node, pages, pull
from tests.telemetry.spans import Recorded, links_of, parent_id, span_id

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
ABOVE, HERE = SpanContext(1, 2, True, SAMPLED), SpanContext(1, 3, False, SAMPLED)
ELSEWHERE = SpanContext(4, 5, True)
TIME = 1_000
THREADS, SPANS = 4, 50


async def changed(seen: Recorded, change: Callable[[Span], None]) -> ReadableSpan:
    """Run a node whose handler changes the span of its attempt, and return the recorded span."""

    @handler("work")
    async def work(item: Any) -> None:
        change(otel.get_current_span())

    async with Cluster(handlers=[work], plugins=[seen.plugin]) as cluster:
        await cluster.run(ONE)
    (span,) = [span for span in seen.all() if span.kind is SpanKind.CONSUMER]
    return span


def deferred(seen: Recorded, **attributes: str) -> DeferredSpan:
    return DeferredSpan(seen.provider, "attempt", HERE, ABOVE, SpanKind.CONSUMER, attributes)


async def test_a_handler_may_change_the_span_of_its_attempt() -> None:
    def change(span: Span) -> None:
        assert span.is_recording()
        span.set_attribute("color", "red")
        span.set_attributes({"sizes": [1, 2], "flowkit.node.role": "better"})
        span.add_event("seen", {"by": "me"}, TIME)
        span.record_exception(ValueError("bad"))
        span.add_link(ELSEWHERE, {"why": "same"})
        span.set_status(StatusCode.ERROR, "too red")
        span.update_name("red work")

    seen = Recorded()
    span = await changed(seen, change)
    assert span.name == "red work"
    assert parent_id(span) == span_id(seen.one("task"))
    assert dict(span.attributes) == {
        "flowkit.task.id": seen.one("task").attributes["flowkit.task.id"],
        "flowkit.node.id": "a",
        "flowkit.node.role": "better",
        "flowkit.node.attempt": 1,
        "flowkit.worker.id": span.attributes["flowkit.worker.id"],
        "color": "red",
        "sizes": (1, 2),
    }
    assert [(event.name, event.timestamp) for event in span.events[:1]] == [("seen", TIME)]
    assert span.events[1].attributes["exception.message"] == "bad"
    assert links_of(span) == [ELSEWHERE.span_id]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "too red")


async def test_a_span_that_is_changed_is_otherwise_like_one_that_is_not() -> None:
    seen, other = Recorded(), Recorded()
    plain = await changed(seen, lambda span: None)
    touched = await changed(other, lambda span: span.set_attribute("color", "red"))
    for same in ("name", "kind", "instrumentation_scope", "events", "links"):
        assert getattr(plain, same) == getattr(touched, same)
    assert plain.status.status_code is touched.status.status_code is StatusCode.UNSET
    assert plain.resource.attributes["service.name"] == "flowkit"
    assert plain.resource == touched.resource
    for span, record in ((plain, seen), (touched, other)):
        assert parent_id(span) == span_id(record.one("task"))
        assert span.start_time <= span.end_time


async def test_a_repeated_attempt_that_is_changed_keeps_its_id_and_its_link() -> None:
    seen = Recorded()

    @handler("flaky")
    async def flaky(item: Any) -> None:
        otel.get_current_span().set_attribute("color", "red")
        if len(seen.named("attempt flaky")) == 0:
            raise RuntimeError

    async with Cluster(handlers=[flaky], plugins=[seen.plugin]) as cluster:
        await cluster.run(graph(node("a", "flaky", retry_policy={"max": 1, "backoff_sec": 0.01})))
    first, second = seen.named("attempt flaky")
    assert links_of(second) == [span_id(first)]
    assert span_id(second) != span_id(first)


async def test_a_handler_may_change_the_span_of_a_batch() -> None:
    seen = Recorded()

    @handler("read")
    async def read(item: Any) -> Any:
        otel.get_current_span().set_attribute("color", "red")
        return item

    async with Cluster(handlers=[pages, read], plugins=[seen.plugin]) as cluster:
        await cluster.run(graph(node("a", "pages", io={"input_inline": 1}), pull("b", "read", "a")))
    batch, attempt = seen.one("batch", node_id="b"), seen.one("attempt read")
    assert batch.attributes["color"] == "red"
    assert parent_id(batch) == span_id(attempt)
    assert "color" not in attempt.attributes


async def test_a_handler_may_read_what_the_span_of_its_attempt_holds() -> None:
    read: dict[str, Any] = {}

    def look(span: Any) -> None:
        read.update(span.attributes, name=span.name, service=span.resource.attributes)

    seen = Recorded()
    span = await changed(seen, look)
    assert read.pop("name") == span.name == "attempt work"
    assert read.pop("service")["service.name"] == "flowkit"
    assert read == span.attributes


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_span_can_be_read_after_its_end_and_be_copied(is_changed: bool) -> None:
    seen = Recorded()
    span: Any = deferred(seen, color="red")
    twin = copy(span)
    if is_changed:
        span.set_attribute("color", "blue")
    span.end(TIME)
    assert (span.name, span.end_time) == ("attempt", TIME)
    assert span.attributes["color"] == ("blue" if is_changed else "red")
    assert twin.get_span_context() is span.get_span_context()
    with pytest.raises(AttributeError):
        span.unknown  # noqa: B018 - reading it is the test


@pytest.mark.parametrize("is_changed", [False, True])
def test_changes_after_the_end_of_a_span_are_ignored(is_changed: bool) -> None:
    seen = Recorded()
    span = deferred(seen, color="red")
    if is_changed:
        span.set_attribute("color", "blue")
    span.end(TIME)
    span.set_attribute("color", "green")
    span.end()
    (recorded,) = seen.all()
    assert recorded.attributes["color"] == ("blue" if is_changed else "red")
    assert recorded.end_time == TIME
    assert not span.is_recording()


def test_threads_may_change_a_span_at_the_same_time() -> None:
    seen, barrier = Recorded(), Barrier(THREADS)
    spans = [deferred(seen) for _ in range(SPANS)]

    def change(number: int) -> None:
        for span in spans:
            barrier.wait()
            span.set_attribute(str(number), number)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(change, range(THREADS)))
    finally:
        sys.setswitchinterval(before)
    for span in spans:
        span.end()
    numbers = [str(number) for number in range(THREADS)]
    assert [sorted(recorded.attributes) for recorded in seen.all()] == [numbers] * SPANS


@pytest.mark.parametrize("is_changed", [False, True])
def test_spans_keep_the_limits_of_attributes_of_opentelemetry(
    monkeypatch: pytest.MonkeyPatch, is_changed: bool
) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")
    seen = Recorded()
    span = deferred(seen, size="large", color="green", shape="round")
    if is_changed:
        span.add_event("seen")
    span.end()
    (recorded,) = seen.all()
    assert dict(recorded.attributes) == {"color": "gre", "shape": "rou"}
    assert recorded.dropped_attributes == 1

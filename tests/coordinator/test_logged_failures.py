"""Log lines of work that fails beside the other work of a coordinator."""

import logging

import pytest

from flowkit.coordinator._logged_failures import failures_logged
from flowkit.errors import StoreUnavailable
from flowkit.tracing import TraceContext, current_trace

TRACE = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


@pytest.mark.parametrize(
    ("error", "action"), [(StoreUnavailable("away"), "store_unavailable"), (ValueError(), "lost")]
)
def test_a_failure_is_logged_in_the_trace_of_its_task(
    error: Exception, action: str, caplog: pytest.LogCaptureFixture
) -> None:
    traces: list[TraceContext | None] = []
    caplog.handler.addFilter(lambda record: traces.append(current_trace()) is None)
    with failures_logged("It failed", action="lost", task_id="t1", trace=TRACE):
        raise error
    (record,) = caplog.records
    assert (record.__dict__["action"], record.levelno >= logging.WARNING) == (action, True)
    assert (traces, current_trace()) == ([TRACE], None)

"""Log lines of work that fails beside the other work of the coordinator."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from flowkit.errors import StoreError
from flowkit.tracing import TraceContext, use_trace

logger = logging.getLogger(__name__)


@contextmanager
def failures_logged(
    message: str, *, action: str, task_id: str, trace: TraceContext | None = None
) -> Iterator[None]:
    """Log the failure of some work of a task within its ``trace``, and go on. The wake-up of the
    task tries again.

    ``message`` and ``action`` are about other failures than an unavailable store.
    """
    try:
        yield
    except StoreError as error:
        with use_trace(trace):
            logger.warning(
                "The store is unavailable: %s",
                error,
                extra={"action": "store_unavailable", "task_id": task_id},
            )
    except Exception:
        with use_trace(trace):
            logger.exception(message, extra={"action": action, "task_id": task_id})

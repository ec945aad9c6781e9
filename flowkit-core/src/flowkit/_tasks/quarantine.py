"""Quarantine: a task that cannot be processed gets a dead letter with the reason."""

import logging
from hashlib import sha256

from flowkit._records.letter_records import letter_id, park_letters
from flowkit._runtime.concurrency import Recent
from flowkit._text.redaction import redacted, writable
from flowkit._user_code.containment import (
    error_text,
    error_type,
    origin,
    traceback_text,
    undo_cancellation,
)
from flowkit._user_code.failure_logs import log_failure
from flowkit.errors import CorruptRecord, MessageTooLarge, PayloadError
from flowkit.measures import Measure
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Store
from flowkit.task import DeadLetter

logger = logging.getLogger(__name__)

MAX_REASON_CHARS = 20_000
MAX_REMEMBERED = 50_000
"""Tasks of which the last logged defect is remembered."""


class Quarantine:
    """Dead letters of tasks that cannot be processed. Other tasks continue."""

    def __init__(self, *, store: Store, clock: Clock, plugins: Plugins) -> None:
        self._store = store
        self._clock = clock
        self._plugins = plugins
        self._logged: Recent[str, str] = Recent(MAX_REMEMBERED)
        """Digests of the defects that were logged, by task."""

    async def add(self, task_id: str, error: BaseException) -> None:
        """Store a dead letter of a task with this error.

        The same defect leaves one dead letter, and one log line of this process, however often it
        occurs.

        Raises:
            StoreError: the dead letter was not stored.
        """
        error = origin(error)
        text = writable(redacted(_reason(error)), most=MAX_REASON_CHARS)
        digest = sha256(text.encode()).hexdigest()[:8]
        is_new = self._logged.get(task_id) != digest
        if is_new:
            self._log(task_id, error)
            self._logged[task_id] = digest
        letter = DeadLetter(
            letter_id=letter_id("task", text.encode(), task_id),
            at=self._clock.now(),
            kind="task",
            reason_code="quarantined",
            error=text,
            task_id=task_id,
        )
        await park_letters(self._store, [letter])
        if is_new:
            self._plugins.measure(Measure("dead_letters", 1, {"kind": "task"}))
            await undo_cancellation()

    def _log(self, task_id: str, error: BaseException) -> None:
        extra = {"action": "task_quarantined", "task_id": task_id}
        if isinstance(error, CorruptRecord):
            logger.error("Task %s is quarantined: %s", task_id, error, extra=extra)
            return
        # The texts of these errors name the message and the reason, and show no content.
        is_safe = isinstance(error, MessageTooLarge | PayloadError)
        log_failure(
            logger,
            self._plugins,
            "Task %s is quarantined, %s",
            task_id,
            str(error) if is_safe else error_type(error),
            text=error_text(error),
            error=error,
            level=logging.ERROR,
            extra=extra,
        )


def _reason(error: BaseException) -> str:
    """Return the text of an error, and its traceback below. The traceback of a damaged record says
    nothing about the damage.
    """
    text = error_text(error)
    return text if isinstance(error, CorruptRecord) else f"{text}\n\n{traceback_text(error)}"

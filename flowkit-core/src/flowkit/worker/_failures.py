"""Failures of attempts and batches: from an error to the reason code and text of its report."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from flowkit._user_code.containment import contained, error_text, message, origin
from flowkit._user_code.failure_logs import log_failure
from flowkit._user_code.reason_codes import (
    carried_reason,
    checked_reason,
    default_classification,
    shown_reason,
)
from flowkit.errors import NodeFailure
from flowkit.graph import NodeSpec
from flowkit.messages import RunNode
from flowkit.plugins import Plugins
from flowkit.worker._handlers import Handler

logger = logging.getLogger(__name__)

Classify = Callable[[BaseException], tuple[str, bool]]


class BatchFailure(NodeFailure):
    """A failure that ``process_batch`` returned as its result."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reported part of a failure."""

    reason_code: str
    permanent: bool
    error: str


class BatchFailed(Exception):
    """The failure of a batch that fails the attempt of the node.

    The handler's error is the cause.
    """

    def __init__(self, verdict: Verdict, *, parked: bool) -> None:
        """``parked`` says that the batch is stored as a dead letter."""
        super().__init__(verdict.error)
        self.verdict = verdict
        self.parked = parked


Judge = Callable[[BaseException], Awaitable[Verdict]]


def judge(
    raised: BaseException,
    command: RunNode,
    *,
    io: dict[str, Any],
    plugins: Plugins,
    classify: Classify | None,
) -> Verdict:
    """Return the verdict about an error.

    The reason code is the error's own if it has one, else a plugin's, else the handler's, else that
    of its type. The first three may also make it permanent. For its type only ``permanent_on``
    decides, which contains ``bad_input`` by default.
    """
    error = origin(raised)
    reason, permanent = (
        carried_reason(error)
        or _by_plugins(error, command, io, plugins)
        or _by_handler(error, command, classify, plugins)
    )
    text = message(error) if isinstance(error, BatchFailure) else error_text(raised)
    return Verdict(
        shown_reason(reason), permanent or reason in command.retry_policy.permanent_on, text
    )


def _by_plugins(
    error: BaseException, command: RunNode, io: dict[str, Any], plugins: Plugins
) -> tuple[str, bool] | None:
    if not plugins.asks("flowkit_classify_error"):
        return None
    try:
        node = NodeSpec.model_validate({"node_id": command.node_id, "type": command.role, "io": io})
        answer = plugins.first(
            "flowkit_classify_error", check=checked_reason, error=error, node=node
        )
    except Exception as failed:
        log_failure(
            logger,
            plugins,
            "No plugin could classify the error",
            text=error_text(failed),
            error=failed,
            level=logging.ERROR,
            extra={"action": "classify_failed", "task_id": command.task_id},
        )
        return None
    return None if answer is None else answer.value


def own_classification(handler: object) -> Classify | None:
    """Return the ``classify_error`` that a handler overrides, if it does."""
    classify = handler.classify_error if isinstance(handler, Handler) else None
    return None if getattr(classify, "__func__", None) is Handler.classify_error else classify


def _by_handler(
    error: BaseException, command: RunNode, classify: Classify | None, plugins: Plugins
) -> tuple[str, bool]:
    if classify is None:
        return default_classification(error)[0], False
    try:
        return contained(lambda: checked_reason(classify(error)))
    except Exception as failed:
        log_failure(
            logger,
            plugins,
            "classify_error of role %s raised",
            command.role,
            text=error_text(failed),
            error=origin(failed),
            level=logging.ERROR,
            extra={"action": "classify_failed", "task_id": command.task_id},
        )
        return "unexpected_error", False


def unclassified(error: BaseException) -> Verdict:
    """Return the verdict about an error that could not be classified."""
    return Verdict("unexpected_error", False, error_text(error))

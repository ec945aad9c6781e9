"""Every error FlowKit raises on purpose, in one tree.

::

    FlowKitError ├── ConfigError            a configuration field is unknown, ill-typed or missing
    ├── GraphError             a graph has faults; all of them are listed ├── NotRunning
    a verb was called before ``start`` or after ``stop`` ├── WorkerIdTaken          another live
    worker has this worker_id ├── TaskNotFound           no task has this id ├── TaskRefused
    a plugin refused the submission, its id is taken, or the task's state refuses the verb ├──
    PluginError            a plugin is misspelt, wrongly shaped, or clashes with another ├──
    MessageError │   ├── DecodeError        bytes on the bus are not a message this version knows │
    └── MessageTooLarge    a message is above the bus's limit ├── BusError │   └── BusUnavailable
    the bus cannot be reached; whether anything was sent is unknown │       └── TopicUnavailable
    one topic cannot be used; the others are not affected ├── StoreError │   ├── StoreUnavailable
    the store cannot be reached; whether anything was written is unknown │   ├── RecordTooLarge
    one record is above the store's limit │   └── RecordRefused      the store never accepts this
    change of one record ├── CorruptRecord          what a store holds of a task is not what was
    written ├── PayloadError           a codec cannot encode or decode a payload ├── NodeFailure
    a node's work failed with a reason code │   ├── InputAdapterError  an input adapter is unknown
    or wrongly called │   └── VarsError          a coordinator function refused its arguments └──
    RunCancelled           raised inside a handler whose run was cancelled
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flowkit._text.redaction import shortened

LONGEST_FAULT = 1_000
"""Characters of one fault in the text of a ``GraphError``. Names in it are cut to 80 characters
each.
"""


class FlowKitError(Exception):
    """The root of FlowKit's errors."""


class ConfigError(FlowKitError, ValueError):
    """A configuration is wrong; the message names the field and where it came from."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a graph: the node it is in (None: the graph itself) and a
    sentence.
    """

    node_id: str | None
    message: str

    def __str__(self) -> str:
        return self.message if self.node_id is None else f"node {self.node_id!r}: {self.message}"


MAX_NAMED_FAULTS = 20


class GraphError(FlowKitError, ValueError):
    """A graph cannot be run. ``faults`` lists all its faults; the error's text names the first 20
    and counts the rest.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        text = "; ".join(
            shortened(str(fault), LONGEST_FAULT) for fault in self.faults[:MAX_NAMED_FAULTS]
        )
        more = len(self.faults) - MAX_NAMED_FAULTS
        super().__init__(
            f"{text}; and {more} more faults"
            if more > 1
            else f"{text}; and 1 more fault"
            if more == 1
            else text
        )


class NotRunning(FlowKitError, RuntimeError):
    """A verb was called on an object that is not started, or is stopped; nothing was done."""


class WorkerIdTaken(FlowKitError):
    """Another live worker has the same ``worker_id``; the message says where it runs."""


class TaskNotFound(FlowKitError, LookupError):
    """No task has this id, or the task has no node with this ``node_id``."""

    def __init__(self, task_id: str, *, node_id: str | None = None) -> None:
        self.task_id = task_id
        self.node_id = node_id
        task, node = repr(shortened(task_id, 200)), repr(shortened(node_id or "", 200))
        super().__init__(
            f"there is no task {task}" if node_id is None else f"task {task} has no node {node}"
        )


class TaskRefused(FlowKitError):
    """A submission or a verb was refused; the message says by whom and why."""


class PluginError(FlowKitError):
    """A plugin cannot be used; the message names it and says what is wrong."""


class MessageError(FlowKitError, ValueError):
    """A message cannot be sent or read."""


class DecodeError(MessageError):
    """Bytes from the bus are not a message of a known kind and version."""


class MessageTooLarge(MessageError):
    """A message is larger than its bus takes; nothing was sent."""


class BusError(FlowKitError):
    """Something went wrong on the message bus."""


class BusUnavailable(BusError):
    """The bus did not confirm. What was under way may or may not have been sent."""


class TopicUnavailable(BusUnavailable):
    """One topic is missing, has no leader, or may not be used with the rights of this user. Other
    topics are not affected.
    """


class StoreError(FlowKitError):
    """Something went wrong in the store."""


class StoreUnavailable(StoreError):
    """The store did not confirm. What was under way may or may not have been written."""


class RecordTooLarge(StoreError):
    """One record is larger than the store takes; nothing was written."""


class RecordRefused(StoreError):
    """The store never accepts this change of one record, for instance because the stored record is
    damaged. Nothing of it was written.
    """


class CorruptRecord(FlowKitError, ValueError):
    """A store holds something of a task that FlowKit did not write: it cannot be decoded. Reading
    it again does not help.
    """


class PayloadError(FlowKitError):
    """A plugin cannot encode or decode a payload: it was changed, or the plugin has not the key;
    the message names the plugin.
    """


class NodeFailure(FlowKitError):
    """A node's work failed.

    A handler may raise it to choose the reason code and whether a retry makes sense by itself,
    past :meth:`~flowkit.worker.Handler.classify_error`.
    """

    def __init__(
        self, message: str, *, reason_code: str = "unexpected_error", permanent: bool = False
    ) -> None:
        self.reason_code = reason_code
        self.permanent = permanent
        super().__init__(message)


class InputAdapterError(NodeFailure):
    """An input adapter is unknown (``bad_input_adapter``) or wrongly called
    (``bad_input_args``).
    """

    def __init__(self, message: str, *, reason_code: str) -> None:
        super().__init__(message, reason_code=reason_code, permanent=True)


class VarsError(NodeFailure):
    """A coordinator function refused its arguments; nothing was changed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason_code="bad_input", permanent=True)


class RunCancelled(FlowKitError):
    """The run was cancelled; raised by :meth:`~flowkit.worker.RunContext.raise_if_cancelled`."""

"""Errors that FlowKit raises.

::

    FlowKitError
    ├── ConfigError            a configuration field is unknown, has a wrong value or is missing
    ├── GraphError             a graph has faults; the error lists all of them
    ├── NotRunning             a verb was called before ``start`` or after ``stop``
    ├── WorkerIdTaken          another live worker has this worker_id
    ├── TaskNotFound           no task has this id
    ├── FlowNotFound           no flow has this name, or the flow has no such version
    ├── ScheduleNotFound       no schedule has this id
    ├── ScheduleRefused        a schedule cannot be put or changed in this way
    ├── TriggerNotFound        no trigger has this id
    ├── TriggerRefused         a trigger cannot be put in this way
    ├── TaskRefused            a plugin refused the submission, the id is taken,
    │   │                      or the task's state does not allow the verb
    │   ├── SignalRefused      the task has ended, or no node waits for such a signal
    │   ├── AlreadyDecided     another decision about the approval came first
    │   └── NotAssigned        this person may not decide about the approval
    ├── PluginError            a plugin has a wrong hook, or clashes with another plugin
    ├── MessageError
    │   ├── DecodeError        bytes on the bus are not a message that this version knows
    │   └── MessageTooLarge    a message is above the bus's limit
    ├── BusError
    │   └── BusUnavailable     the bus cannot be reached; messages may or may not have been sent
    │       └── TopicUnavailable   one topic cannot be used; the others are not affected
    ├── StoreError
    │   ├── StoreUnavailable   the store cannot be reached; a write may or may not have happened
    │   ├── RecordTooLarge     a record is above the store's limit
    │   └── RecordRefused      the store cannot apply this change of a record, now or later
    ├── CorruptRecord          a stored record cannot be decoded
    ├── PayloadError           a plugin cannot encode or decode a payload
    ├── InvalidExport          an export file is damaged, incomplete or of another version
    ├── NodeFailure            a node's work failed with a reason code
    │   ├── InputAdapterError  an input adapter is unknown or has wrong arguments
    │   └── VarsError          a coordinator function refused its arguments
    └── RunCancelled           raised inside a handler whose run was cancelled
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flowkit._text.redaction import shortened

LONGEST_FAULT = 1_000
"""Length of one fault in the text of a ``GraphError``. Names in it are cut to 80 characters."""


class FlowKitError(Exception):
    """Base class of FlowKit's errors."""

    remedy = ""
    """Advice of what to do, with which the message ends. It is empty if the error has none."""

    @property
    def fault(self) -> str:
        """The message without the remedy."""
        return str(self).removesuffix(f"; {self.remedy}")


class ConfigError(FlowKitError, ValueError):
    """A configuration is wrong. The message names the field and the source of the value."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Fault of a graph: the node that has it (None: the graph itself) and a sentence about it."""

    node_id: str | None
    message: str

    def __str__(self) -> str:
        return self.message if self.node_id is None else f"node {self.node_id!r}: {self.message}"


MAX_NAMED_FAULTS = 20


class GraphError(FlowKitError, ValueError):
    """A graph cannot be run.

    ``faults`` lists all its faults. The text names the first 20 and counts the rest.
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
    """Another live worker has the same ``worker_id``. The message names its process and host."""

    process = "another process"
    """The process and host of the other worker."""


class TaskNotFound(FlowKitError, LookupError):
    """No task has this id, or the task has no node with this ``node_id``."""

    def __init__(self, task_id: str, *, node_id: str | None = None, why: str = "") -> None:
        self.task_id = task_id
        self.node_id = node_id
        task, node = repr(shortened(task_id, 200)), repr(shortened(node_id or "", 200))
        super().__init__(
            f"there is no task {task}"
            if node_id is None
            else f"task {task} has no node {node}{f': {why}' if why else ''}"
        )


def _question(near: str | None) -> str:
    return "" if near is None else f"; did you mean {near!r}?"


class FlowNotFound(FlowKitError, LookupError):
    """No registered flow has this name, or the flow has no such version. ``near`` is a similar
    name that exists.
    """

    def __init__(self, name: str, version: int | None = None, *, near: str | None = None) -> None:
        self.name = name
        self.version = version
        flow = repr(shortened(name, 200))
        super().__init__(
            f"there is no flow {flow}{_question(near)}"
            if version is None
            else f"flow {flow} has no version {version}"
        )


class ScheduleNotFound(FlowKitError, LookupError):
    """No schedule has this id. ``near`` is a similar one that exists."""

    def __init__(self, schedule_id: str, *, near: str | None = None) -> None:
        self.schedule_id = schedule_id
        name = repr(shortened(schedule_id, 200))
        super().__init__(f"there is no schedule {name}{_question(near)}")


class ScheduleRefused(FlowKitError, ValueError):
    """A schedule cannot be stored or changed as asked; nothing was changed."""


class TriggerNotFound(FlowKitError, LookupError):
    """No trigger has this id. ``near`` is a similar one that exists."""

    def __init__(self, trigger_id: str, *, near: str | None = None) -> None:
        self.trigger_id = trigger_id
        name = repr(shortened(trigger_id, 200))
        super().__init__(f"there is no trigger {name}{_question(near)}")


class TriggerRefused(FlowKitError, ValueError):
    """A trigger cannot be stored as asked; nothing was changed."""


class TaskRefused(FlowKitError):
    """A submission or a verb was refused. The message says why, and names the plugin if one did."""


class SignalRefused(TaskRefused):
    """A signal was refused, and nothing was stored. The message says why."""


class AlreadyDecided(TaskRefused):
    """An approval was decided before. The message says by whom."""


class NotAssigned(TaskRefused):
    """A person is none of the assignees of an approval. The message names some of them."""


class PluginError(FlowKitError):
    """A plugin cannot be used. The message names the plugin and its fault."""


class MessageError(FlowKitError, ValueError):
    """A message cannot be sent or read."""


class DecodeError(MessageError):
    """Bytes from the bus are not a message of a known kind and version."""


class MessageTooLarge(MessageError):
    """A message is larger than its bus accepts; nothing was sent."""


class BusError(FlowKitError):
    """An operation of the message bus failed."""


class BusUnavailable(BusError):
    """The bus did not confirm an operation. Its messages may or may not have been sent."""


class TopicUnavailable(BusUnavailable):
    """One topic is missing, has no leader, or is forbidden to this user.

    Other topics are not affected.
    """


class StoreError(FlowKitError):
    """An operation of the store failed."""


class StoreUnavailable(StoreError):
    """The store did not confirm an operation. It may or may not have been applied."""


class RecordTooLarge(StoreError):
    """One record is larger than the store accepts; nothing was written."""


class RecordRefused(StoreError):
    """The store cannot apply this change of one record, now or later; no part of it was written.

    The stored record may be damaged, for example.
    """


class CorruptRecord(FlowKitError, ValueError):
    """A record of a task in the store cannot be decoded. Reading it again does not help, unless a
    coordinator that has the task in its memory has replaced what is damaged.
    """


class PayloadError(FlowKitError):
    """A plugin cannot encode or decode a payload. The message names the plugin.

    The payload was changed, for example, or the plugin does not have the key.
    """


class InvalidExport(FlowKitError, ValueError):
    """An export file is damaged, incomplete or of another version. The message names the line."""


class NodeFailure(FlowKitError):
    """A node's work failed.

    A handler may raise this error to choose the reason code and whether the failure is permanent.
    :meth:`~flowkit.worker.Handler.classify_error` is then not called.
    """

    def __init__(
        self, message: str, *, reason_code: str = "unexpected_error", permanent: bool = False
    ) -> None:
        self.reason_code = reason_code
        self.permanent = permanent
        super().__init__(message)


class InputAdapterError(NodeFailure):
    """An input adapter is unknown, or has wrong arguments.

    The reason codes are ``bad_input_adapter`` and ``bad_input_args``.
    """

    def __init__(self, message: str, *, reason_code: str) -> None:
        super().__init__(message, reason_code=reason_code, permanent=True)


class VarsError(NodeFailure):
    """A coordinator function refused its arguments; nothing was changed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason_code="bad_input", permanent=True)


class RunCancelled(FlowKitError):
    """The run was cancelled; from :meth:`~flowkit.worker.RunContext.raise_if_cancelled`."""

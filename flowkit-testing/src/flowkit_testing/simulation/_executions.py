"""Executions: the calls of handlers that a simulation records."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Execution:
    """A call of a handler.

    It is the call of a function, or of ``init`` or ``process_batch`` (with its ``batch_uid``) of a
    handler class.
    """

    at: float
    process: str
    task_id: str
    node_id: str
    attempt: int
    batch_uid: str | None = None

    def __str__(self) -> str:
        batch = "" if self.batch_uid is None else f" batch {self.batch_uid!r}"
        return (
            f"{self.at:.3f} s: {self.node_id!r} of {self.task_id} attempt {self.attempt}{batch} on"
            f" {self.process}"
        )

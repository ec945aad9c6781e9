"""Sentences about processes that a task needs and that do not run."""

from collections.abc import Collection

from flowkit._records.heartbeats import (
    is_silent,
    process_is_gone,
    process_of,
    silence_sec,
)
from flowkit._records.worker_sessions import WorkerSession


def missing_worker(sessions: Collection[WorkerSession], worker_id: str, now: float) -> str | None:
    """Return a sentence about the worker of a node if it has no heartbeat, or None if it has."""
    found = [session for session in sessions if session.worker_id == worker_id]
    if not found:
        return f"Worker {worker_id!r} has ended."
    (session,) = found
    if not is_silent(session, now):
        return None
    return f"Worker {worker_id!r} ({process_of(session)}) {_silence(session, now)}."


def missing_coordinator(sessions: Collection[WorkerSession], now: float) -> str | None:
    """Return a sentence about the coordinators if none has a heartbeat, or None if one has."""
    coordinators = [session for session in sessions if session.is_coordinator]
    if not all(is_silent(session, now) for session in coordinators):
        return None
    doubtful = [session for session in coordinators if not process_is_gone(session)]
    if doubtful:
        last = min(doubtful, key=lambda session: silence_sec(session, now))
        return (
            f"The task does not continue: the coordinator ({process_of(last)})"
            f" {_silence(last, now)}. See `flowkit doctor`."
        )
    return (
        "The task does not continue: no coordinator runs. Start `flowkit coordinator`, or on a file"
        " `flowkit dev FILE` or the `flowkit run FILE` of the task, with its --db and --task-id."
    )


def _silence(session: WorkerSession, now: float) -> str:
    why = (
        "the process has ended"
        if process_is_gone(session)
        else "it has ended, is blocked, or cannot write to the store"
    )
    return f"has sent no heartbeat for {silence_sec(session, now):.0f} s: {why}"

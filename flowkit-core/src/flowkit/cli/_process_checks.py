"""Checks of ``flowkit doctor``: the coordinators and workers that use a store."""

from collections.abc import Collection, Sequence

from flowkit._records.heartbeats import process_is_gone, process_of, watch_heartbeats
from flowkit._records.worker_sessions import WorkerSession, sessions_of
from flowkit.client._task_filters import OPEN
from flowkit.protocols import CheckResult, Clock, Store, TaskQuery

SILENT_WORKER = (
    "restart it if it was killed; otherwise check that no handler blocks its event loop, and that"
    " it can reach the store"
)
START_COORDINATOR = "start one with `flowkit coordinator`, or on a file with `flowkit dev FILE`"
START_WORKER = (
    "start a worker with a handler for it; the task of a `flowkit run` goes on with the same"
    " command, --db and --task-id"
)
LEFT_BEHIND = "without ending its session, which coordinators delete later"


async def check_processes(store: Store, clock: Clock) -> Sequence[CheckResult]:
    """Return a check for all coordinators, one for all live workers, and one for each worker that
    is silent or was killed.

    A process is silent if it sends no heartbeat in the time in which all have to send one. Without
    a coordinator, tasks that have not ended do not continue. The session of a worker whose process
    on this machine has ended is a fault only if tasks have not ended, and no live worker serves its
    roles.
    """
    sessions = await sessions_of(store)
    killed = [each for each in sessions if not each.is_coordinator and process_is_gone(each)]
    began = clock.monotonic()
    heartbeats = await watch_heartbeats(
        store, [each for each in sessions if each not in killed], clock
    )
    waited = clock.monotonic() - began
    open_tasks, _ = await store.list_tasks(TaskQuery(statuses=OPEN, limit=1))
    is_work_left = bool(open_tasks)
    coordinators = sorted(each.worker_id for each in heartbeats.live if each.is_coordinator)
    live = [each for each in heartbeats.live if not each.is_coordinator]
    names = sorted(each.worker_id for each in heartbeats.silent if not each.is_coordinator)
    served = {role for each in live for role in each.roles}
    return [
        _check_coordinators(coordinators, is_work_left),
        _check_live(live),
        *(
            CheckResult(f"worker {name}", False, f"no heartbeat for {waited:.0f} s", SILENT_WORKER)
            for name in names
        ),
        *(_check_killed(each, served, is_work_left) for each in killed),
    ]


def _check_coordinators(live: Sequence[str], is_work_left: bool) -> CheckResult:
    if live or not is_work_left:
        names = f": {', '.join(live)}" if live else ""
        return CheckResult("coordinators", True, f"{len(live)}{names}")
    return CheckResult("coordinators", False, "0, and tasks have not ended", START_COORDINATOR)


def _check_live(live: Sequence[WorkerSession]) -> CheckResult:
    workers = ", ".join(f"{each.worker_id} ({', '.join(each.roles)})" for each in live)
    return CheckResult("workers", True, f"{len(live)}{f': {workers}' if workers else ''}")


def _check_killed(
    session: WorkerSession, served: Collection[str], is_work_left: bool
) -> CheckResult:
    name, detail = f"worker {session.worker_id}", f"{process_of(session)} has ended {LEFT_BEHIND}"
    missing = [role for role in session.roles if role not in served]
    if not (missing and is_work_left):
        return CheckResult(name, True, detail)
    detail += f"; no live worker serves its role {missing[0]!r}, and tasks have not ended"
    return CheckResult(name, False, detail, START_WORKER)

"""Slots of the workers of a role that are in use, as explanations name them."""

from flowkit._records.heartbeats import slots_in_use
from flowkit._records.worker_sessions import WorkerSession


def worker(
    name: str, running: int, slots: int, *, role: str = "work", at: float = 0
) -> WorkerSession:
    info = {
        "host": "elsewhere",
        "running": str(running),
        "max_concurrency": str(slots),
        "renewed_at": str(at),
    }
    return WorkerSession(name, (role,), 1, at, info)


def test_workers_with_free_slots_come_first_and_the_last_ones_are_counted() -> None:
    workers = [worker("a", 4, 4), worker("b", 1, 2), worker("c", 0, 8), worker("d", 2, 2)]
    assert slots_in_use(workers, "work", 1) == "'c' 0 of 8, 'b' 1 of 2, 'a' 4 of 4 and 1 more"


def test_silent_workers_and_those_of_other_roles_are_left_out() -> None:
    workers = [worker("silent", 0, 4, at=-100), worker("other", 0, 4, role="other")]
    assert slots_in_use(workers, "work", 1) == ""
    assert slots_in_use([*workers, worker("a", 4, 4)], "work", 1) == "'a' 4 of 4"

"""Workers of other processes that serve the same roles as ``flowkit dev``."""

from collections.abc import Callable, Collection

import anyio

from flowkit._records.heartbeats import process_of
from flowkit._records.worker_sessions import WorkerSession, sessions_of
from flowkit.errors import FlowKitError
from flowkit.protocols import Store

LOOK_SEC = 1.0


class OtherWorkers:
    """Reports each other worker that is alive and serves a role of this command.

    Handlers of such a worker may be older than the files, and it takes nodes as well.
    """

    def __init__(
        self,
        store: Store,
        roles: Callable[[], Collection[str] | None],
        is_own: Callable[[str], bool],
        say: Callable[[str, str], None],
    ) -> None:
        """``roles`` returns the roles that are served, or None while no worker is ready.

        ``is_own`` returns whether the worker with an id belongs to this command.
        """
        self._store = store
        self._roles = roles
        self._is_own = is_own
        self._say = say
        self._beats: dict[str, int] = {}
        self._reported: set[tuple[str, frozenset[str]]] = set()

    async def watch(self) -> None:
        """Check the workers from time to time."""
        while True:
            try:
                sessions = await sessions_of(self._store)
            except FlowKitError:
                pass  # the store is unavailable, which the coordinator reports
            else:
                self.look(sessions)
            await anyio.sleep(LOOK_SEC)

    def look(self, sessions: Collection[WorkerSession]) -> None:
        """Report workers that have sent a heartbeat since the previous look."""
        beats, self._beats = self._beats, {each.worker_id: each.beat for each in sessions}
        served = frozenset(self._roles() or ())
        for session in sessions:
            shared = served.intersection(session.roles)
            is_alive = beats.get(session.worker_id, session.beat) != session.beat
            if shared and is_alive and not self._is_own(session.worker_id):
                self._report(session, shared)

    def _report(self, session: WorkerSession, shared: frozenset[str]) -> None:
        key = (session.worker_id, shared)
        if key in self._reported:
            return
        self._reported.add(key)
        names = ", ".join(role for role in session.roles if role in shared)
        self._say(
            "worker",
            f"{session.worker_id} ({process_of(session)}) serves {names} as well, with the handlers"
            " that it has loaded: nodes run there or here. Stop it, or use another --db",
        )

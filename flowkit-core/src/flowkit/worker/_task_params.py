"""Large params of tasks: they do not travel with each child of a map, and are read once."""

from dataclasses import dataclass
from typing import Any

import anyio
from pydantic_core import to_json

from flowkit._records.queries import load_task
from flowkit._runtime.concurrency import Recent
from flowkit.protocols import Store

MOST_CACHED = 8
"""Tasks whose large params a worker keeps."""


@dataclass(frozen=True, slots=True)
class TaskParams:
    """Params of a task."""

    shared: dict[str, Any]
    """Params for expressions, which change nothing."""
    json: bytes
    """Params from which each handler gets a copy."""


class TaskParamsCache:
    """Cache of the large params of tasks, by task and by the hash of the params."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._found: Recent[tuple[str, str], TaskParams] = Recent(MOST_CACHED)
        self._lock = anyio.Lock()

    async def get(self, task_id: str, key: str) -> TaskParams:
        """Return the params of a task.

        Raises:
            TaskNotFound: there is no such task.
            StoreError: the store is unavailable.
        """
        # Without the lock, which gives a turn to other runs: then the start of this run would be
        # reported apart from its end.
        found = self._found.get((task_id, key))
        if found is not None:
            return found
        async with self._lock:
            found = self._found.get((task_id, key))
            if found is None:
                params = (await load_task(self._store, task_id)).spec.params
                found = self._found[task_id, key] = TaskParams(params, to_json(params))
            return found

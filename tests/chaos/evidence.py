"""Evidence after a chaos run: the ledgers of clients and workers, and the stored tasks."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import anyio

from flowkit import Client, TaskEvent, TaskView
from flowkit.task import Artifact
from tests.chaos.clients import CLIENTS, Submission, submissions_of
from tests.chaos.handlers import WORKERS
from tests.chaos.ledger import Line, read_ledgers

PAGE = 100
AT_A_TIME = 16


@dataclass
class Stored:
    """One stored task."""

    view: TaskView
    events: list[TaskEvent]
    artifacts: list[Artifact] = field(default_factory=list)

    @property
    def submission(self) -> str:
        return self.view.labels.get("submission", "")


@dataclass
class Evidence:
    """Stored tasks and ledger lines of one run."""

    stored: list[Stored]
    client_lines: list[Line]
    worker_lines: list[Line]

    @cached_property
    def submissions(self) -> dict[str, Submission]:
        return submissions_of(self.client_lines)

    @cached_property
    def of_client(self) -> dict[str, list[Line]]:
        """The clients' ledger lines, by submission."""
        return _grouped(self.client_lines, "submission")

    @cached_property
    def of_workers(self) -> dict[str, list[Line]]:
        """The workers' ledger lines, by task."""
        return _grouped(self.worker_lines, "task")

    def executions(self, task_id: str, node_id: str, what: str) -> Iterator[Line]:
        return (
            line
            for line in self.of_workers.get(task_id, ())
            if line["node"] == node_id and line["what"] == what
        )


def _grouped(lines: list[Line], name: str) -> dict[str, list[Line]]:
    groups = defaultdict(list)
    for line in lines:
        if name in line:
            groups[line[name]].append(line)
    return dict(groups)


async def gather(client: Client, ledgers: Path) -> Evidence:
    """Read the ledgers and the store."""
    clients, workers = read_ledgers(ledgers, CLIENTS), read_ledgers(ledgers, WORKERS)
    views: list[TaskView] = []
    after = None
    while True:
        page = await client.list_tasks(limit=PAGE, after=after)
        views += page.items
        after = page.next
        if after is None:
            break
    stored: list[Stored] = []
    limit = anyio.CapacityLimiter(AT_A_TIME)

    async def read(view: TaskView) -> None:
        async with limit:
            # Watching a task that never ends would never return. The checker reports such a task.
            events = (
                [event async for event in client.watch(view.id)] if view.status.terminal else []
            )
            artifacts = (
                [artifact async for artifact in client.artifacts(view.id)]
                if any(n.metrics for n in view.nodes.values())
                else []
            )
            stored.append(Stored(view, events, artifacts))

    async with anyio.create_task_group() as group:
        for view in views:
            group.start_soon(read, view)
    return Evidence(stored, clients, workers)

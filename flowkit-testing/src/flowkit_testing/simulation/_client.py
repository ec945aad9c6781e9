"""The scenario's client. It retries when the store is unreachable, because it is not under test."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import datetime
from typing import Any, TypeVar

from flowkit import Client, Schedule, ScheduleView, Trigger, TriggerView
from flowkit._dead_letters.redrive import Redriven
from flowkit._records.letter_records import read_letters
from flowkit.errors import AlreadyDecided, BusUnavailable, StoreUnavailable, TaskRefused
from flowkit.task import (
    Approval,
    Artifact,
    DeadLetter,
    FlowInfo,
    FlowVersion,
    LogLine,
    NodesShown,
    Page,
    TaskEvent,
    TaskStatus,
    TaskView,
)

T = TypeVar("T")

PAUSE_SEC = 1.0


class PatientClient(Client):
    """A :class:`~flowkit.Client` whose verbs retry until they are answered.

    Each submission gets its id before the first try, so a retry submits the same task.
    """

    told: dict[str, TaskView]
    """The last view that :meth:`wait` returned, by task."""
    promised: dict[str, None]
    """The ids that :meth:`create_task` returned."""
    on_retry: Callable[[str], None]
    on_resolve: Callable[[str, str], None]
    on_run_now: Callable[[str, str], None]
    on_signal: Callable[[str, str], None]
    on_decision: Callable[[str, str, str, str], None]

    def __init__(
        self,
        *,
        submit: Callable[[dict[str, Any]], Awaitable[str]] | None,
        on_retry: Callable[[str], None],
        on_resolve: Callable[[str, str], None],
        on_run_now: Callable[[str, str], None],
        on_signal: Callable[[str, str], None],
        on_decision: Callable[[str, str, str, str], None],
        **options: Any,
    ) -> None:
        """Create a client; ``submit``, if given, carries out its submissions."""
        super().__init__(**options)
        self.told, self.promised = {}, {}
        self._submit = submit
        self.on_retry = on_retry
        self.on_resolve = on_resolve
        self.on_run_now = on_run_now
        self.on_signal = on_signal
        self.on_decision = on_decision

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await self.clock.sleep(PAUSE_SEC)

    async def start_patiently(self) -> None:
        """Connect, and retry until it succeeds."""
        while True:
            try:
                return await self.start()
            except (BusUnavailable, StoreUnavailable):
                await self.clock.sleep(PAUSE_SEC)

    async def create_task(self, *, task_id: str | None = None, **submission: Any) -> str:
        submission["task_id"] = task_id or f"t{secrets.token_hex(4)}"
        if self._submit is not None:
            stored = await self._submit(submission)
        else:
            create = super().create_task
            stored = await self._patiently(lambda: create(**submission))
        self.promised[stored] = None
        return stored

    async def put_flow(self, name: str, graph: Any, *, description: str = "") -> FlowVersion:
        put = super().put_flow
        return await self._patiently(lambda: put(name, graph, description=description))

    async def get_flow(self, name: str, version: int | None = None) -> FlowVersion:
        get = super().get_flow
        return await self._patiently(lambda: get(name, version))

    async def list_flows(self) -> list[FlowInfo]:
        return await self._patiently(super().list_flows)

    async def get_task(self, task_id: str, *, nodes: NodesShown = "all") -> TaskView:
        get = super().get_task
        return await self._patiently(lambda: get(task_id, nodes=nodes))

    async def wait(self, task_id: str, timeout: float | None = None) -> TaskView:
        wait = super().wait
        view = await self._patiently(lambda: wait(task_id, timeout))
        self.told[task_id] = view
        return view

    async def watch(self, task_id: str, *, after: int = 0) -> AsyncIterator[TaskEvent]:
        while True:
            try:
                async for event in super().watch(task_id, after=after):
                    after = event.seq
                    yield event
                return
            except StoreUnavailable:
                await self.clock.sleep(PAUSE_SEC)

    async def artifacts(self, task_id: str, node_id: str | None = None) -> AsyncIterator[Artifact]:
        found: list[Artifact] = []

        async def collect() -> None:
            found[:] = [artifact async for artifact in Client.artifacts(self, task_id, node_id)]

        await self._patiently(collect)
        for artifact in found:
            yield artifact

    async def logs(
        self, task_id: str, node_id: str | None = None, *, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        seen_before: set[str] = set()
        while True:
            seen: set[str] = set()
            try:
                async for line in super().logs(task_id, node_id, follow=follow):
                    text = line.model_dump_json(exclude={"dropped"})
                    seen.add(text)
                    if text not in seen_before:
                        yield line
                return
            except StoreUnavailable:
                seen_before |= seen
                await self.clock.sleep(PAUSE_SEC)

    async def list_tasks(self, **query: Any) -> Any:
        find = super().list_tasks
        return await self._patiently(lambda: find(**query))

    async def explain(self, task_id: str, node_id: str) -> str:
        explain = super().explain
        return await self._patiently(lambda: explain(task_id, node_id))

    async def cancel(self, task_id: str, reason: str = "", *, force: bool = False) -> None:
        cancel = super().cancel
        await self._patiently(lambda: cancel(task_id, reason, force=force))

    async def delete_cached(
        self, role: str | None = None, *, flow: str | None = None, key: Any = None
    ) -> int:
        delete = super().delete_cached
        return await self._patiently(lambda: delete(role, flow=flow, key=key))

    async def signal(
        self, task_id: str, name: str, payload: Any = None, *, signal_id: str | None = None
    ) -> None:
        signal, chosen = super().signal, signal_id or f"s{secrets.token_hex(4)}"
        await self._patiently(lambda: signal(task_id, name, payload, signal_id=chosen))
        self.on_signal(task_id, chosen)

    async def approvals(self, **query: Any) -> Page[Approval]:
        find = super().approvals
        return await self._patiently(lambda: find(**query))

    async def decide(
        self, task_id: str, node_id: str, choice: str, *, by: str, **more: Any
    ) -> None:
        unsure = False
        while True:
            try:
                await super().decide(task_id, node_id, choice, by=by, **more)
                break
            except StoreUnavailable:
                unsure = True
                await self.clock.sleep(PAUSE_SEC)
            except AlreadyDecided as error:
                # The first try may have been applied although its answer was lost.
                if not unsure or f"{choice!r} by {by!r}" not in str(error):
                    raise
                break
        self.on_decision(task_id, node_id, choice, by)

    async def resolve_node(self, task_id: str, node_id: str, outcome: Any, **more: Any) -> None:
        self.on_resolve(task_id, node_id)
        resolve = super().resolve_node
        await self._patiently(lambda: resolve(task_id, node_id, outcome, **more))

    async def run_now(self, task_id: str, node_id: str) -> None:
        self.on_run_now(task_id, node_id)
        unsure = False
        while True:
            try:
                await super().run_now(task_id, node_id)
                return
            except StoreUnavailable:
                unsure = True
                await self.clock.sleep(PAUSE_SEC)
            except TaskRefused:
                # The first try may have been applied although its answer was lost.
                if not unsure:
                    raise
                return

    async def rerun(
        self,
        task_id: str,
        *,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> str:
        key, rerun = idempotency_key or f"r{secrets.token_hex(4)}", super().rerun
        created = await self._patiently(lambda: rerun(task_id, idempotency_key=key, **more))
        self.promised[created] = None
        return created

    async def put_schedule(self, schedule: Schedule) -> ScheduleView:
        put = super().put_schedule
        return await self._patiently(lambda: put(schedule))

    async def put_trigger(self, trigger: Trigger) -> TriggerView:
        put = super().put_trigger
        return await self._patiently(lambda: put(trigger))

    async def pause_trigger(self, trigger_id: str) -> None:
        pause = super().pause_trigger
        await self._patiently(lambda: pause(trigger_id))

    async def resume_trigger(self, trigger_id: str) -> None:
        resume = super().resume_trigger
        await self._patiently(lambda: resume(trigger_id))

    async def get_schedule(self, schedule_id: str) -> ScheduleView:
        get = super().get_schedule
        return await self._patiently(lambda: get(schedule_id))

    async def pause_schedule(self, schedule_id: str) -> None:
        pause = super().pause_schedule
        await self._patiently(lambda: pause(schedule_id))

    async def resume_schedule(self, schedule_id: str) -> None:
        resume = super().resume_schedule
        await self._patiently(lambda: resume(schedule_id))

    async def backfill(
        self, schedule_id: str, start: datetime, end: datetime, *, limit: int = 10
    ) -> list[str]:
        fill = super().backfill
        return await self._patiently(lambda: fill(schedule_id, start, end, limit=limit))

    async def pause(self, task_id: str) -> None:
        pause = super().pause
        await self._patiently(lambda: pause(task_id))

    async def resume(self, task_id: str) -> None:
        resume = super().resume
        await self._patiently(lambda: resume(task_id))

    async def dead_letters(self, **query: Any) -> Page[DeadLetter]:
        find = super().dead_letters
        return await self._patiently(lambda: find(**query))

    async def retry_dead_letters(self, letter_ids: Collection[str]) -> list[Redriven]:
        # Read the store itself: a listing depends on tasks, and the next read may find newer
        # versions.
        for letter in await self._patiently(
            lambda: read_letters(self.store, letter_ids=letter_ids, limit=len(letter_ids))
        ):
            if letter.task_id is not None:
                self.on_retry(letter.task_id)
                self.told.pop(letter.task_id, None)
        retry = super().retry_dead_letters
        return await self._patiently(lambda: retry(letter_ids))

    async def retry(self, task_id: str, *, from_nodes: Collection[str] | None = None) -> None:
        self.on_retry(task_id)
        before = self.told.pop(task_id, None)
        unsure = False
        while True:
            try:
                await super().retry(task_id, from_nodes=from_nodes)
                return
            except StoreUnavailable:
                unsure = True
                await self.clock.sleep(PAUSE_SEC)
            except TaskRefused:
                # The first try may have been applied although its answer was lost.
                if not unsure or (before is not None and before.status is TaskStatus.FINISHED):
                    raise
                return

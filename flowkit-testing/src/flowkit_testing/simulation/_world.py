"""The world around simulated processes: random faults, delays and the event log."""

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable
from math import exp, log
from random import Random
from typing import Any

from flowkit_testing.simulation._executions import Execution
from flowkit_testing.simulation._faults import Faults
from flowkit_testing.simulation._loop import SimLoop
from flowkit_testing.simulation._process import Process, SimClock, State, current_process

EPOCH = 1_767_225_600.0
"""The start of simulations: 2026-01-01 UTC."""
SESSION_TIMEOUT_SEC = 10.0
"""Seconds after which a group removes a silent member."""


class World:
    """Everything outside the processes, driven by one seed."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.seed = seed
        self.chances = Random(f"faults of {seed}")
        self.faults = faults.drawn(self.chances)
        self.loop = SimLoop()
        self.epoch = EPOCH
        self.context = contextvars.copy_context()
        self.active = self.faults.any
        """If True, faults can happen now."""
        self.injected: Counter[str] = Counter()
        self.lines: list[str] = []
        self.processes: list[Process] = []
        self.executions: list[Execution] = []
        self.runs: dict[tuple[str, str], list[object]] = {}
        """The runs of each node, by task and node: one object for each."""
        self.crash_plan: dict[str, int] = {}
        """The steps at which processes die, by name."""
        self._numbers: Counter[str] = Counter()
        self.on_process_end: Callable[[Process], None] = lambda process: None
        self.on_crash: Callable[[Process], None] = lambda process: None
        self.on_begin: Callable[[str, str, float], None] = lambda task_id, node_id, at: None
        """Called when a run of a node begins."""

    # ------------------------------------------------------------ time, random numbers, event log

    def now(self) -> float:
        return self.loop.time()

    def wall(self) -> float:
        """Return the wall-clock time of the process that asks."""
        clock = self._current_clock()
        return clock.now() if clock is not None else self.epoch + self.loop.time()

    def monotonic(self) -> float:
        clock = self._current_clock()
        return clock.monotonic() if clock is not None else self.loop.time()

    @staticmethod
    def _current_clock() -> SimClock | None:
        process = current_process()
        return None if process is None else process.clock

    def latency(self) -> float:
        """Return the seconds that a message takes."""
        return 0.0005 + 0.003 * self.chances.random()

    def between(self, low: float, high: float) -> float:
        """Return a random duration. Its logarithm is evenly distributed."""
        return low if high <= low else exp(self.chances.uniform(log(low), log(high)))

    def should_inject(self, kind: str, who: str = "world", detail: str = "") -> bool:
        """Return whether this fault happens now, and record it if it does."""
        if not self.active or self.chances.random() >= getattr(self.faults, kind):
            return False
        self.inject(kind, who, detail)
        return True

    def inject(self, kind: str, who: str = "world", detail: str = "") -> None:
        """Record a fault that happens."""
        self.injected[kind] += 1
        self.note(who, f"! {kind} {detail}")

    def note(self, who: str, what: str) -> None:
        """Add a line to the event log."""
        self.lines.append(f"{self.loop.time():10.4f} {who:<14} {what}")

    def call(self, delay: float, function: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call a function later, outside all processes."""
        return self.loop.call_later(delay, function, *args, context=self.context)

    def settle(
        self, future: "asyncio.Future[Any]", value: Any = None, error: Exception | None = None
    ) -> None:
        """Send an answer back. It arrives after the latency."""
        self.call(self.latency(), self._arrive, future, value, error)

    @staticmethod
    def _arrive(future: "asyncio.Future[Any]", value: Any, error: Exception | None) -> None:
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

    # ------------------------------------------------------------ processes

    def execution_began(self, process: Process, execution: Execution, run: object) -> None:
        """Record a call of a handler. The first call of a run may kill the process.

        A batch always belongs to a run that has begun.
        """
        self.executions.append(execution)
        batch = "" if execution.batch_uid is None else f" batch {execution.batch_uid}"
        if execution.batch_uid is None:
            self._begin_run(process, execution.task_id, execution.node_id, run)
        self.note(
            process.name,
            f"executes {execution.node_id} of {execution.task_id} attempt"
            f" {execution.attempt}{batch}",
        )

    def _begin_run(self, process: Process, task_id: str, node_id: str, run: object) -> None:
        runs = self.runs.setdefault((task_id, node_id), [])
        if any(known is run for known in runs):
            return
        runs.append(run)
        self.on_begin(task_id, node_id, self.now())
        if self.active and self.chances.random() < self.faults.crash_at_start:
            process.die_at_start()

    def start(self, role: str, body: Callable[[Process], Any]) -> Process:
        """Start a process."""
        self._numbers[role] += 1
        process = self.context.copy().run(
            Process, self, f"{role}-{self._numbers[role]}", role, body
        )
        self.processes.append(process)
        if self.active:
            if self.faults.skew_sec:
                process.clock.skew = self.chances.uniform(
                    -self.faults.skew_sec, self.faults.skew_sec
                )
                self.inject("skew", process.name, f"{process.clock.skew:+.1f} s")
            if role in ("worker", "coordinator") and self.chances.random() < self.faults.crash:
                process.crash_at = round(self.between(1, self.faults.crash_steps))
            elif role == "client" and self.chances.random() < self.faults.client_crash:
                process.crash_at = round(self.between(1, 60))
        process.crash_at = self.crash_plan.get(process.name, process.crash_at)
        self.note(process.name, "starts")
        return process

    def crash(self, process: Process, how: str, kind: str = "crash") -> None:
        """Kill a process now."""
        if not process.alive:
            return
        self.inject(kind, process.name, how)
        process.die()
        self.on_crash(process)
        self.on_process_end(process)

    def process_ended(self, process: Process) -> None:
        """Record that a process ended by itself."""
        self.note(
            process.name,
            "ended"
            if process.error is None
            else f"ended: {type(process.error).__name__}: {process.error}",
        )
        if process.role in ("worker", "coordinator") and process.failed_permanently():
            assert process.error is not None
            raise process.error
        self.on_crash(process)
        self.on_process_end(process)

    def living(self, role: str) -> list[Process]:
        return [process for process in self.processes if process.role == role and process.alive]

    def running(self, *roles: str) -> list[Process]:
        return [
            process
            for process in self.processes
            if process.role in roles and process.state is State.RUNNING
        ]

"""Updates of tasks: events go through the engine, and what follows is collected for the commit."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from flowkit._dead_letters.letters import LetterChanges
from flowkit._engine import (
    ConditionDelayed,
    Effect,
    EngineSettings,
    EvaluateCondition,
    Event,
    advance,
    is_delayed,
)
from flowkit._tasks.conditions import Allowance, evaluate_at_once
from flowkit._tasks.observers import Notice, Observers
from flowkit._tasks.task_cache import CachedTask
from flowkit.protocols import Store
from flowkit.task import Task


@dataclass(slots=True)
class TaskEffects:
    """Effects of a task's events, to be carried out after the commit."""

    cached: CachedTask
    effects: Sequence[Effect]

    @property
    def task(self) -> Task:
        """The task as of the commit, or later."""
        return self.cached.task


@dataclass(slots=True)
class TaskUpdate:
    """Events of one task on their way through the engine.

    Every event of every task goes through :meth:`apply`.
    """

    cached: CachedTask
    now: float
    settings: EngineSettings
    observers: Observers | None = None
    """Plugins to notify after the commit; None if the update is not to be reported."""
    changed: bool = False
    """An event changed the task."""
    effects: list[Effect] = field(default_factory=list)
    conditions: deque[EvaluateCondition] = field(default_factory=deque)
    """Conditions to evaluate before the commit."""
    notices: list[Notice] = field(default_factory=list)
    letters: LetterChanges = field(default_factory=LetterChanges)

    def add_effects(self, effects: Sequence[Effect]) -> None:
        """Add effects, and put conditions aside for :meth:`evaluate_conditions`."""
        for effect in effects:
            if effect.__class__ is EvaluateCondition:
                self.conditions.append(effect)
            else:
                self.effects.append(effect)

    def apply(self, event: Event) -> None:
        """Advance the task by an event, and collect what follows from it."""
        task = self.cached.task
        step = advance(task, event, now=self.now, settings=self.settings)
        self.add_effects(step.effects)
        if step.ignored:
            return
        if self.observers is not None:
            self.notices += self.observers.notices(step)
        step.apply()
        self.letters.add(step)
        self.cached.writer.add(step)
        self.changed = True

    async def evaluate_conditions(self, store: Store) -> None:
        """Evaluate the conditions that are due. Conditions that take long become effects.

        Raises:
            StoreError: the results that a condition reads could not be loaded.
        """
        allowance = Allowance()
        while self.conditions:
            condition = self.conditions.popleft()
            task = self.cached.task
            if not is_delayed(task.records.get(condition.index)):
                outcome = await evaluate_at_once(store, task, condition.index, allowance)
                self.apply(outcome)
                if outcome.__class__ is not ConditionDelayed:
                    continue
            self.effects.append(condition)

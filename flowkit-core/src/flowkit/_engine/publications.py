"""The publication of a task's changes: what is to be published, and when that is checked again.

A task with changes that are not in the topic has a wake-up time, also after its end. So if the
process that would publish them crashes, a sweep finds the task, and the coordinator that loads it
publishes them.
"""

from dataclasses import replace

from flowkit._engine.effects import PublishChanges
from flowkit._engine.events import ChangesPublished
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit.task import Publication

CHECK_SEC = 30.0
"""Time after which changes that are not published are looked for. It doubles while they are not."""
LONGEST_CHECK_SEC = 3600.0
UNDECIDED = Publication(-1)
"""Publication of a task that a client has made, before a coordinator has changed it."""


def publish_changes(draft: Transition, settings: EngineSettings) -> None:
    """Have the changes of a task published, if coordinators do that. One that does not ends the
    publication. A client leaves the decision to them, and has them woken at the end of the task.
    """
    known = draft.publication
    if settings.publishes is False:
        draft.publication = None
        return
    if settings.publishes and (known is None or not known.is_decided):
        known = draft.publication = Publication(0)
    last = draft.task.seq + len(draft.log)
    if known is None or known.seq >= last:
        return
    if known.is_decided or draft.status.terminal:
        since = draft.now if known.since is None else known.since
        draft.publication = replace(known, since=since)
        draft.wake(draft.now + min(max(draft.now - since, CHECK_SEC), LONGEST_CHECK_SEC))
    if settings.publishes:
        draft.effects.append(PublishChanges(last))


def changes_published(draft: Transition, event: ChangesPublished, settings: EngineSettings) -> None:
    """Record that changes are in the topic. An ended task without others needs no wake-up."""
    known = draft.publication
    if known is None or event.seq <= known.seq:
        draft.ignored = True
        return
    draft.publication = Publication(event.seq)
    if draft.status.terminal:
        draft.wake_at = None


def ended_task_woke(draft: Transition) -> None:
    """Look for changes of an ended task that are not published."""
    known = draft.publication
    if known is None or known.seq >= draft.task.seq:
        draft.ignored = True
        return
    draft.wake_at = None

"""Commands of issued nodes: sent, waiting for a worker, lost."""

from flowkit._engine.effects import SendCommand
from flowkit._engine.events import CommandsLost, CommandsSent, CommandWaiting, SentCommand
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit.task import Mark, NodeRecord

FIRST_CHECK_SEC = 30.0
"""Time from sending a command to its first check, and between checks that are not answered."""
LONGEST_CHECK_PAUSE_SEC = 600.0


def commands_sent(draft: Transition, event: CommandsSent, settings: EngineSettings) -> None:
    """Record that commands are on the bus, so that they are not sent again."""
    draft.ignored = True
    for command in event.commands:
        record = draft.record(command.index)
        if _is_present(draft, command) and not record.sent:
            record = draft.edit(command.index)
            record.sent = True
            record.place = command.place
            draft.ignored = False


def command_waiting(draft: Transition, event: CommandWaiting, settings: EngineSettings) -> None:
    """Record that the bus confirmed that a command waits, if a check of it is due."""
    command = event.command
    record = draft.record(command.index)
    if (
        _is_present(draft, command)
        and record.sent
        and record.place == command.place
        and confirmed_until(record, draft.now) is None
    ):
        draft.edit(command.index).confirmed_at = draft.now
    else:
        draft.ignored = True


def commands_lost(draft: Transition, event: CommandsLost, settings: EngineSettings) -> None:
    """Send lost commands again, with the same tokens: a worker that has one after all ignores the
    copy.
    """
    draft.ignored = True
    for command in event.commands:
        if not _is_present(draft, command) or draft.record(command.index).place != command.place:
            continue
        record = draft.edit(command.index)
        record.sent = False
        record.place = None
        record.claimed = settings.sends
        record.confirmed_at = None
        draft.effects.append(SendCommand(command.index, command.attempt))
        draft.wake(draft.now + settings.resend_sec)
        draft.ignored = False


def _is_present(draft: Transition, command: SentCommand) -> bool:
    """Return whether a command is the one that its node waits for."""
    index = command.index
    if index >= len(draft.task.marks) or draft.mark(index) != Mark.ISSUED:
        return False
    record = draft.record(index)
    return (record.attempt, record.handovers) == (command.attempt, command.handovers)


def next_check(record: NodeRecord, now: float, settings: EngineSettings) -> float:
    """Return when to check an issued command next. One that may never have been sent is checked at
    short intervals.
    """
    if now - record.issued_at < settings.resend_sec:
        return record.issued_at + settings.resend_sec
    return confirmed_until(record, now) or now + FIRST_CHECK_SEC


def confirmed_until(record: NodeRecord, now: float) -> float | None:
    """Return when to check a command again that the bus has confirmed to wait; None if the check
    that is due now is not answered yet.

    The pauses double. Without an answer they stay short, because a coordinator keeps its checks in
    memory and may be killed with them.
    """
    if not record.sent or record.confirmed_at is None:
        return None
    until = record.confirmed_at + min(
        max(record.confirmed_at - record.issued_at, FIRST_CHECK_SEC), LONGEST_CHECK_PAUSE_SEC
    )
    # A time far ahead was written by a coordinator whose clock is wrong.
    return until if now < until <= now + LONGEST_CHECK_PAUSE_SEC else None

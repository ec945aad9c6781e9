"""Recorder of the driver's commands."""

from typing import Any

from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)


class Commands(CommandListener):
    """Records every command that is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append((event.command_name, dict(event.command)))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Ignore the answer."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Ignore the failure."""

    def names(self) -> list[str]:
        return [name for name, _ in self.sent]

"""``flowkit dev`` says which workers of other processes serve the same roles."""

from collections.abc import Collection

import pytest

from flowkit._records.worker_sessions import WorkerSession
from flowkit.cli._dev_other_workers import OtherWorkers
from flowkit_testing import InMemoryStore


class Terminal:
    """Other workers, as the worker ``dev-1-1`` with these roles reports them."""

    def __init__(self, *roles: str) -> None:
        self.roles: Collection[str] | None = roles
        self.lines: list[str] = []
        self.others = OtherWorkers(
            InMemoryStore(),
            lambda: self.roles,
            lambda worker_id: worker_id.startswith("dev-1-"),
            lambda heading, text: self.lines.append(text),
        )

    def look(self, *workers: tuple[str, str], beat: int) -> list[str]:
        """Look at these workers, each with a role, and return what was printed."""
        self.lines.clear()
        info = {"pid": "7", "host": "here"}
        self.others.look(
            [WorkerSession(name, (role,), beat, started_at=0, info=info) for name, role in workers]
        )
        return self.lines


@pytest.fixture
def terminal() -> Terminal:
    return Terminal("work", "rest")


def test_a_live_worker_with_a_role_of_this_command_is_reported_once(terminal: Terminal) -> None:
    assert terminal.look(("dev-2-1", "work"), beat=1) == []
    [line] = terminal.look(("dev-2-1", "work"), beat=2)
    assert line.startswith("dev-2-1 (process 7 on here) serves work as well")
    assert terminal.look(("dev-2-1", "work"), beat=3) == []


def test_a_worker_without_heartbeats_is_not_reported(terminal: Terminal) -> None:
    for _ in range(3):
        assert terminal.look(("dev-2-1", "work"), beat=1) == []


def test_workers_of_this_command_and_of_other_roles_are_not_reported(terminal: Terminal) -> None:
    for beat in (1, 2):
        assert terminal.look(("dev-1-2", "work"), ("other", "else"), beat=beat) == []


def test_a_worker_is_reported_when_this_command_serves_its_role(terminal: Terminal) -> None:
    terminal.roles = None
    for beat in (1, 2):
        assert terminal.look(("other", "work"), beat=beat) == []
    terminal.roles = ["work"]
    assert len(terminal.look(("other", "work"), beat=3)) == 1

"""The bounds of windows: when they are decided, and how artifacts are cut by them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flowkit._records.windows import Bounds
from flowkit.worker import Batch, Pulled
from flowkit.worker._windows import Windows
from flowkit_testing import ManualClock


class Log:
    """Windows that an earlier attempt has decided on; after them, each decision counts."""

    def __init__(self, *stored: Bounds) -> None:
        self.stored = list(stored)

    async def next(self, decide: Callable[[], Sequence[Bounds]]) -> Sequence[Bounds]:
        return [self.stored.pop(0)] if self.stored else decide()


def page(first: int, last: int, node_id: str = "p") -> list[Pulled]:
    return [Pulled(node_id, f"u{n}", n, n) for n in range(first, last + 1)]


def items(batches: Sequence[Batch]) -> list[Any]:
    return [batch.payload["items"] for batch in batches]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def windows_of_three(clock: ManualClock, *stored: Bounds) -> Windows:
    log: Any = Log(*stored)
    return Windows({"size": 3, "max_wait_sec": 5}, log, clock)


async def test_a_reader_that_never_waits_ends_a_window_in_time(clock: ManualClock) -> None:
    windows = windows_of_three(clock)
    assert items(await windows.add(page(1, 1))) == []
    await clock.advance(6)
    assert items(await windows.add(page(2, 2))) == [[1, 2]]


async def test_the_rest_of_a_page_has_a_time_of_its_own(clock: ManualClock) -> None:
    windows = windows_of_three(clock)
    await windows.add(page(1, 1))
    await clock.advance(6)
    assert items(await windows.add(page(2, 4))) == [[1, 2, 3]]
    assert windows.due_at() == clock.monotonic() + 5
    await clock.advance(5)
    assert items(await windows.add([])) == [[4]]


async def test_a_stored_window_has_no_time(clock: ManualClock) -> None:
    windows = windows_of_three(clock, {"p": 2})
    assert items(await windows.add(page(1, 1))) == []
    assert windows.due_at() is None
    await clock.advance(6)
    assert items(await windows.add(page(2, 2))) == [[1, 2]]


async def test_without_artifacts_no_window_is_due(clock: ManualClock) -> None:
    windows = windows_of_three(clock)
    assert items(await windows.add([])) == items(await windows.close("t")) == []
    assert windows.due_at() is None


async def test_a_stored_window_has_the_artifacts_of_its_nodes_in_its_order(
    clock: ManualClock,
) -> None:
    windows = windows_of_three(clock, {"q": 1, "p": 2})
    await windows.add(page(1, 3))
    (batch,) = await windows.add(page(1, 1, "q"))
    assert (batch.batch_uid, batch.payload) == ("q:1-1+p:1-2", {"items": [1, 1, 2]})
    assert items(await windows.close("t")) == [[3]]


async def test_artifacts_without_data_are_in_no_window(clock: ManualClock) -> None:
    windows = windows_of_three(clock)
    found = await windows.add([*page(1, 1), *page(4, 4), *page(9, 10)])
    assert [batch.batch_uid for batch in [*found, *await windows.close("t")]] == [
        "p:1-9",
        "p:10-10",
    ]

"""SqliteStore answers any sequence of calls like InMemoryStore."""

from pathlib import Path

import pytest

from flowkit_sqlite import SqliteStore
from tests.conformance.sqlite_openers import open_store
from tests.store_comparison import compare

# Other tests cover all these lines, and measuring coverage takes longer than the comparisons.
pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

LONG, SHORT = 500, 5
FIRST, SEQUENCES = 1000, 250


def in_file(path: Path, namespace: str = "flowkit") -> SqliteStore:
    return open_store(f"sqlite:///{path}", namespace=namespace)


@pytest.mark.parametrize("seed", range(4))
async def test_both_stores_give_the_same_answers(anyio_backend: str, path: Path, seed: int) -> None:
    async with in_file(path) as store:
        await compare(store, seed, steps=LONG)


async def test_both_stores_give_the_same_answers_from_the_beginning(
    anyio_backend: str, path: Path
) -> None:
    async with in_file(path):  # it stays open, so that the other stores open quickly
        for seed in range(FIRST, FIRST + SEQUENCES):
            async with in_file(path, namespace=f"n{seed}") as store:
                await compare(store, seed, steps=SHORT)

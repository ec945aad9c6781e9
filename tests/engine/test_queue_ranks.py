"""The queue of ready nodes."""

import random
from heapq import heapify

import pytest

from flowkit._engine.queue_ranks import first_of


@pytest.mark.parametrize("count", [0, 1, 2, 7, 20, 30])
def test_the_first_entries_of_a_heap_are_in_order_and_stay_in_it(count: int) -> None:
    heap = [(-(number % 3), number) for number in range(20)]
    random.Random(count).shuffle(heap)
    heapify(heap)
    before = list(heap)
    assert first_of(heap, count) == sorted(heap)[:count]
    assert heap == before
    assert first_of([], count) == []

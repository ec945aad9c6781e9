"""The inbox of a subscription, between consumer and caller."""

from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from flowkit.protocols import Delivery
from flowkit_kafka._inbox import Inbox

PARTITION = TopicPartition("topic", 3)


def filled(*positions: int, max_unacked: int | None = 100) -> Inbox:
    inbox = Inbox(max_unacked=max_unacked, capacity=10)
    fetch(inbox, *positions)
    return inbox


def fetch(inbox: Inbox, *positions: int) -> None:
    records: list[Any] = [
        SimpleNamespace(offset=position, key=b"k", value=b"v", headers=(), timestamp=1_000)
        for position in positions
    ]
    inbox.put({PARTITION: records})


def positions(deliveries: list[Delivery]) -> list[int]:
    return [delivery.position for delivery in deliveries]


def test_messages_are_given_out_in_order_and_once():
    inbox = filled(1, 2, 3)
    assert positions(inbox.take(2)) == [1, 2]
    assert positions(inbox.take(2)) == [3]
    assert not inbox.ready.is_set()


def test_a_full_window_gives_nothing_until_something_is_answered():
    inbox = filled(1, 2, 3, max_unacked=2)
    given = inbox.take(10)
    assert positions(given) == [1, 2]
    assert inbox.take(10) == []
    assert not inbox.ready.is_set()
    inbox.acknowledge(given[:1])
    assert inbox.ready.is_set()
    assert positions(inbox.take(10)) == [3]


def test_what_is_released_comes_before_what_came_later():
    inbox = filled(1, 2, 3, 4)
    given = inbox.take(3)
    inbox.release(given[2:])
    inbox.release(given[:1])
    assert positions(inbox.take(10)) == [1, 3, 4]


def test_what_is_released_twice_comes_once():
    inbox = filled(1)
    given = inbox.take(1)
    inbox.release(given)
    inbox.release(given)
    assert positions(inbox.take(10)) == [1]


def test_what_is_released_and_then_acknowledged_does_not_come_again():
    inbox = filled(1, 2)
    given = inbox.take(1)
    inbox.release(given)
    inbox.acknowledge(given)
    assert positions(inbox.take(10)) == [2]
    assert inbox.to_commit() == {PARTITION: 2}


def test_what_waits_unread_is_not_committed():
    inbox = filled(1, 2)
    inbox.acknowledge(inbox.take(1))
    assert inbox.to_commit() == {PARTITION: 2}


def test_an_acknowledgement_of_an_assignment_that_is_over_has_no_effect():
    inbox = filled(1, 2)
    late = inbox.take(2)
    inbox.forget()
    fetch(inbox, 1, 2)
    inbox.acknowledge(late)
    assert inbox.to_commit() == {}
    assert inbox.live(late) == []
    inbox.release(late)
    assert positions(inbox.take(10)) == [1, 2]


def test_the_window_is_free_again_when_an_assignment_is_over():
    inbox = filled(1, 2, max_unacked=2)
    inbox.take(2)
    inbox.forget()
    fetch(inbox, 1, 2)
    assert positions(inbox.take(10)) == [1, 2]


def test_a_late_acknowledgement_does_not_widen_the_window():
    inbox = filled(1, 2, 3, max_unacked=2)
    late = inbox.take(2)
    inbox.forget()
    fetch(inbox, 1, 2, 3, 4)
    inbox.acknowledge(late)
    assert positions(inbox.take(10)) == [1, 2]


def test_a_listener_has_no_window_and_nothing_to_commit():
    inbox = filled(1, 2, 3, max_unacked=None)
    given = inbox.take(10)
    inbox.acknowledge(given)
    assert inbox.to_commit() == {}
    inbox.release(given[1:2])
    assert positions(inbox.take(10)) == [2]


def test_there_is_room_for_what_was_given_out():
    inbox = filled(*range(10))
    assert inbox.room == 0
    assert not inbox.has_room.is_set()
    inbox.take(4)
    assert inbox.room == 4
    assert inbox.has_room.is_set()


def test_messages_of_a_partition_that_was_created_again_are_tracked_apart():
    inbox = filled(7, 8, 9, max_unacked=4)
    old = inbox.take(2)
    fetch(inbox, 0, 1)
    assert positions(inbox.take(10)) == [9, 0]
    inbox.acknowledge(old)
    new = inbox.take(10)
    assert positions(new) == [1]
    inbox.acknowledge(new)
    assert inbox.to_commit() == {}
    inbox.release(old)
    assert inbox.take(10) == []


def test_a_partition_that_was_created_again_is_committed_from_its_new_beginning():
    inbox = filled(7, 8)
    inbox.acknowledge(inbox.take(2))
    fetch(inbox, 0, 1)
    inbox.acknowledge(inbox.take(1))
    assert inbox.to_commit() == {PARTITION: 1}

"""Progress in a partition: the offsets that may be committed, and late acknowledgements."""

from flowkit_kafka._messages import key_bytes, partition_of
from flowkit_kafka._progress import Progress


def progress(*positions: int) -> Progress:
    made = Progress("topic", 0)
    for position in positions:
        made.came(position)
    return made


def test_nothing_is_committed_before_something_came():
    assert progress().to_commit() is None


def test_nothing_is_committed_before_something_is_acknowledged():
    assert progress(5, 6).to_commit() is None


def test_the_contiguous_prefix_is_committed():
    partition = progress(5, 6, 7)
    partition.acknowledge(6)
    assert partition.to_commit() is None
    partition.acknowledge(5)
    assert partition.to_commit() == 7


def test_gaps_of_a_compacted_topic_are_stepped_over():
    partition = progress(5, 9, 12)
    for position in (12, 5, 9):
        partition.acknowledge(position)
    assert partition.to_commit() == 13


def test_what_was_committed_is_not_committed_again():
    partition = progress(5, 6)
    partition.acknowledge(5)
    partition.committed = partition.to_commit()
    assert partition.to_commit() is None


def test_acknowledging_twice_or_what_never_came_changes_nothing():
    partition = progress(5, 6)
    for position in (6, 6, 4, 99):
        partition.acknowledge(position)
    assert partition.to_commit() is None


def test_a_key_has_one_partition_for_ever():
    assert [partition_of(key_bytes(f"task-{number}"), 8) for number in range(8)] == [
        1,
        7,
        5,
        3,
        0,
        6,
        4,
        2,
    ]


def test_a_key_that_is_no_text_goes_back_as_the_bytes_it_came_as():
    assert key_bytes(b"\xff\xfe".decode("utf-8", "surrogateescape")) == b"\xff\xfe"

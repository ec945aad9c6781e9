"""Assignment of partitions to members."""

from hypothesis import given
from hypothesis import strategies as st

from flowkit_sqlite._assignment import balanced

MEMBERS = st.sets(st.integers(1, 9), max_size=6)
OWNERS = st.dictionaries(st.integers(0, 40), st.none() | st.integers(1, 9))


@given(OWNERS, MEMBERS)
def test_every_partition_has_a_member_and_shares_differ_by_at_most_one(owners, members):
    assigned = balanced(owners, members)
    assert assigned.keys() == owners.keys()
    if members:
        shares = [list(assigned.values()).count(member) for member in members]
        assert sum(shares) == len(owners)
        assert max(shares) - min(shares) <= 1


@given(OWNERS, MEMBERS)
def test_an_assignment_that_is_balanced_stays_as_it_is(owners, members):
    once = balanced(owners, members)
    assert balanced(once, members) == once


@given(OWNERS, MEMBERS)
def test_no_more_partitions_move_than_must(owners, members):
    if not members:
        return
    assigned = balanced(owners, members)
    kept = sum(assigned[each] == owner for each, owner in owners.items())
    held = sorted((list(owners.values()).count(member) for member in members), reverse=True)
    least, extra = divmod(len(owners), len(members))
    assert kept == sum(min(n, least + (index < extra)) for index, n in enumerate(held))


def test_without_members_no_partition_has_an_owner():
    assert balanced({1: 5, 2: None}, []) == {1: None, 2: None}


def test_a_new_member_takes_its_share_from_the_others():
    assert balanced(dict.fromkeys(range(4), 1), [1, 2]) == {0: 1, 1: 1, 2: 2, 3: 2}

"""Groups: their members with leases in the file, and who owns which partition.

All functions are called in jobs. Leases are the only place where the bus uses the wall clock.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from flowkit_sqlite._assignment import balanced
from flowkit_sqlite._topics import Topic

_NEW_PROGRESS = """
    INSERT INTO progress (group_id, partition_id, first_position)
    SELECT ?, partition_id, coalesce(
        (
            SELECT min(position) FROM messages AS kept
            WHERE kept.partition_id = partitions.partition_id
        ),
        next_position
    )
    FROM partitions WHERE topic_id = ?
    ON CONFLICT DO NOTHING
"""
_SILENT = """
    SELECT member_id FROM members
    WHERE group_id = ? AND ? NOT BETWEEN renewed_at - lease_sec AND renewed_at + lease_sec
"""


@dataclass(frozen=True, slots=True)
class Member:
    """Member of a group, with the topics that it subscribes to."""

    member_id: int
    group: str
    topics: tuple[Topic, ...]
    lease_sec: float


def join(db: sqlite3.Connection, member: Member, now: float) -> None:
    """Add a member, remove silent ones, and give each its share of the partitions."""
    db.execute("INSERT INTO groups (name) VALUES (?) ON CONFLICT DO NOTHING", [member.group])
    group_id = _group_id(db, member)
    db.execute(
        "INSERT INTO members VALUES (?, ?, ?, ?)",
        (member.member_id, group_id, now, member.lease_sec),
    )
    for topic in member.topics:
        db.execute("INSERT INTO member_topics VALUES (?, ?)", (member.member_id, topic.topic_id))
        db.execute(_NEW_PROGRESS, (group_id, topic.topic_id))
    remove_silent_members(db, group_id, now)
    rebalance(db, group_id)


def leave(db: sqlite3.Connection, member: Member) -> None:
    """Remove a member, if it is one, and give its partitions to the others."""
    row = db.execute(
        "SELECT group_id FROM members WHERE member_id = ?", (member.member_id,)
    ).fetchone()
    if row is not None:
        _remove(db, [member.member_id])
        rebalance(db, *row)


def renew(db: sqlite3.Connection, member: Member, now: float) -> bool:
    """Renew a member's lease, and return whether the members of the group have changed.

    A member whose lease was over, for example because its process was suspended, joins again. It
    has lost its partitions.
    """
    renewed = db.execute(
        "UPDATE members SET renewed_at = ? WHERE member_id = ?", (now, member.member_id)
    )
    if not renewed.rowcount:
        join(db, member, now)
        return True
    group_id = _group_id(db, member)
    if not remove_silent_members(db, group_id, now):
        return False
    rebalance(db, group_id)
    return True


def remove_silent_members(db: sqlite3.Connection, group_id: int, now: float) -> bool:
    """Remove the members whose leases are over, and return whether there were any.

    A lease that begins in the future was written before the clock was set back. It is over too,
    because its member would have renewed it.
    """
    silent = [member_id for (member_id,) in db.execute(_SILENT, (group_id, now))]
    _remove(db, silent)
    return bool(silent)


def rebalance(db: sqlite3.Connection, group_id: int) -> None:
    """Give each member of a group its share of the partitions of the topics that it subscribes to.

    A partition that goes to another member begins a new epoch, so that its previous owner cannot
    acknowledge for the new one.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for topic_id, member_id in db.execute(
        "SELECT topic_id, member_id FROM member_topics"
        " JOIN members USING (member_id) WHERE group_id = ?",
        (group_id,),
    ):
        members[topic_id].append(member_id)
    owners: defaultdict[int, dict[int, int | None]] = defaultdict(dict)
    for topic_id, progress_id, member_id in db.execute(
        "SELECT topic_id, progress_id, member_id FROM progress"
        " JOIN partitions USING (partition_id) WHERE group_id = ? ORDER BY progress_id",
        (group_id,),
    ):
        owners[topic_id][progress_id] = member_id
    db.execute("UPDATE groups SET generation = generation + 1 WHERE group_id = ?", (group_id,))
    db.executemany(
        "UPDATE progress SET member_id = ?, epoch = epoch + 1 WHERE progress_id = ?",
        [
            (owner, progress_id)
            for topic_id, before in owners.items()
            for progress_id, owner in balanced(before, members[topic_id]).items()
            if owner != before[progress_id]
        ],
    )


def _remove(db: sqlite3.Connection, member_ids: Iterable[int]) -> None:
    for member_id in member_ids:
        db.execute("DELETE FROM members WHERE member_id = ?", (member_id,))
        db.execute("DELETE FROM member_topics WHERE member_id = ?", (member_id,))


def _group_id(db: sqlite3.Connection, member: Member) -> int:
    (group_id,) = db.execute(
        "SELECT group_id FROM groups WHERE name = ?", (member.group,)
    ).fetchone()
    return int(group_id)

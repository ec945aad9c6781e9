"""Table of tasks in memory, with its indexes."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf, nextafter

from flowkit.errors import StoreError
from flowkit.protocols import ArchivedPart, Commit, TaskHeader, TaskQuery, TaskRecord
from flowkit_testing._time_index import TimeIndex

_NO_LABELS: dict[str, str] = {}


class TaskRow:
    """Task with its fixed parts and those that commits change in place."""

    __slots__ = (
        "_archive",
        "created",
        "finished_at",
        "labels",
        "op_id",
        "parts",
        "spec",
        "status",
        "tags",
        "version",
        "wake_at",
    )

    def __init__(self, record: TaskRecord) -> None:
        header = record.header
        self.created = header
        self.labels = dict(header.labels) if header.labels else _NO_LABELS
        self.status = header.status
        self.wake_at = header.wake_at
        self.finished_at = header.finished_at
        self.tags = frozenset(header.tags)
        self.spec = bytes(record.spec)
        self.parts = {name: bytes(data) for name, data in record.parts.items()}
        self.version = record.version
        self.op_id = record.op_id
        self._archive: dict[str, tuple[int, bytes]] | None = None

    @property
    def archive(self) -> Mapping[str, tuple[int, bytes]]:
        """Rank and data of the archived parts, by name."""
        return {} if self._archive is None else self._archive

    def record(self) -> TaskRecord:
        """Return the current task. It shares no data with the row."""
        created = self.created
        header = TaskHeader(
            created.task_id,
            self.status,
            created.created_at,
            created.pipeline,
            self.labels.copy(),
            created.idempotency_key,
            self.wake_at,
            self.finished_at,
            self.tags,
        )
        return TaskRecord(header, self.spec, self.parts.copy(), self.version, self.op_id)

    def keep(self, part: ArchivedPart) -> None:
        """Archive a part, unless one with a higher rank is archived."""
        if self._archive is None:
            self._archive = {}
        kept = self._archive.get(part.name)
        if kept is None or kept[0] < part.rank:
            self._archive[part.name] = part.rank, bytes(part.data)

    def matches(self, query: TaskQuery) -> bool:
        return (
            (not query.statuses or self.status in query.statuses)
            and (query.pipeline is None or self.created.pipeline == query.pipeline)
            and all(self.labels.get(name) == value for name, value in query.labels.items())
            and self.tags.issuperset(query.tags)
        )


Age = tuple[float, str]
"""Time at which a task was created, and its id."""


class TagIndex:
    """Tasks by their tags, in order of age. The tasks of a tag are sorted when they are read."""

    def __init__(self) -> None:
        self._ages: dict[str, set[Age]] = {}
        self._sorted: dict[str, list[Age]] = {}

    def change(self, age: Age, before: frozenset[str], after: frozenset[str]) -> None:
        """Replace the tags of a task."""
        for tag in before - after:
            ages = self._ages[tag]
            ages.remove(age)
            if not ages:
                del self._ages[tag]
            self._sorted.pop(tag, None)
        for tag in after - before:
            self._ages.setdefault(tag, set()).add(age)
            self._sorted.pop(tag, None)

    def ages(self, tags: Iterable[str]) -> Sequence[Age]:
        """Return the tasks of the rarest of these tags."""
        tag = min(tags, key=lambda tag: len(self._ages.get(tag, ())))
        if tag not in self._ages:
            return ()
        found = self._sorted.get(tag)
        if found is None:
            found = self._sorted[tag] = sorted(self._ages[tag])
        return found


class TaskTable:
    """Rows by id, idempotency key, age, tag, wake-up time and end."""

    def __init__(self) -> None:
        self.rows: dict[str, TaskRow] = {}
        self._keys: dict[str, str] = {}
        self._by_age: list[Age] = []
        self._tags = TagIndex()
        self._wakes = TimeIndex[str]()
        self._ends = TimeIndex[str]()
        """Ends of the tasks that are not to be woken."""

    def create(self, record: TaskRecord) -> str:
        """Add a task and return its id, or that of the task with the same idempotency key."""
        header = record.header
        if header.task_id in self.rows:
            return header.task_id
        if header.idempotency_key is not None:
            first = self._keys.setdefault(header.idempotency_key, header.task_id)
            if first != header.task_id:
                return first
        row = self.rows[header.task_id] = TaskRow(record)
        age = (header.created_at, header.task_id)
        if row.tags:
            self._tags.change(age, frozenset(), row.tags)
        if self._by_age and age < self._by_age[-1]:
            insort(self._by_age, age)
        else:
            self._by_age.append(age)
        if header.wake_at is not None:
            self._wakes.set(header.task_id, header.wake_at)
        elif header.finished_at is not None:
            self._ends.set(header.task_id, header.finished_at)
        return header.task_id

    def commit(self, commit: Commit) -> bool:
        """Apply a commit if its version matches."""
        row = self.rows.get(commit.task_id)
        if row is None or row.version != commit.expected_version:
            return False
        for part in commit.archive:
            row.keep(part)
        for name in commit.drop:
            row.parts.pop(name, None)
        for name, data in commit.put.items():
            row.parts[name] = bytes(data)
        if row.wake_at != commit.wake_at or row.finished_at != commit.finished_at:
            row.wake_at, row.finished_at = commit.wake_at, commit.finished_at
            self._wakes.set(commit.task_id, commit.wake_at)
            self._ends.set(commit.task_id, None if row.wake_at is not None else row.finished_at)
        if row.tags is not commit.tags and row.tags != commit.tags:
            tags = frozenset(commit.tags)
            self._tags.change((row.created.created_at, commit.task_id), row.tags, tags)
            row.tags = tags
        row.status = commit.status
        row.op_id = commit.op_id
        row.version += 1
        return True

    def due(self, *, before: float, limit: int) -> list[str]:
        return [task_id for _, task_id in self._wakes.first(limit, until=before)]

    def ended(self, *, before: float, limit: int) -> list[str]:
        """Return the ids of the tasks that ended before this time and are not to be woken."""
        # An end at exactly this time does not count, even if several tasks share it.
        found = self._ends.first(limit, until=before)
        return [task_id for at, task_id in found if at < before]

    def delete(self, task_ids: Iterable[str]) -> None:
        gone = set(task_ids)
        for task_id in gone:
            row = self.rows.pop(task_id)
            self._wakes.set(task_id, None)
            self._ends.set(task_id, None)
            self._tags.change((row.created.created_at, task_id), row.tags, frozenset())
            if row.created.idempotency_key is not None:
                del self._keys[row.created.idempotency_key]
        self._by_age = [age for age in self._by_age if age[1] not in gone]

    def page(self, query: TaskQuery) -> tuple[list[TaskRecord], str | None]:
        """Return a page of matching records, and its cursor if there are more."""
        found: list[TaskRecord] = []
        last: Age | None = None
        for age in self._in_order(query):
            row = self.rows[age[1]]
            if row.matches(query):
                if len(found) == query.limit:
                    return found, None if last is None else f"{last[0]!r}/{last[1]}"
                found.append(row.record())
                last = age
        return found, None

    def _in_order(self, query: TaskQuery) -> Iterator[Age]:
        """Yield the tasks with one of the tags, if there are any, in the range of time."""
        ages = self._tags.ages(query.tags) if query.tags else self._by_age
        before = inf if query.created_before is None else query.created_before
        after = -inf if query.created_after is None else nextafter(query.created_after, inf)
        first, end = bisect_left(ages, (after, "")), bisect_left(ages, (before, ""))
        if query.after is not None:
            cursor = _cursor(query.after)
            if query.oldest_first:
                first = max(first, bisect_right(ages, cursor))
            else:
                end = min(end, bisect_left(ages, cursor))
        places = range(first, end)
        for place in places if query.oldest_first else reversed(places):
            yield ages[place]


def _cursor(after: str) -> Age:
    """Return the place of the last task of the page before."""
    created_at, _, task_id = after.partition("/")
    try:
        return float(created_at), task_id
    except ValueError:
        raise StoreError(
            f"invalid page cursor {after!r}; use the `next` of an earlier page"
        ) from None

"""Registered flows, as keyed records of the store.

A flow has a record for each of its versions, and a head that names the latest one. A version and
the head are stored in one change, which names the revision of the head before it. So the versions
have the numbers 1, 2, 3, … without a gap, and no number is given to two graphs.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from flowkit._json.limits import Moment
from flowkit._records.record_pages import pages_of
from flowkit._records.record_parts import corrupt
from flowkit._records.similar_names import similar_name
from flowkit._records.task_records import same_json
from flowkit.errors import CorruptRecord, FlowNotFound, RecordTooLarge, StoreUnavailable
from flowkit.graph._models import LAST_VERSION
from flowkit.protocols import KeyedRecord, RecordChange, RecordStore, utc
from flowkit.task import FlowInfo, FlowVersion

HEADS = "flow"
VERSIONS = "flow_version"
TRIES = 5

Number = Annotated[int, Field(ge=1, le=LAST_VERSION)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


M = TypeVar("M", bound=_Data)


class _Head(_Data):
    """Data of the head of a flow: its latest version, without the graph."""

    v: Literal[1] = 1
    version: Number
    description: str
    created_at: Moment


class _Version(_Data):
    """Data of a version. They are followed by a line with the graph."""

    v: Literal[1] = 1
    description: str
    created_at: Moment
    put_id: str
    """Name of the put that has made it."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """Version of a flow as it is stored."""

    name: str
    version: int
    description: str
    created_at: float
    graph: bytes
    put_id: str
    revision: str = ""

    def has_graph(self, graph: bytes) -> bool:
        """Return whether the version has this graph, as it is written. The order of keys in an
        object does not count.
        """
        try:
            return same_json(self.graph, graph)
        except ValueError:
            return False  # the stored graph is damaged

    def document(self) -> dict[str, Any]:
        """Return the graph as it was written.

        Raises:
            CorruptRecord: it is damaged.
        """
        what = f"the graph of {_named(self.name, self.version)}"
        try:
            found = from_json(self.graph)
        except ValueError as error:
            raise corrupt(what, error) from None
        if not isinstance(found, dict):
            raise CorruptRecord(f"{what} cannot be read: it is no object")
        return found

    def view(self) -> FlowVersion:
        """Return the version for users.

        Raises:
            CorruptRecord: the graph is damaged.
        """
        return FlowVersion(
            name=self.name,
            version=self.version,
            graph=self.document(),
            description=self.description,
            created_at=utc(self.created_at),
        )


# ---------------------------------------------------------------- reads


async def latest_versions(records: RecordStore, names: Collection[str]) -> dict[str, int]:
    """Return the number of the latest version of those flows that exist, by name.

    Raises:
        CorruptRecord: the head of one of them is damaged.
    """
    heads = await records.get(HEADS, names) if names else {}
    return {name: decode_head(record).version for name, record in heads.items()}


async def read_versions(
    records: RecordStore, wanted: Collection[tuple[str, int]]
) -> dict[tuple[str, int], StoredVersion]:
    """Return those of these versions that exist, by the name of the flow and the number.

    Raises:
        CorruptRecord: one of them is damaged.
    """
    keys = [version_key(name, number) for name, number in wanted]
    found = await records.get(VERSIONS, keys) if keys else {}
    versions = map(decode_version, found.values())
    return {(one.name, one.version): one for one in versions}


async def read_version(records: RecordStore, name: str, number: int) -> StoredVersion:
    """Return a version of a flow.

    Raises:
        FlowNotFound: there is no such flow, or it has no such version.
        CorruptRecord: the record is damaged.
    """
    found = await read_versions(records, [(name, number)])
    if not found:
        known = bool(await records.get(HEADS, [name]))
        near = None if known else await similar_name(records, HEADS, name)
        raise FlowNotFound(name, number if known else None, near=near)
    return found[name, number]


async def read_infos(records: RecordStore) -> list[FlowInfo]:
    """Return the latest version of each flow, by name. A damaged one has a ``fault``."""
    return [_info_of(head) async for page in pages_of(records, HEADS) for head in page]


def _info_of(record: KeyedRecord) -> FlowInfo:
    try:
        head = decode_head(record)
    except CorruptRecord as error:
        return FlowInfo(name=record.key, fault=str(error))
    return FlowInfo(
        name=record.key,
        version=head.version,
        description=head.description,
        created_at=utc(head.created_at),
    )


# ---------------------------------------------------------------- changes


class FlowPut:
    """Put of a graph as the latest version of a flow.

    The put makes one version, also if :meth:`apply` is repeated after an unknown outcome.
    """

    def __init__(self, name: str, graph: bytes, description: str) -> None:
        """With an empty ``description``, a version that exists keeps its own."""
        self._name = name
        self._graph = graph
        self._description = description
        self._put_id = token_hex(8)
        self._tried: set[int] = set()
        """Numbers that the put may have got."""

    async def apply(self, records: RecordStore, *, now: float) -> StoredVersion:
        """Store the version, unless the latest one has the same graph. Return the stored one.

        Raises:
            CorruptRecord: the head of the flow is damaged.
            RecordTooLarge: the graph is too large for a record of the store.
            StoreUnavailable: the outcome is unknown; call this again.
        """
        for _ in range(TRIES):
            head, last = await head_of(records, self._name)
            versions = await self._versions(records, {*self._tried, last} - {0})
            own = (one for one in versions.values() if one.put_id == self._put_id)
            if (mine := next(own, None)) is not None:
                return mine
            latest = versions.get(last)
            if latest is None or not latest.has_graph(self._graph):
                new = StoredVersion(
                    self._name, last + 1, self._description, now, self._graph, self._put_id
                )
                self._tried.add(new.version)
            elif self._description in ("", latest.description):
                return latest
            else:
                new = replace(latest, description=self._description)
            if await store_versions(records, [new], head):
                return new
        raise StoreUnavailable(f"flow {self._name!r} changes too often; try again")

    async def _versions(
        self, records: RecordStore, numbers: Collection[int]
    ) -> Mapping[int, StoredVersion]:
        """Return these versions. A damaged one is left out, and so replaced by a later one."""
        keys = [version_key(self._name, number) for number in numbers]
        found = await records.get(VERSIONS, keys) if keys else {}
        versions = {}
        for record in found.values():
            with suppress(CorruptRecord):
                version = decode_version(record)
                versions[version.version] = version
        return versions


async def head_of(records: RecordStore, name: str) -> tuple[KeyedRecord | None, int]:
    """Return the head of a flow and the number in it; 0 if there is no such flow.

    Raises:
        CorruptRecord: the head is damaged.
    """
    head = (await records.get(HEADS, [name])).get(name)
    return head, 0 if head is None else decode_head(head).version


async def store_versions(
    records: RecordStore, versions: Sequence[StoredVersion], head: KeyedRecord | None
) -> bool:
    """Store versions of a flow with this head, which then names the latest one. Return whether that
    was possible.

    Raises:
        RecordTooLarge: a graph is too large for a record of the store.
    """
    last = versions[-1]
    puts = [_version_record(one) for one in versions]
    if head is None or last.version >= decode_head(head).version:
        latest = _Head(
            version=last.version, description=last.description, created_at=last.created_at
        )
        revision = "" if head is None else head.revision
        puts.append(KeyedRecord(HEADS, last.name, latest.model_dump_json().encode(), revision))
    try:
        (stored,) = await records.change([RecordChange(token_hex(8), puts)])
    except RecordTooLarge as error:
        size = max(len(one.graph) for one in versions)
        raise RecordTooLarge(
            f"the graph of flow {last.name!r} has {size} bytes, too many for one record: {error}"
        ) from error
    return stored


# ---------------------------------------------------------------- data


def version_key(name: str, number: int) -> str:
    """Return the key of the record of a version."""
    return f"{name}@{number:010d}"


def name_and_number(key: str) -> tuple[str, int]:
    """Return the name of the flow and the number of the version with this key.

    Raises:
        CorruptRecord: it is no such key.
    """
    name, _, number = key.rpartition("@")
    if not (number.isdecimal() and 1 <= int(number) <= LAST_VERSION) or (
        version_key(name, int(number)) != key
    ):
        raise CorruptRecord(f"{key!r} is not the key of a version of a flow")
    return name, int(number)


def _named(name: str, number: int) -> str:
    return f"version {number} of flow {name!r}"


def decode_head(record: KeyedRecord) -> _Head:
    """Return the head of a flow in a record.

    Raises:
        CorruptRecord: it cannot be decoded.
    """
    return _validated(_Head, record, record.data, f"the record of flow {record.key!r}")


def decode_version(record: KeyedRecord) -> StoredVersion:
    """Return the version in a record.

    Raises:
        CorruptRecord: it cannot be decoded.
    """
    name, number = name_and_number(record.key)
    line, _, graph = record.data.partition(b"\n")
    data = _validated(_Version, record, line, f"the record of {_named(name, number)}")
    return StoredVersion(
        name, number, data.description, data.created_at, graph, data.put_id, record.revision
    )


def _version_record(version: StoredVersion) -> KeyedRecord:
    data = _Version(
        description=version.description, created_at=version.created_at, put_id=version.put_id
    )
    return KeyedRecord(
        VERSIONS,
        version_key(version.name, version.version),
        b"%b\n%b" % (data.model_dump_json().encode(), version.graph),
        version.revision,
    )


def _validated(model: type[M], record: KeyedRecord, data: bytes, what: str) -> M:
    """Return the data of a record.

    Raises:
        CorruptRecord: the record is damaged.
    """
    if record.fault is not None:
        raise CorruptRecord(f"{what} cannot be read: {record.fault}")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise corrupt(what, error) from None

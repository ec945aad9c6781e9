"""Conformance suite for artifact stores."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest

from flowkit.errors import RecordTooLarge
from flowkit.protocols import ArtifactRecord, ArtifactStore, Stream
from flowkit_testing.conformance._artifact_processes import ArtifactProcesses, item
from flowkit_testing.conformance._common import assert_new
from flowkit_testing.conformance._exact_texts import assert_kept_apart
from flowkit_testing.conformance._store_base import NOON

OpenArtifacts = Callable[[], AbstractAsyncContextManager[ArtifactStore]]


class ArtifactStoreConformance(ArtifactProcesses):
    """Test of each promise of :class:`flowkit.protocols.ArtifactStore`.

    Subclass it and provide the fixture ``artifacts``. ``open_artifacts`` returns further
    connections to the same data, each as an asynchronous context manager. ``opener`` tells other
    processes how to open it. Tests that need a missing fixture are skipped.
    """

    oversize_bytes: ClassVar[int | None] = 64 * 1024 * 1024
    """Size that the store rejects; None if it accepts every size that fits into memory."""

    @pytest.fixture
    def open_artifacts(self) -> OpenArtifacts | None:
        return None

    # ------------------------------------------------------------ putting

    @pytest.mark.parametrize("partial", [True, False])
    @pytest.mark.parametrize(
        "meta",
        [None, b"{}", b'{"k.e$y":"\xc3\xbc"}', b'"' + b"x" * 500_000 + b'"', b"\x00\xff\xfe"],
        ids=["none", "empty", "odd", "large", "binary"],
    )
    async def test_a_record_is_read_as_it_was_put(
        self, artifacts: ArtifactStore, stream: Stream, partial: bool, meta: bytes | None
    ) -> None:
        put = ArtifactRecord(stream, "u", partial, meta, b'{"rows":1}', NOON + 0.25)
        assert list(await artifacts.put([put])) == [True]
        assert list(await artifacts.read(stream)) == [
            ArtifactRecord(stream, "u", partial, meta, b'{"rows":1}', NOON + 0.25, 1)
        ]

    async def test_putting_nothing_is_allowed(self, artifacts: ArtifactStore) -> None:
        assert list(await artifacts.put([])) == []

    async def test_the_store_sets_the_position(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        await artifacts.put([ArtifactRecord(stream, "u", True, None, b"{}", NOON, position=77)])
        assert [found.position for found in await artifacts.read(stream)] == [1]

    @pytest.mark.parametrize(
        "uid", ["plain", "a.b", "$set", "with space/and:colon", "ключ-✓", "", "u" * 500]
    )
    async def test_a_uid_may_be_any_text(
        self, artifacts: ArtifactStore, stream: Stream, uid: str
    ) -> None:
        assert list(await artifacts.put([item(stream, uid)])) == [True]
        assert list(await artifacts.put([item(stream, uid)])) == [False]
        assert await artifacts.known(stream, [uid, f"{uid}-other"]) == {uid}

    async def test_of_two_puts_the_first_stays(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        assert list(await artifacts.put([item(stream, "u", b"1")])) == [True]
        assert list(await artifacts.put([item(stream, "u", b"2")])) == [False]
        assert [(found.meta, found.position) for found in await artifacts.read(stream)] == [
            (b"1", 1)
        ]

    async def test_of_two_in_one_call_the_first_stays(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        assert list(
            await artifacts.put(
                [item(stream, "u", b"1"), item(stream, "v"), item(stream, "u", b"2")]
            )
        ) == [True, True, False]
        assert [(found.uid, found.meta) for found in await artifacts.read(stream)] == [
            ("u", b"1"),
            ("v", b"{}"),
        ]

    @pytest.mark.parametrize("count", [2, 10])
    async def test_of_puts_at_the_same_time_one_is_new(
        self, artifacts: ArtifactStore, stream: Stream, count: int
    ) -> None:
        await self.race([artifacts] * count, stream)

    async def test_of_puts_over_two_connections_one_is_new(
        self, artifacts: ArtifactStore, open_artifacts: OpenArtifacts | None, stream: Stream
    ) -> None:
        async with open_another(open_artifacts) as other:
            await self.race([artifacts, other] * 4, stream)

    async def race(self, stores: Sequence[ArtifactStore], stream: Stream) -> None:
        """Put the same uid through each connection. The one reported as new is the one kept."""
        new: list[bytes] = []

        async def put(store: ArtifactStore, meta: bytes) -> None:
            if (await store.put([item(stream, "u", meta)]))[0]:
                new.append(meta)

        async with anyio.create_task_group() as tasks:
            for number, store in enumerate(stores):
                tasks.start_soon(put, store, b"%d" % number)
        assert [found.meta for found in await stores[0].read(stream)] == new
        assert len(new) == 1

    async def test_positions_grow_by_one_past_duplicates(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        for uids in (["a", "b"], ["a", "c", "b"], [], ["c"], ["d"]):
            await artifacts.put([item(stream, uid) for uid in uids])
        assert [(found.uid, found.position) for found in await artifacts.read(stream)] == [
            ("a", 1),
            ("b", 2),
            ("c", 3),
            ("d", 4),
        ]

    async def test_the_order_within_a_call_is_kept(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        uids = [f"{number * 37 % 200:03}" for number in range(200)]
        await artifacts.put([item(stream, uid) for uid in uids])
        assert [found.uid for found in await artifacts.read(stream, limit=1000)] == uids

    async def test_puts_at_the_same_time_leave_no_gap(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        calls = [[f"{call}-{number}" for number in range(5)] for call in range(10)]
        async with anyio.create_task_group() as tasks:
            for uids in calls:
                tasks.start_soon(artifacts.put, [item(stream, uid) for uid in uids])
        found = await artifacts.read(stream)
        assert [record.position for record in found] == list(range(1, 51))
        for uids in calls:
            assert [record.uid for record in found if record.uid in uids] == uids

    async def test_a_reader_that_follows_the_writers_misses_nothing(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        seen: list[ArtifactRecord] = []

        async def write(writer: int) -> None:
            for number in range(10):
                await artifacts.put(
                    [item(stream, f"{writer}-{number}"), item(stream, f"shared-{number}")]
                )

        with anyio.fail_after(self.patience):
            async with anyio.create_task_group() as tasks:
                for writer in range(4):
                    tasks.start_soon(write, writer)
                while len(seen) < 50:
                    seen += await artifacts.read(
                        stream, after=seen[-1].position if seen else 0, limit=7
                    )
                    await anyio.lowlevel.checkpoint()
        assert [record.position for record in seen] == list(range(1, 51))
        assert len({record.uid for record in seen}) == 50

    async def test_a_record_above_the_limit_is_refused_and_nothing_is_stored(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        if self.oversize_bytes is None:
            pytest.skip("the store has no limit")
        with pytest.raises(RecordTooLarge):
            await artifacts.put(
                [item(stream, "small"), item(stream, "huge", b"x" * self.oversize_bytes)]
            )
        assert list(await artifacts.read(stream)) == []
        assert await artifacts.known(stream, ["small", "huge"]) == set()

    # ------------------------------------------------------------ streams

    @pytest.mark.parametrize(
        "differs",
        [{"task_id": "other"}, {"node_id": "other"}, {"generation": 1}, {"generation": -2}],
        ids=["task", "node", "generation", "negative"],
    )
    async def test_streams_are_apart(
        self, artifacts: ArtifactStore, stream: Stream, differs: dict[str, Any]
    ) -> None:
        if "task_id" in differs:
            differs = {"task_id": f"{stream.task_id}-other"}
        other = replace(stream, **differs)
        assert (
            list(
                await artifacts.put(
                    [item(stream, "u", b"1"), item(other, "u", b"2"), item(other, "v", b"3")]
                )
            )
            == [True] * 3
        )
        assert [(found.meta, found.position) for found in await artifacts.read(stream)] == [
            (b"1", 1)
        ]
        assert [(found.meta, found.position) for found in await artifacts.read(other)] == [
            (b"2", 1),
            (b"3", 2),
        ]
        assert await artifacts.known(stream, ["u", "v"]) == {"u"}

    @pytest.mark.parametrize("node_id", ["a.b", "$set", "node[0]", "ключ ✓"])
    async def test_a_node_may_have_any_id(
        self, artifacts: ArtifactStore, unique: str, node_id: str
    ) -> None:
        stream = Stream(f"task-{unique}", node_id, 3)
        await artifacts.put([item(stream, "u")])
        assert [found.stream for found in await artifacts.read(stream)] == [stream]

    async def test_uids_are_compared_exactly(
        self, artifacts: ArtifactStore, stream: Stream, unique: str
    ) -> None:
        async def keep(uid: str, number: int) -> None:
            assert list(await artifacts.put([item(stream, uid, b"%d" % number)])) == [True], (
                f"{uid!r} was confused with another uid"
            )

        async def find(uid: str) -> list[int]:
            found = [
                int(record.meta or b"")
                for record in await artifacts.read(stream)
                if record.uid == uid
            ]
            assert await artifacts.known(stream, [uid]) == ({uid} if found else set())
            return found

        await assert_kept_apart(unique, keep, find)

    @pytest.mark.parametrize("field", ["task_id", "node_id"])
    async def test_the_ids_of_streams_are_compared_exactly(
        self, artifacts: ArtifactStore, stream: Stream, unique: str, field: str
    ) -> None:
        def of(text: str) -> Stream:
            return Stream(text, "node") if field == "task_id" else Stream(stream.task_id, text)

        async def keep(text: str, number: int) -> None:
            assert list(await artifacts.put([item(of(text), "u", b"%d" % number)])) == [True], (
                f"{text!r} was confused with another id"
            )

        async def find(text: str) -> list[int]:
            scanned = [
                record
                for _, record in await artifacts.scan(of(text).task_id)
                if record.stream == of(text)
            ]
            assert scanned == list(await artifacts.read(of(text)))
            return [int(record.meta or b"") for record in scanned]

        await assert_kept_apart(unique, keep, find)

    # ------------------------------------------------------------ reading

    async def test_a_stream_without_records_is_empty(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        assert list(await artifacts.read(stream)) == []
        assert await artifacts.known(stream, ["u"]) == set()
        assert list(await artifacts.scan(stream.task_id)) == []

    @pytest.mark.parametrize(
        ("after", "limit", "expected"),
        [(0, 3, [1, 2, 3]), (3, 3, [4, 5, 6]), (8, 5, [9, 10]), (10, 5, []), (99, 5, [])],
    )
    async def test_reading_goes_on_after_a_position(
        self, artifacts: ArtifactStore, stream: Stream, after: int, limit: int, expected: list[int]
    ) -> None:
        await artifacts.put([item(stream, f"{number}") for number in range(10)])
        assert [
            found.position for found in await artifacts.read(stream, after=after, limit=limit)
        ] == expected

    async def test_the_latest_read_misses_nothing_that_was_confirmed(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        for number in range(5):
            await artifacts.put([item(stream, f"{number}")])
            assert [
                found.uid for found in await artifacts.read(stream, after=number, latest=True)
            ] == [f"{number}"]
        assert list(await artifacts.read(stream, after=5, latest=True)) == []

    async def test_known_says_which_uids_are_held(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        await artifacts.put([item(stream, f"{number}") for number in range(300)])
        assert await artifacts.known(stream, [f"{number}" for number in range(290, 310)]) == {
            f"{number}" for number in range(290, 300)
        }
        assert await artifacts.known(stream, []) == set()

    @pytest.mark.parametrize("limit", [1, 3, 100])
    async def test_scanning_goes_through_all_streams_of_a_task_by_time(
        self, artifacts: ArtifactStore, stream: Stream, limit: int
    ) -> None:
        streams = [
            Stream(stream.task_id, node, generation) for node in ("a", "b") for generation in (0, 1)
        ]
        await artifacts.put(
            [item(streams[n * 7 % 4], f"u{n}", at=NOON + n * 5 % 12) for n in range(12)]
        )
        await artifacts.put([item(Stream(f"{stream.task_id}-other", "a"), "foreign")])
        seen: list[ArtifactRecord] = []
        cursor: tuple[float, str] | None = None
        while page := await artifacts.scan(stream.task_id, after=cursor, limit=limit):
            assert len(page) <= limit
            cursor = page[-1][0]
            assert_new([record for _, record in page], seen)
            seen += [record for _, record in page]
        assert [record.created_at for record in seen] == [NOON + n for n in range(12)]
        assert {record.uid for record in seen} == {f"u{n}" for n in range(12)}

    @pytest.mark.parametrize("limit", [1, 2, 3])
    async def test_scanning_goes_through_records_of_the_same_time(
        self, artifacts: ArtifactStore, stream: Stream, limit: int
    ) -> None:
        await artifacts.put(
            [item(Stream(stream.task_id, node), uid) for node in "ab" for uid in "xyz"]
        )
        seen: list[tuple[str, str]] = []
        cursor: tuple[float, str] | None = None
        while page := await artifacts.scan(stream.task_id, after=cursor, limit=limit):
            cursor = page[-1][0]
            names = [(record.stream.node_id, record.uid) for _, record in page]
            assert_new(names, seen)
            seen += names
        assert sorted(seen) == [(node, uid) for node in "ab" for uid in "xyz"]

    async def test_every_cursor_of_a_scan_goes_on_behind_its_record(
        self, artifacts: ArtifactStore, stream: Stream
    ) -> None:
        await artifacts.put(
            [item(stream, f"{number}", at=NOON + number // 2) for number in range(6)]
        )
        page = await artifacts.scan(stream.task_id)
        for number, (cursor, _) in enumerate(page, 1):
            rest = await artifacts.scan(stream.task_id, after=cursor)
            assert [record.uid for _, record in rest] == [record.uid for _, record in page[number:]]

    async def test_another_connection_reads_what_was_put(
        self, artifacts: ArtifactStore, open_artifacts: OpenArtifacts | None, stream: Stream
    ) -> None:
        async with open_another(open_artifacts) as other:
            await artifacts.put([item(stream, "u")])
            assert list(await other.put([item(stream, "u"), item(stream, "v")])) == [False, True]
            assert [(found.uid, found.position) for found in await artifacts.read(stream)] == [
                ("u", 1),
                ("v", 2),
            ]


def open_another(
    open_artifacts: OpenArtifacts | None,
) -> AbstractAsyncContextManager[ArtifactStore]:
    """Open another connection, or skip the test with a reason."""
    if open_artifacts is None:
        pytest.skip("needs the fixture open_artifacts")
    return open_artifacts()

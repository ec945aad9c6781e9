"""The store suite: sessions of workers, and dead letters."""

import anyio
import pytest

from flowkit.protocols import LETTER_KINDS, DeadLetter, LetterKind, Store, WorkerSession
from flowkit_testing.conformance._common import assert_new
from flowkit_testing.conformance._store_base import NOON, OpenStore, StoreSuite, open_another


class Sessions(StoreSuite):
    """Sessions of workers."""

    async def sessions(self, store: Store, unique: str) -> dict[str, WorkerSession]:
        return {
            found.worker_id: WorkerSession(
                found.worker_id, list(found.roles), found.beat, found.started_at, dict(found.info)
            )
            for found in await store.sessions()
            if unique in found.worker_id
        }

    @pytest.mark.parametrize(
        "roles", [[], ["one"], ["b", "a", "c"]], ids=["none", "one", "several"]
    )
    @pytest.mark.parametrize(
        "info", [{}, {"host": "h", "a.b": "x", "$k": "ü"}], ids=["plain", "odd"]
    )
    async def test_a_session_is_listed_as_it_was_renewed(
        self, store: Store, unique: str, roles: list[str], info: dict[str, str]
    ) -> None:
        session = WorkerSession(f"w.{unique}", roles, 1, NOON + 0.25, info)
        await store.renew_session(session)
        assert await self.sessions(store, unique) == {f"w.{unique}": session}

    async def test_a_renewed_session_takes_the_place_of_the_last(
        self, store: Store, unique: str
    ) -> None:
        for beat in (1, 2, 3):
            await store.renew_session(
                WorkerSession(unique, [f"role{beat}"], beat, NOON, {f"key{beat}": "x"})
            )
        assert await self.sessions(store, unique) == {
            unique: WorkerSession(unique, ["role3"], 3, NOON, {"key3": "x"})
        }

    async def test_a_renewal_returns_the_session_that_it_replaced(
        self, store: Store, unique: str
    ) -> None:
        first = WorkerSession(unique, ["r"], 7, NOON, {"incarnation": "a"})
        assert await store.renew_session(first) is None
        replaced = await store.renew_session(
            WorkerSession(unique, ["s"], 1, NOON + 1, {"incarnation": "b"})
        )
        assert replaced is not None
        found = WorkerSession(
            replaced.worker_id,
            list(replaced.roles),
            replaced.beat,
            replaced.started_at,
            dict(replaced.info),
        )
        assert found == first
        await store.end_session(unique)
        assert await store.renew_session(first) is None

    async def test_renewals_at_the_same_time_replace_each_other_one_by_one(
        self, store: Store, unique: str
    ) -> None:
        replaced: list[WorkerSession | None] = []

        async def renew(number: int) -> None:
            replaced.append(await store.renew_session(WorkerSession(unique, ["r"], number, NOON)))

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(renew, number)
        seen = [session.beat for session in replaced if session is not None]
        assert len(seen) == len(set(seen)) == 4
        assert {*seen, (await self.sessions(store, unique))[unique].beat} == set(range(5))

    async def test_each_worker_has_a_session(self, store: Store, unique: str) -> None:
        for number in range(3):
            await store.renew_session(WorkerSession(f"{unique}-{number}", ["r"], number, NOON))
        assert {
            name: found.beat for name, found in (await self.sessions(store, unique)).items()
        } == {f"{unique}-{n}": n for n in range(3)}

    async def test_an_ended_session_is_forgotten(self, store: Store, unique: str) -> None:
        for name in ("a", "b"):
            await store.renew_session(WorkerSession(unique + name, ["r"], 1, NOON))
        await store.end_session(f"{unique}a")
        assert set(await self.sessions(store, unique)) == {f"{unique}b"}

    async def test_a_session_may_come_back(self, store: Store, unique: str) -> None:
        await store.renew_session(WorkerSession(unique, ["r"], 5, NOON))
        await store.end_session(unique)
        await store.renew_session(WorkerSession(unique, ["r"], 1, NOON))
        assert (await self.sessions(store, unique))[unique].beat == 1

    async def test_ending_a_session_that_is_not_there_does_nothing(
        self, store: Store, unique: str
    ) -> None:
        await store.end_session(unique)
        assert await self.sessions(store, unique) == {}

    async def test_what_the_worker_changes_afterwards_is_not_seen(
        self, store: Store, unique: str
    ) -> None:
        roles, info = ["r"], {"k": "1"}
        await store.renew_session(WorkerSession(unique, roles, 1, NOON, info))
        roles.append("intruder")
        info["k"] = "2"
        assert await self.sessions(store, unique) == {
            unique: WorkerSession(unique, ["r"], 1, NOON, {"k": "1"})
        }

    async def test_another_connection_sees_the_sessions(
        self, store: Store, open_store: OpenStore | None, unique: str
    ) -> None:
        await store.renew_session(WorkerSession(unique, ["r"], 1, NOON))
        async with open_another(open_store) as other:
            assert set(await self.sessions(other, unique)) == {unique}


def letter(letter_id: str, task_id: str | None = None, error: str = "boom") -> DeadLetter:
    return DeadLetter(letter_id, NOON, "batch", "bad_input", error, task_id)


class DeadLetters(StoreSuite):
    """Dead letters."""

    async def kept(
        self, store: Store, task_id: str, *, after: str = "", limit: int = 100
    ) -> list[str]:
        return [
            found.letter_id
            for found in await store.dead_letters(task_id=task_id, after=after, limit=limit)
        ]

    @pytest.mark.parametrize("kind", LETTER_KINDS)
    @pytest.mark.parametrize(
        "data", [b"", b"\x00\xff", b"x" * 100_000], ids=["empty", "binary", "large"]
    )
    async def test_a_letter_is_read_as_it_was_parked(
        self, store: Store, task_id: str, kind: LetterKind, data: bytes
    ) -> None:
        parked = DeadLetter(
            f"{task_id}.$1",
            NOON + 0.5,
            kind,
            "code",
            "grün: ✗",
            task_id,
            "node[0].x",
            "uid",
            data,
        )
        await store.park([parked])
        assert list(await store.dead_letters(task_id=task_id)) == [parked]

    @pytest.mark.parametrize("key", ["kéy", "\udcff\udcfe"], ids=["text", "no text"])
    async def test_every_field_of_a_letter_comes_back(
        self, store: Store, task_id: str, key: str
    ) -> None:
        parked = DeadLetter(
            task_id,
            NOON,
            "message",
            "refused",
            "no",
            task_id,
            data=b"\x00{",
            size=9,
            generation=2,
            attempt=3,
            topic="top.ic",
            key=key,
            partition=0,
            position=0,
            headers={"a.b": b"\xff", "$c": b""},
        )
        await store.park([parked])
        assert list(await store.dead_letters(task_id=task_id)) == [parked]

    async def test_a_letter_may_belong_to_no_task(self, store: Store, unique: str) -> None:
        parked = DeadLetter(unique, NOON, "message", "undecodable", "not JSON")
        await store.park([parked])
        assert parked in await store.dead_letters(after=unique[:-1], limit=1000)

    async def test_a_letter_is_parked_once(self, store: Store, task_id: str) -> None:
        await store.park([letter(f"{task_id}-1", task_id, "first")])
        await store.park(
            [letter(f"{task_id}-1", task_id, "again"), letter(f"{task_id}-2", task_id, "new")]
        )
        found = await store.dead_letters(task_id=task_id)
        assert [item.error for item in found] == ["first", "new"]

    async def test_one_call_may_name_a_letter_twice(self, store: Store, task_id: str) -> None:
        await store.park([letter(task_id, task_id, "first"), letter(task_id, task_id, "again")])
        assert [item.error for item in await store.dead_letters(task_id=task_id)] == ["first"]

    async def test_parking_nothing_is_allowed(self, store: Store, task_id: str) -> None:
        await store.park([])
        assert await self.kept(store, task_id) == []

    async def test_letters_come_by_their_id(self, store: Store, task_id: str) -> None:
        ids = [f"{task_id}-{number}" for number in range(5)]
        await store.park([letter(name, task_id) for name in (ids[3], ids[0], ids[4])])
        await store.park([letter(name, task_id) for name in (ids[2], ids[1])])
        assert await self.kept(store, task_id) == ids

    @pytest.mark.parametrize("limit", [1, 2, 7])
    async def test_letters_are_read_page_by_page(
        self, store: Store, task_id: str, limit: int
    ) -> None:
        ids = [f"{task_id}-{number}" for number in range(7)]
        await store.park([letter(name, task_id) for name in ids])
        seen: list[str] = []
        while page := await self.kept(store, task_id, after=seen[-1] if seen else "", limit=limit):
            assert len(page) <= limit
            assert_new(page, seen)
            seen += page
        assert seen == ids

    async def test_letters_of_one_task_are_read_by_themselves(
        self, store: Store, task_id: str
    ) -> None:
        await store.park(
            [
                letter(f"{task_id}-1", task_id),
                letter(f"{task_id}-2", f"{task_id}-other"),
                letter(f"{task_id}-3"),
            ]
        )
        assert await self.kept(store, task_id) == [f"{task_id}-1"]
        everyone = [found.letter_id for found in await store.dead_letters(after=task_id, limit=3)]
        assert everyone == [f"{task_id}-{number}" for number in (1, 2, 3)]

    async def test_letters_of_one_kind_are_read_by_themselves(
        self, store: Store, task_id: str
    ) -> None:
        kinds: tuple[LetterKind, ...] = ("batch", "message", "task", "message")
        for number, kind in enumerate(kinds):
            await store.park(
                [DeadLetter(f"{task_id}-{number}", NOON, kind, "code", "error", task_id)]
            )
        found = await store.dead_letters(task_id=task_id, kind="message")
        assert [item.letter_id for item in found] == [f"{task_id}-1", f"{task_id}-3"]
        everyone = await store.dead_letters(kind="message", after=task_id, limit=2)
        assert [item.letter_id for item in everyone] == [f"{task_id}-1", f"{task_id}-3"]

    async def test_letters_are_read_by_their_ids(self, store: Store, task_id: str) -> None:
        ids = [f"{task_id}-{number}" for number in range(5)]
        await store.park([letter(name, task_id) for name in ids])
        wanted = [ids[4], ids[1], f"{task_id}-unknown"]
        assert [item.letter_id for item in await store.dead_letters(letter_ids=wanted)] == [
            ids[1],
            ids[4],
        ]
        assert [
            item.letter_id for item in await store.dead_letters(letter_ids=wanted, after=ids[1])
        ] == [ids[4]]
        assert [
            item.letter_id for item in await store.dead_letters(letter_ids=wanted, limit=1)
        ] == [ids[1]]
        assert list(await store.dead_letters(letter_ids=[])) == []

    @pytest.mark.parametrize("by_ids", [False, True], ids=["all", "ids"])
    @pytest.mark.parametrize("by_task", [False, True], ids=["all", "task"])
    @pytest.mark.parametrize("kind", [None, "message"])
    async def test_all_that_letters_are_asked_for_must_hold(
        self, store: Store, task_id: str, kind: str | None, by_task: bool, by_ids: bool
    ) -> None:
        owners = [
            (each, owner) for each in LETTER_KINDS[1:3] for owner in (task_id, f"{task_id}-other")
        ] * 2
        parked = [
            DeadLetter(f"{task_id}-{number}", NOON, each, "code", "error", owner)
            for number, (each, owner) in enumerate(owners)
        ]
        await store.park(parked)
        ids = [f"{task_id}-{number}" for number in (0, 1, 2, 4)] if by_ids else None
        expected = [
            letter.letter_id
            for letter in parked
            if kind in (None, letter.kind)
            and (not by_task or letter.task_id == task_id)
            and (ids is None or letter.letter_id in ids)
        ]
        # Letters of other tests can only come after those of this test.
        found = await store.dead_letters(
            kind=kind,
            task_id=task_id if by_task else None,
            letter_ids=ids,
            after=task_id,
            limit=len(expected),
        )
        assert [letter.letter_id for letter in found] == expected

    async def test_dropping_says_how_many_there_were(self, store: Store, task_id: str) -> None:
        ids = [f"{task_id}-{number}" for number in range(3)]
        await store.park([letter(name, task_id) for name in ids])
        assert await store.drop_dead_letters([ids[0], ids[2], f"{task_id}-unknown"]) == 2
        assert await self.kept(store, task_id) == [ids[1]]
        assert await store.drop_dead_letters([ids[0]]) == 0
        assert await store.drop_dead_letters([]) == 0

    async def test_a_dropped_letter_may_be_parked_again(self, store: Store, task_id: str) -> None:
        await store.park([letter(task_id, task_id, "first")])
        await store.drop_dead_letters([task_id])
        await store.park([letter(task_id, task_id, "second")])
        assert [found.error for found in await store.dead_letters(task_id=task_id)] == ["second"]

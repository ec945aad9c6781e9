"""The artifact suite: several processes, and processes that are killed."""

import anyio
import pytest

from flowkit.protocols import ArtifactRecord, ArtifactStore, Stream
from flowkit_testing.conformance._common import Conformance
from flowkit_testing.conformance._processes import Opener, other_processes
from flowkit_testing.conformance._store_base import NOON


class ArtifactProcesses(Conformance):
    """Artifact store that several processes use.

    An adapter that works in one process only skips these tests.
    """

    @pytest.fixture
    def opener(self) -> Opener | None:
        """Return the way in which another process opens the same data.

        Tests that need another process are skipped by default.
        """
        return None

    @pytest.fixture
    def stream(self, unique: str) -> Stream:
        """Return a stream that only this test uses."""
        return Stream(f"task-{unique}", "node")

    async def test_of_puts_by_two_processes_one_is_new_for_each_uid(
        self, artifacts: ArtifactStore, opener: Opener | None, stream: Stream
    ) -> None:
        uids = [f"{number}" for number in range(20)]
        job = (
            "put_each",
            {"stream": [stream.task_id, stream.node_id, stream.generation], "uids": uids},
        )
        async with other_processes(opener, job, job) as (one, other):
            with anyio.fail_after(self.patience):
                await one.go()
                await other.go()
                new = [*await one.line(), *await other.line()]
        assert sorted(new) == sorted(uids)
        found = await artifacts.read(stream)
        assert sorted(record.uid for record in found) == sorted(uids)
        assert [record.position for record in found] == list(range(1, 21))

    async def test_a_process_that_is_killed_while_it_puts_leaves_no_gap(
        self, artifacts: ArtifactStore, opener: Opener | None, stream: Stream
    ) -> None:
        confirmed: list[str] = []
        for name in ("first", "second"):
            job = (
                "put_until_killed",
                {"stream": [stream.task_id, stream.node_id, stream.generation], "name": name},
            )
            async with other_processes(opener, job) as (other,):
                with anyio.fail_after(self.patience):
                    await other.go()
                    confirmed += [uid for _ in range(3) for uid in await other.line()]
                    await other.kill()
        assert await artifacts.put([item(stream, "last")]) == [True]
        found = await artifacts.read(stream, limit=1_000_000, latest=True)
        assert [record.position for record in found] == list(range(1, len(found) + 1))
        assert [record.uid for record in found if record.uid in confirmed] == confirmed
        assert found[-1].uid == "last"


def item(stream: Stream, uid: str, meta: bytes = b"{}", *, at: float = NOON) -> ArtifactRecord:
    return ArtifactRecord(stream, uid, True, meta, b"{}", at)

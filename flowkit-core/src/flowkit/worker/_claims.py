"""Claims of attempts: each attempt runs on one worker only."""

import asyncio
import secrets

from flowkit._records.claims import Claim, claim_record, read_claim
from flowkit._runtime.deadlines import patiently
from flowkit.messages import RunNode
from flowkit.protocols import ArtifactStore, Clock
from flowkit.worker._artifacts import ArtifactWriter


class Claims:
    """Claims attempts for one worker. Claims made during a write go into the next write."""

    def __init__(self, store: ArtifactStore, *, worker_id: str, clock: Clock) -> None:
        self._store = store
        self._worker_id = worker_id
        self._clock = clock
        # A writer of its own: a start never waits until large artifacts are stored.
        self._writer = ArtifactWriter(store, clock=clock)

    async def write_claims(self) -> None:
        """Run the loop that writes claims."""
        await self._writer.store_records()

    async def claim(self, command: RunNode) -> Claim | None:
        """Claim an attempt for this worker.

        Return None on success, else the earlier claim of another run.
        """
        claim = Claim(self._worker_id, self._clock.now(), secrets.token_hex(8))
        answer: asyncio.Future[bool | Exception] = asyncio.get_running_loop().create_future()

        def done(outcome: bool | Exception) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self._writer.add(claim_record(command.task_id, command.node_id, command.token, claim), done)
        outcome = await answer
        if isinstance(outcome, Exception):
            raise outcome
        return None if outcome else await self._earlier(command, claim)

    async def _earlier(self, command: RunNode, claim: Claim) -> Claim | None:
        """Return the stored claim if another run made it.

        A repeated write may find its own claim.
        """
        stored = await patiently(
            lambda: read_claim(self._store, command.task_id, command.node_id, command.token),
            clock=self._clock,
            what="read a claim",
        )
        return stored if stored is not None and stored.mark != claim.mark else None

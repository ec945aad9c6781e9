"""Storage of the dead letters of nodes, around the commits of their tasks."""

import logging
from collections.abc import Sequence

from flowkit._dead_letters.letter_states import LetterState, letter_states
from flowkit._records.letter_records import drop_letters, park_letters
from flowkit._runtime.retries import notices_of
from flowkit.errors import StoreError, StoreUnavailable
from flowkit.protocols import Clock, Store
from flowkit.task import DeadLetter

logger = logging.getLogger(__name__)


class NodeLetters:
    """Dead letters of nodes in a store. A store that refuses them does not stop their tasks."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def park(self, letters: Sequence[DeadLetter]) -> None:
        """Store dead letters. Call this before the commit, so that a crash loses none.

        Raises:
            StoreUnavailable: the store is unavailable.
        """
        if not letters:
            return
        try:
            await park_letters(self._store, letters)
        except StoreUnavailable:
            raise
        except StoreError as error:
            self._report("Dead letters cannot be stored", error, "letters_refused")

    async def drop(self, letter_ids: Sequence[str]) -> None:
        """Drop dead letters of nodes that succeeded. A letter that remains is harmless: its retry
        finds that the node has run again.
        """
        if not letter_ids:
            return
        try:
            await drop_letters(self._store, letter_ids)
        except StoreError as error:
            self._report("Dead letters cannot be dropped", error, "letters_left")

    async def drop_strays(self, letters: Sequence[DeadLetter]) -> None:
        """Drop those of these dead letters whose failure will never be committed.

        The letter of a node that has not ended stays: another coordinator may be about to commit
        the same failure.
        """
        try:
            states = await letter_states(self._store, letters)
        except StoreError as error:
            self._report("Dead letters cannot be checked", error, "letters_left")
            return
        await self.drop(
            [
                letter.letter_id
                for letter, state in zip(letters, states, strict=True)
                if state is LetterState.STRAY
            ]
        )

    def _report(self, message: str, error: StoreError, action: str) -> None:
        notices_of(self._clock).trouble(logger, "letters", message, error, action=action)

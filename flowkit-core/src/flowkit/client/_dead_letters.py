"""Dead letters, as clients list and retry them."""

from collections.abc import Collection
from functools import partial

from flowkit._dead_letters.letter_states import LetterState, letter_states
from flowkit._dead_letters.redrive import Redriven, Redriver
from flowkit._records.letter_records import read_letters
from flowkit.client._session import Session
from flowkit.client._task_maker import services_of
from flowkit.client._trigger_runs import TriggerRuns
from flowkit.task import LETTER_KINDS, LETTER_KINDS_TEXT, DeadLetter, Page


async def list_dead_letters(
    session: Session,
    *,
    task_id: str | None,
    kind: str | None,
    letter_ids: Collection[str] | None,
    limit: int,
    after: str,
) -> Page[DeadLetter]:
    """Return a page of the dead letters that match, by ``letter_id``."""
    store = session.store
    if kind not in (None, *LETTER_KINDS):
        raise ValueError(f"a dead letter is of the kind {LETTER_KINDS_TEXT}, not {kind!r}")
    if limit < 1:
        raise ValueError(f"limit is at least 1, not {limit}")
    letters = await read_letters(
        store, task_id=task_id, kind=kind, letter_ids=letter_ids, after=after, limit=limit + 1
    )
    states = await letter_states(store, letters[:limit])
    found = [
        letter
        for letter, state in zip(letters, states, strict=False)
        if state is LetterState.COMMITTED
    ]
    return Page(found, letters[limit - 1].letter_id if len(letters) > limit else None)


async def retry_dead_letters(session: Session, letter_ids: Collection[str]) -> list[Redriven]:
    """Retry the work of dead letters, and return the outcome of each."""
    redriver = Redriver(
        store=session.store,
        connection=session.connection,
        events_topic=session.cfg.events_topic,
        retry=session.change,
        make_again=TriggerRuns(services_of(session)).make_again,
        webhooks=partial(session.plugins.webhooks, session.cfg),
    )
    return await redriver.redrive(list(dict.fromkeys(letter_ids)))

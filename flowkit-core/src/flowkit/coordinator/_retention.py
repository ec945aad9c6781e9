"""Deletion of tasks that ended long ago."""

import logging
import random

from flowkit.errors import StoreError
from flowkit.protocols import Clock, Store

logger = logging.getLogger(__name__)


async def purge_regularly(
    store: Store, clock: Clock, *, keep_sec: float, interval_sec: float
) -> None:
    """Purge tasks that ended more than ``keep_sec`` ago, now and after each interval."""
    while True:
        try:
            await _purge_all(store, finished_before=clock.now() - keep_sec)
        except StoreError as error:
            logger.warning(
                "Purging failed and is tried again later: %s",
                error,
                extra={"action": "purge_failed"},
            )
        except Exception:
            logger.exception(
                "Purging failed and is tried again later", extra={"action": "purge_failed"}
            )
        # Several coordinators purge: the jitter keeps them from doing so at the same moment.
        await clock.sleep(interval_sec * random.uniform(0.8, 1.2))


async def _purge_all(store: Store, *, finished_before: float) -> None:
    while count := await store.purge(finished_before=finished_before):
        logger.info("Purged %d tasks", count, extra={"action": "purged", "count": count})

"""Endpoints of operators: approvals, workers, dead letters, figures and checks."""

import logging
from typing import Any

from fastapi import Request, Response

from flowkit import Approval, Page, WorkerView
from flowkit.adapters import why_unreadable
from flowkit.protocols import METRICS_TYPE, MetricsPage
from flowkit.task import LetterKind
from flowkit_web import _bodies as bodies
from flowkit_web._bodies import After, Limit
from flowkit_web._problems import Problem, invalid_arguments
from flowkit_web._routing import Id, OfCaller, OfClient
from flowkit_web._stats import Stats, StatsReader

logger = logging.getLogger(__name__)


async def list_approvals(
    client: OfClient,
    task_id: str | None = None,
    assignee: str | None = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[Approval]:
    """List the nodes that wait for a decision."""
    with invalid_arguments():
        return await client.approvals(task_id=task_id, assignee=assignee, limit=limit, after=after)


async def list_workers(client: OfClient) -> Page[WorkerView]:
    """List the workers with their load and their last heartbeat."""
    return Page(await client.workers(), None)


# ---------------------------------------------------------------- dead letters


async def list_letters(
    client: OfClient,
    task_id: str | None = None,
    kind: LetterKind | None = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[bodies.Letter]:
    """List dead letters by id."""
    page = await client.dead_letters(task_id=task_id, kind=kind, limit=limit, after=after or "")
    return Page([_letter(one.to_dict()) for one in page.items], page.next)


async def get_letter(client: OfClient, letter_id: Id) -> bodies.Letter:
    """Return a dead letter with all data that its work needs."""
    found = (await client.dead_letters(letter_ids=[letter_id])).items
    if not found:
        raise Problem(404, "letter_not_found", f"there is no dead letter {letter_id!r}")
    return _letter(found[0].to_dict())


def _letter(document: dict[str, Any]) -> bodies.Letter:
    return bodies.Letter.model_validate(document)


async def retry_letters(client: OfClient, body: bodies.LetterIds) -> Page[bodies.RetriedLetter]:
    """Retry the work of dead letters."""
    outcomes = await client.retry_dead_letters(body.letter_ids)
    return Page(
        [
            bodies.RetriedLetter(letter_id=one.letter_id, retried=one.done, detail=one.detail)
            for one in outcomes
        ],
        None,
    )


async def drop_letters(client: OfClient, body: bodies.LetterIds) -> dict[str, int]:
    """Delete dead letters, and return how many there were."""
    return {"dropped": await client.drop_dead_letters(body.letter_ids)}


# ---------------------------------------------------------------- the server itself


async def get_stats(request: Request) -> Stats:
    """Return figures about the installation. They are at most five seconds old."""
    reader: StatsReader = request.app.state.stats
    return await reader.read()


async def get_me(caller: OfCaller) -> bodies.Me:
    """Return the name and the role of the caller."""
    return bodies.Me(name=caller.name, role=caller.role)


async def get_metrics(request: Request) -> Response:
    """Return metrics in the text format of Prometheus, where flowkit-telemetry is installed."""
    page: MetricsPage | None = request.app.state.metrics
    if page is None:
        raise Problem(
            404,
            "no_metrics",
            "no installed plugin has metrics; pip install flowkit-telemetry",
        )
    return Response(await page.read(), media_type=METRICS_TYPE)


async def check_health() -> dict[str, str]:
    """Answer that the server runs."""
    return {"status": "ok"}


async def check_ready(client: OfClient) -> dict[str, str]:
    """Say whether the store answers within two seconds. Anyone may ask, so that only the log says
    why not.
    """
    why_not = await why_unreadable(client.store, client.clock)
    if why_not is not None:
        logger.warning("Not ready: %s", why_not, extra={"action": "web_not_ready"})
        detail = "the server cannot read its store; its log says why"
        raise Problem(503, "store_unavailable", detail)
    return {"status": "ok"}

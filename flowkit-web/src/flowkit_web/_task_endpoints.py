"""Endpoints of tasks and of their nodes."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, TypeVar, cast

from fastapi import Body, Header, Query, Request, Response
from pydantic import AfterValidator

from flowkit import Artifact, Client, LogLine, NodeStatus, NodeView, Page, TaskEvent, TaskView
from flowkit.task import BulkProgress, NodesShown
from flowkit_web import _bodies as bodies
from flowkit_web._access import Access, check_role
from flowkit_web._bodies import After, Limit
from flowkit_web._event_streams import EventStream, Streams
from flowkit_web._problems import Problem, invalid_arguments, invalid_request
from flowkit_web._routing import Id, OfCaller, OfClient
from flowkit_web._tokens import Role

T = TypeVar("T")


def _check_event_id(text: str) -> str:
    if text and not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError("must be the `id` of an event of the stream, a whole number")
    return text


LastEventId = Annotated[
    str,
    Header(
        alias="Last-Event-ID",
        description="`id` of the event after which the stream continues.",
        json_schema_extra={"pattern": "^[0-9]{0,18}$"},
    ),
    AfterValidator(_check_event_id),
]


async def list_tasks(
    client: OfClient, query: Annotated[bodies.TasksQuery, Query()]
) -> Page[TaskView]:
    """List tasks, the newest first."""
    with invalid_arguments():
        return await client.list_tasks(**query.keywords())


async def create_task(client: OfClient, body: bodies.NewTask) -> bodies.Created:
    """Submit a task."""
    return bodies.Created(id=await client.create_task(**dict(body)))


async def get_task(client: OfClient, task_id: Id, nodes: NodesShown = "all") -> TaskView:
    """Return a task as it is now."""
    return await client.get_task(task_id, nodes=nodes)


async def get_graph(client: OfClient, task_id: Id) -> bodies.JsonObject:
    """Return the graph of a task as it was submitted."""
    return await client.get_graph(task_id)


async def get_outline(client: OfClient, task_id: Id) -> bodies.Outline:
    """Return the nodes of a task's graph in brief, without their results, metrics and labels."""
    view = await client.get_task(task_id, nodes="graph")
    return bodies.outline_of(view)


async def list_events(
    client: OfClient,
    task_id: Id,
    node_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=bodies.MOST_EVENTS)] = 1_000,
    after: After = None,
    newest_first: bool = False,
) -> Page[TaskEvent]:
    """List the events of a task until now in order, or those of one node."""
    with invalid_arguments():
        return await client.events(
            task_id, node_id=node_id, limit=limit, after=after, newest_first=newest_first
        )


async def follow_task(
    request: Request, client: OfClient, task_id: Id, last_event_id: LastEventId = ""
) -> Response:
    """Follow the events of a task until it has ended, as server-sent events."""
    events = client.watch(task_id, after=int(last_event_id or 0))
    return await _followed(request, client, task_id, events)


async def follow_task_logs(request: Request, client: OfClient, task_id: Id) -> Response:
    """Follow what the handlers of a task log until it has ended, as server-sent events."""
    return await _followed(request, client, task_id, client.logs(task_id, follow=True))


async def follow_node_logs(
    request: Request, client: OfClient, task_id: Id, node_id: Id
) -> Response:
    """Follow what the handler of a node logs until the task has ended, as server-sent events."""
    await client.get_node(task_id, node_id)  # it exists
    return await _followed(request, client, task_id, client.logs(task_id, node_id, follow=True))


async def _followed(
    request: Request,
    client: Client,
    task_id: str,
    items: AsyncIterator[TaskEvent] | AsyncIterator[LogLine],
) -> Response:
    streams: Streams = request.app.state.streams
    access: Access = request.app.state.access
    if streams.is_full:
        raise Problem(503, "too_many_streams", f"{streams.most:,} clients follow events already")
    await client.nodes(task_id, limit=1)  # the task exists and can be read

    async def is_allowed() -> bool:
        return await access.caller_of(request) is not None

    return EventStream(
        items,
        streams=streams,
        clock=client.clock,
        heartbeat_sec=request.app.state.config.heartbeat_sec,
        is_allowed=is_allowed,
    )


# ---------------------------------------------------------------- changes


async def list_task_actions(client: OfClient, task_id: Id) -> bodies.TaskActions:
    """List the actions that the state of a task allows."""
    return bodies.TaskActions(actions=await client.task_actions(task_id))


async def cancel_task(
    client: OfClient, task_id: Id, body: Annotated[bodies.Cancellation | None, Body()] = None
) -> None:
    """Cancel a task."""
    given = body or bodies.Cancellation()
    await client.cancel(task_id, given.reason, force=given.force)


async def pause_task(client: OfClient, task_id: Id) -> None:
    """Pause a task: start no new nodes."""
    await client.pause(task_id)


async def resume_task(client: OfClient, task_id: Id) -> None:
    """End the pause of a task."""
    await client.resume(task_id)


async def retry_task(
    client: OfClient, task_id: Id, body: Annotated[bodies.Retry | None, Body()] = None
) -> None:
    """Run a failed or cancelled task again from its failed nodes, or from these nodes."""
    await client.retry(task_id, from_nodes=None if body is None else body.from_nodes)


async def signal_task(client: OfClient, task_id: Id, body: bodies.NewSignal) -> None:
    """Send a signal to a task."""
    await client.signal(task_id, body.name, body.payload, signal_id=body.signal_id)


async def rerun_task(
    client: OfClient, task_id: Id, body: Annotated[bodies.Rerun | None, Body()] = None
) -> bodies.Created:
    """Submit a new task with the graph and the params of this one, changed where given."""
    return bodies.Created(id=await client.rerun(task_id, **dict(body or bodies.Rerun())))


async def cancel_tasks(client: OfClient, body: bodies.TasksCancellation) -> bodies.BulkResult:
    """Cancel all tasks that match and have not ended."""
    seen: list[BulkProgress] = []
    with invalid_arguments():
        await client.cancel_tasks(**dict(body), on_progress=seen.append)
    return _bulk_result(seen)


async def retry_tasks(client: OfClient, body: bodies.TasksFilter) -> bodies.BulkResult:
    """Retry all failed and cancelled tasks that match."""
    seen: list[BulkProgress] = []
    with invalid_arguments():
        await client.retry_tasks(**dict(body), on_progress=seen.append)
    return _bulk_result(seen)


def _bulk_result(seen: list[BulkProgress]) -> bodies.BulkResult:
    last = seen[-1] if seen else BulkProgress()
    return bodies.BulkResult(found=last.found, changed=last.changed, refused=dict(last.refused))


# ---------------------------------------------------------------- nodes


async def list_nodes(
    client: OfClient,
    task_id: Id,
    map: str | None = None,  # noqa: A002
    status: NodeStatus | None = None,
    limit: Limit = 100,
    after: After = None,
) -> Page[NodeView]:
    """List the nodes of a task, or the children of one map."""
    with invalid_arguments():
        return await client.nodes(task_id, map=map, status=status, limit=limit, after=after)


async def get_node(client: OfClient, task_id: Id, node_id: Id) -> NodeView:
    """Return a node as it is now."""
    return await client.get_node(task_id, node_id)


async def explain_node(client: OfClient, task_id: Id, node_id: Id) -> dict[str, str]:
    """Explain why a node is not running, or how it ended."""
    explanation = await client.explain(task_id, node_id)
    return {"task_id": task_id, "node_id": node_id, "explanation": explanation}


async def list_node_actions(client: OfClient, task_id: Id, node_id: Id) -> bodies.NodeActions:
    """List the actions that the state of a node allows."""
    return bodies.NodeActions(actions=await client.node_actions(task_id, node_id))


async def list_task_artifacts(
    client: OfClient, task_id: Id, limit: Limit = 50, after: After = None
) -> Page[Artifact]:
    """List the artifacts of a task in order of production."""
    return await _page(client.artifacts(task_id), limit, after)


async def list_batch_times(client: OfClient, task_id: Id) -> bodies.BatchTimes:
    """Return when the batches of a task were stored, by node."""
    return await batch_times(client.artifacts(task_id), most=bodies.MOST_BATCHES)


async def batch_times(artifacts: AsyncIterator[Artifact], *, most: int) -> bodies.BatchTimes:
    """Return the times of the first ``most`` batches among artifacts."""
    times: dict[str, list[datetime]] = {}
    found = 0
    async with aclosing(cast("AsyncGenerator[Artifact, None]", artifacts)) as every:
        async for artifact in every:
            if artifact.partial and found == most:
                return bodies.BatchTimes(times=times, complete=False)
            if artifact.partial:
                found += 1
                times.setdefault(artifact.node_id, []).append(artifact.created_at)
    return bodies.BatchTimes(times=times, complete=True)


async def list_node_artifacts(
    client: OfClient, task_id: Id, node_id: Id, limit: Limit = 50, after: After = None
) -> Page[Artifact]:
    """List the artifacts of a node in the order in which its readers get them."""
    return await _page(client.artifacts(task_id, node_id), limit, after)


async def list_task_logs(
    client: OfClient, task_id: Id, limit: Limit = 100, after: After = None
) -> Page[LogLine]:
    """List what the handlers of a task have logged, in order of time."""
    return await _page(client.logs(task_id), limit, after)


async def list_node_logs(
    client: OfClient, task_id: Id, node_id: Id, limit: Limit = 100, after: After = None
) -> Page[LogLine]:
    """List what the handler of a node has logged; of a map, also those of its children."""
    return await _page(client.logs(task_id, node_id), limit, after)


async def _page(items: AsyncIterator[T], limit: int, after: str | None) -> Page[T]:
    """Return a page of items. Its cursor is the number of items before it."""
    first = int(after) if after and after.isascii() and after.isdigit() and len(after) < 10 else 0
    if after is not None and str(first) != after:
        raise invalid_request(f"invalid page cursor {after!r}; use the next of a page")
    found: list[T] = []
    position = 0
    async with aclosing(cast("AsyncGenerator[T, None]", items)) as every:
        async for item in every:
            position += 1
            if position > first + limit:
                return Page(found, str(first + limit))
            if position > first:
                found.append(item)
    return Page(found, None)


async def run_node_now(client: OfClient, task_id: Id, node_id: Id) -> None:
    """End the pause of a node before its next attempt, or its sleep."""
    await client.run_now(task_id, node_id)


async def resolve_node(
    request: Request,
    client: OfClient,
    caller: OfCaller,
    task_id: Id,
    node_id: Id,
    body: bodies.Resolution,
) -> None:
    """Choose the outcome of a node that has not ended; `finished` of an approval needs `admin`."""
    if body.outcome == "finished" and (await client.get_node(task_id, node_id)).type == "approval":
        # The result could have the name of an assignee, and any choice.
        check_role(request, caller, Role.ADMIN, what="an approval that is resolved as finished")
    await client.resolve_node(task_id, node_id, **dict(body), by=caller.name)


async def decide(
    client: OfClient, caller: OfCaller, task_id: Id, node_id: Id, body: bodies.Decision
) -> None:
    """Decide about a node that waits for an approval."""
    await client.decide(task_id, node_id, **dict(body), by=caller.name)

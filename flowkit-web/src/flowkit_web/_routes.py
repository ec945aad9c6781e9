"""The table of all routes, with the role that each of them needs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowkit.protocols import METRICS_TYPE
from flowkit_web import _definition_endpoints as definitions
from flowkit_web import _operation_endpoints as operations
from flowkit_web import _task_endpoints as tasks
from flowkit_web._routing import Route
from flowkit_web._tokens import Role

ANYONE = None
VIEWER, OPERATOR, ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN
TASK = "/tasks/{task_id}"
NODE = "/tasks/{task_id}/nodes/{node_id}"
SCHEDULE = "/schedules/{schedule_id}"
TRIGGER = "/triggers/{trigger_id}"
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events", "content": {"text/event-stream": {}}}
}
METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Metrics", "content": {METRICS_TYPE: {}}}
}
CHECKS = [
    Route("GET", "/healthz", ANYONE, operations.check_health),
    Route("GET", "/readyz", ANYONE, operations.check_ready),
]
METRICS_ROUTE = Route("GET", "/metrics", VIEWER, operations.get_metrics, responses=METRICS)

ROUTES = [
    Route("GET", "/tasks", VIEWER, tasks.list_tasks),
    Route("POST", "/tasks", OPERATOR, tasks.create_task, 201),
    Route("GET", TASK, VIEWER, tasks.get_task),
    Route("GET", f"{TASK}/graph", VIEWER, tasks.get_graph),
    Route("GET", f"{TASK}/outline", VIEWER, tasks.get_outline),
    Route("GET", f"{TASK}/events", VIEWER, tasks.follow_task, responses=EVENTS),
    Route("GET", f"{TASK}/history", VIEWER, tasks.list_events),
    Route("GET", f"{TASK}/artifacts", VIEWER, tasks.list_task_artifacts),
    Route("GET", f"{TASK}/batches", VIEWER, tasks.list_batch_times),
    Route("GET", f"{TASK}/logs", VIEWER, tasks.list_task_logs),
    Route("GET", f"{TASK}/logs/follow", VIEWER, tasks.follow_task_logs, responses=EVENTS),
    Route("GET", f"{TASK}/actions", VIEWER, tasks.list_task_actions),
    Route("POST", f"{TASK}/cancel", OPERATOR, tasks.cancel_task, 204),
    Route("POST", f"{TASK}/pause", OPERATOR, tasks.pause_task, 204),
    Route("POST", f"{TASK}/resume", OPERATOR, tasks.resume_task, 204),
    Route("POST", f"{TASK}/retry", OPERATOR, tasks.retry_task, 204),
    Route("POST", f"{TASK}/signal", OPERATOR, tasks.signal_task, 204),
    Route("POST", f"{TASK}/rerun", OPERATOR, tasks.rerun_task, 201),
    Route("POST", "/cancel-tasks", OPERATOR, tasks.cancel_tasks),
    Route("POST", "/retry-tasks", OPERATOR, tasks.retry_tasks),
    Route("GET", f"{TASK}/nodes", VIEWER, tasks.list_nodes),
    Route("GET", NODE, VIEWER, tasks.get_node),
    Route("GET", f"{NODE}/explain", VIEWER, tasks.explain_node),
    Route("GET", f"{NODE}/actions", VIEWER, tasks.list_node_actions),
    Route("GET", f"{NODE}/artifacts", VIEWER, tasks.list_node_artifacts),
    Route("GET", f"{NODE}/logs", VIEWER, tasks.list_node_logs),
    Route("GET", f"{NODE}/logs/follow", VIEWER, tasks.follow_node_logs, responses=EVENTS),
    Route("POST", f"{NODE}/run-now", OPERATOR, tasks.run_node_now, 204),
    Route("POST", f"{NODE}/resolve", OPERATOR, tasks.resolve_node, 204),
    Route("POST", f"{NODE}/decide", OPERATOR, tasks.decide, 204),
    Route("GET", "/flows", VIEWER, definitions.list_flows),
    Route("POST", "/flows", ADMIN, definitions.put_flow),
    Route("GET", "/flows/{name}", VIEWER, definitions.get_flow),
    Route("GET", "/schedules", VIEWER, definitions.list_schedules),
    Route("POST", "/schedules", ADMIN, definitions.put_schedule),
    Route("GET", SCHEDULE, VIEWER, definitions.get_schedule),
    Route("GET", f"{SCHEDULE}/next", VIEWER, definitions.list_next_times),
    Route("DELETE", SCHEDULE, ADMIN, definitions.delete_schedule, 204),
    Route("POST", f"{SCHEDULE}/pause", ADMIN, definitions.pause_schedule, 204),
    Route("POST", f"{SCHEDULE}/resume", ADMIN, definitions.resume_schedule, 204),
    Route("POST", f"{SCHEDULE}/trigger", ADMIN, definitions.trigger_schedule, 201),
    Route("POST", f"{SCHEDULE}/backfill", ADMIN, definitions.backfill_schedule, 201),
    Route("GET", "/triggers", VIEWER, definitions.list_triggers),
    Route("POST", "/triggers", ADMIN, definitions.put_trigger),
    Route("DELETE", TRIGGER, ADMIN, definitions.delete_trigger, 204),
    Route("POST", f"{TRIGGER}/pause", ADMIN, definitions.pause_trigger, 204),
    Route("POST", f"{TRIGGER}/resume", ADMIN, definitions.resume_trigger, 204),
    Route("GET", "/approvals", VIEWER, operations.list_approvals),
    Route("GET", "/workers", VIEWER, operations.list_workers),
    Route("GET", "/dead-letters", VIEWER, operations.list_letters),
    Route("POST", "/dead-letters/retry", OPERATOR, operations.retry_letters),
    Route("POST", "/dead-letters/drop", OPERATOR, operations.drop_letters),
    Route("GET", "/dead-letters/{letter_id}", VIEWER, operations.get_letter),
    Route("GET", "/me", VIEWER, operations.get_me),
    Route("GET", "/stats", VIEWER, operations.get_stats),
    METRICS_ROUTE,
    *CHECKS,
]
"""Routes of the API, below ``/api/v1``."""


def heads(routes: Sequence[Route]) -> list[Route]:
    """Return the routes that answer HEAD, as load balancers and clients ask: those of GET without
    the streams of events. They are not in the description of the API.
    """
    return [
        replace(route, method="HEAD")
        for route in routes
        if route.method == "GET" and route.responses is not EVENTS
    ]


ROOT_ROUTES = [METRICS_ROUTE, *CHECKS]
"""Routes at the root of the server, which are not in the description of the API."""

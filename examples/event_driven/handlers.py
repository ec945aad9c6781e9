"""The handlers of the flow in ``flow.py``.

The task's params are an event: ``id``, ``device``, ``kind`` and ``value``.
"""

from collections.abc import Mapping
from typing import Any

from flowkit.errors import NodeFailure
from flowkit.worker import FunctionHandler, RunContext, handler


def event_handlers(
    limits: Mapping[str, float], stored: dict[str, Any], alerts: dict[str, str]
) -> list[FunctionHandler[..., Any]]:
    """Return handlers that check events against these limits and store events and alerts.

    A step may run twice if a worker dies. The second run changes nothing, because events and alerts
    are stored by the event's id.
    """

    @handler("check")
    async def check(item: Any, ctx: RunContext) -> dict[str, Any]:
        device = ctx.params["device"]
        if device not in limits:
            raise NodeFailure(
                f"device {device!r} is not registered", reason_code="unknown_device", permanent=True
            )
        return {"value": ctx.params["value"], "limit": limits[device]}

    @handler("store")
    async def store(item: Any, ctx: RunContext) -> None:
        stored[ctx.params["id"]] = dict(ctx.params)

    @handler("alert")
    async def alert(item: Any, ctx: RunContext) -> str:
        reading = ctx.results["check"]
        text = f"{ctx.params['device']}: {reading['value']:g} is above {reading['limit']:g}"
        alerts[ctx.params["id"]] = text
        return text

    return [check, store, alert]

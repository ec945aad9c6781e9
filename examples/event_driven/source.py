"""A source of events: an HTTP server that submits a task for each accepted event."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from pydantic import BaseModel, ValidationError

from examples.event_driven.flow import on_event
from flowkit import TaskRefused
from flowkit.client import TaskVerbs

ALARM_PRIORITY = 10
POLL_SEC = 0.05


class Event(BaseModel):
    id: str
    device: str
    kind: Literal["reading", "alarm"]
    value: float


async def submit(client: TaskVerbs, event: Event) -> str:
    """Submit the task of an event and return its id.

    A repeated event returns the id of the first task.
    """
    return await client.create_task(
        graph=on_event,
        params=event.model_dump(),
        pipeline="events",
        idempotency_key=f"event-{event.id}",
        labels={"device": event.device, "kind": event.kind},
        priority=ALARM_PRIORITY if event.kind == "alarm" else 0,
    )


@asynccontextmanager
async def http_source(client: TaskVerbs, port: int = 0) -> AsyncIterator[str]:
    """Accept events on a port of this host (0: a free port), and yield the server's host and port.

    A ``POST`` is answered with 202 and the task's id once the task is durable, with 400 if it is
    not an event, and with 409 if another event has the same id.
    """
    loop = asyncio.get_running_loop()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                event = Event.model_validate_json(body)
                self._answer(
                    202,
                    {
                        "task_id": asyncio.run_coroutine_threadsafe(
                            submit(client, event), loop
                        ).result()
                    },
                )
            except ValidationError as error:
                self._answer(400, {"error": f"{error.error_count()} faults in the event"})
            except TaskRefused as error:
                self._answer(409, {"error": str(error)})

        def _answer(self, status: int, content: dict[str, str]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
            """Write no access log."""

    with ThreadingHTTPServer(("127.0.0.1", port), Receiver) as server:
        serving = asyncio.create_task(asyncio.to_thread(server.serve_forever, POLL_SEC))
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            await asyncio.to_thread(server.shutdown)
            await serving

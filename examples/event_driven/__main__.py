"""Post sample events to the source, and show the outcome."""

import asyncio
import json
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

from examples.event_driven.handlers import event_handlers
from examples.event_driven.source import http_source
from flowkit import Coordinator
from flowkit.worker import Worker

ADDRESS = "memory://event-driven"
EVENTS: list[dict[str, Any]] = [
    {"id": "ev-1", "device": "pump-1", "kind": "reading", "value": 61},
    {"id": "ev-2", "device": "pump-2", "kind": "reading", "value": 58},
    {"id": "ev-2", "device": "pump-2", "kind": "reading", "value": 58},
    {"id": "ev-2", "device": "pump-2", "kind": "reading", "value": 99},
    {"id": "ev-3", "device": "pump-3", "kind": "reading", "value": 40},
    {"id": "ev-4", "device": "pump-1", "kind": "alarm", "value": 97},
    {"id": "ev-5", "device": "pump-1", "kind": "unheard of"},
]


async def main() -> None:
    limits, stored, alerts = {"pump-1": 80.0, "pump-2": 80.0}, dict[str, Any](), dict[str, str]()
    handlers = event_handlers(limits, stored, alerts)
    async with Coordinator(db=ADDRESS) as coordinator, Worker(db=ADDRESS, handlers=handlers):
        task_ids: dict[str, str] = {}
        async with http_source(coordinator) as address:
            for event in EVENTS:
                status, answer = await asyncio.to_thread(post, address, event)
                task_id = answer.get("task_id")
                again = (
                    " (a task that exists)"
                    if task_id and task_id == task_ids.get(event["id"])
                    else ""
                )
                print(f"{event['id']} {event['device']} {event.get('value')}: {status}{again}")
                if task_id:
                    task_ids[event["id"]] = task_id

        for name, task_id in task_ids.items():
            print(f"{name}: {(await coordinator.wait(task_id)).status}")
        print(f"stored {sorted(stored)}, alerts {list(alerts.values())}")

        (alarm,) = (await coordinator.list_tasks(pipeline="events", labels={"kind": "alarm"})).items
        changes = [event async for event in coordinator.watch(alarm.id)]
        for node in ("check", "store", "alert"):
            print(
                f"{node} of the alarm:"
                f" {' -> '.join(event.status or '' for event in changes if event.node_id == node)}"
            )

        letters = (await coordinator.dead_letters(task_id=task_ids["ev-3"])).items
        print(f"dead letters: {[letter.error for letter in letters]}")
        limits["pump-3"] = 80.0
        await coordinator.retry_dead_letters([letter.letter_id for letter in letters])
        print(
            f"ev-3 after pump-3 was registered: {(await coordinator.wait(task_ids['ev-3'])).status}"
        )


def post(address: str, event: dict[str, Any]) -> tuple[int, dict[str, str]]:
    """Send an event, and return the status and the content of the answer."""
    with closing(HTTPConnection(address)) as connection:
        connection.request(
            "POST", "/events", json.dumps(event), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        return answer.status, json.load(answer)


if __name__ == "__main__":
    asyncio.run(main())

"""The API does what its OpenAPI document says, also for requests that a user would not write."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from flowkit import Client, Schedule, Trigger
from flowkit_web import WebConfig, create_app
from flowkit_web._app import WebApp
from flowkit_web._tokens import Role, add_token
from tests.web.api import to

GRAPH = {"nodes": [{"node_id": "a", "type": "approval", "io": {"prompt": "Go?"}}]}
KNOWN = {
    "task_id": "t/1",
    "node_id": "a",
    "name": "a flow",
    "schedule_id": "s",
    "trigger_id": "g",
    "letter_id": "x",
}
EXAMPLES = 6


def _description() -> dict[str, Any]:
    """Return the description without tokens: each request of these tests has one."""
    document = WebApp(Client(db="memory://description"), WebConfig(), local=False).openapi()
    del document["components"]["securitySchemes"]
    for path in document["paths"].values():
        for operation in path.values():
            operation.pop("security", None)
    return document


SCHEMA = schemathesis.openapi.from_dict(_description())
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


class Api:
    """An API that runs in the event loop of another thread."""

    def __init__(self, portal: BlockingPortal, http: httpx.AsyncClient) -> None:
        self._portal = portal
        self._http = http

    def call(self, case: Any) -> httpx.Response:
        """Send the request of a case."""
        given = case.as_transport_kwargs(base_url="http://127.0.0.1:8400")
        given.pop("cookies", None)
        data = given.pop("data", None)
        if data is not None:
            given["content"] = data
        given["headers"] = {
            name: value for name, value in given["headers"].items() if name != "User-Agent"
        }
        return self._portal.call(lambda: self._http.request(**given))


async def _store_known(client: Client) -> None:
    await client.create_task(graph=GRAPH, task_id=KNOWN["task_id"])
    await client.put_flow(KNOWN["name"], GRAPH)
    await client.put_schedule(Schedule(KNOWN["schedule_id"], flow=KNOWN["name"], every_sec=60))
    await client.put_trigger(Trigger(KNOWN["trigger_id"], source="task:p", flow=KNOWN["name"]))


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    async def add(client: Client) -> str:
        await _store_known(client)
        return await add_token(client.store.records, "ann", Role.ADMIN, client.clock)

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Client(db="memory://described")) as client,
    ):
        token = portal.call(add, client)
        config = WebConfig(requests_per_sec=1e6, request_burst=1_000_000)
        http = to(create_app(client, config=config), token)
        with portal.wrap_async_context_manager(http):
            yield Api(portal, http)


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
CASES = [(operation, POSITIVE) for operation in OPERATIONS] + [
    (operation, NEGATIVE)
    for operation in OPERATIONS
    if operation.query or operation.body  # any text is an id
]


@pytest.mark.parametrize(
    ("operation", "mode"),
    CASES,
    ids=[f"{mode.value} {operation.label}" for operation, mode in CASES],
)
def test_each_answer_is_described(api: Api, operation: Any, mode: Any) -> None:
    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def check(case: Any, known: bool) -> None:
        if known and case.path_parameters:
            case.path_parameters = {name: KNOWN[name] for name in case.path_parameters}
        answer = api.call(case)
        assert answer.status_code < 500, answer.text
        # A request that fits the description may be refused: its graph has a fault, for example.
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])

    check()

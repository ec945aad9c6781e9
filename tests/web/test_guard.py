"""Requests that are refused before they reach a route, and the headers of all answers."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from flowkit_testing import Cluster
from flowkit_web import create_app
from flowkit_web._tokens import Role, add_token
from tests.web.api import problem, serving


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with (
        Cluster() as cluster,
        serving(cluster.client, allow_hosts=["Flow.example.com"], max_body_bytes=2_000) as client,
    ):
        yield client


HOSTS = {
    "127.0.0.1:8400": True,
    "localhost": True,
    "LOCALHOST:1": True,
    "[::1]:8400": True,
    "192.0.2.7": True,
    "flow.example.com": True,
    "flow.example.com.": True,
    "evil.example": False,
    "localhost.evil.example": False,
    "127.0.0.1.evil.example": False,
    "flow.example.com@evil.example": False,
    "": False,
}


async def test_a_host_that_is_not_of_this_server_is_refused(http: httpx.AsyncClient) -> None:
    for host, is_own in HOSTS.items():
        answer = await http.get("/tasks", headers={"Host": host})
        if is_own:
            assert answer.status_code == 200, host
        else:
            assert problem(answer) == (421, "foreign_host"), host


ORIGINS = {
    "http://127.0.0.1:8400": True,
    "https://127.0.0.1:8400": True,
    "http://127.0.0.1": False,
    "http://127.0.0.1:8401": False,
    "https://evil.example": False,
    "null": False,
    "127.0.0.1:8400": False,
    "": False,
}


async def test_a_request_of_a_page_of_another_site_is_refused(http: httpx.AsyncClient) -> None:
    for origin, is_own in ORIGINS.items():
        answer = await http.post("/tasks/x/pause", headers={"Origin": origin})
        expected = (404, "task_not_found") if is_own else (403, "foreign_origin")
        assert problem(answer) == expected, origin


async def test_other_origins_are_not_admitted(http: httpx.AsyncClient) -> None:
    asked = {"Access-Control-Request-Method": "GET"}
    answer = await http.options("/tasks", headers=asked)
    assert answer.status_code == 405
    for name in [*answer.headers, *(await http.get("/tasks")).headers]:
        assert not name.startswith("access-control")


async def test_each_answer_forbids_what_browsers_would_do_with_it(http: httpx.AsyncClient) -> None:
    for path in ("/tasks", "/tasks/x", "/nowhere", "http://evil.example/", "http://localhost/"):
        headers = (await http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        # The document of the page has no data, and is asked for again each time.
        assert headers["cache-control"] == (
            "no-cache" if path.endswith("localhost/") else "no-store"
        )
        assert headers["content-security-policy"].startswith("default-src 'none'")


async def test_a_body_that_is_no_json_is_refused(http: httpx.AsyncClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", None):
        headers = {} if kind is None else {"Content-Type": kind}
        answer = await http.post("/tasks", content=b"{}", headers=headers)
        assert problem(answer) == (415, "unsupported_media_type"), kind


JSON = {"Content-Type": "application/json; charset=utf-8"}
BODIES = {
    "a key given twice": b'{"flow": "a", "flow": "b"}',
    "not JSON": b"{",
    "a number that is none": b'{"priority": NaN}',
    "not UTF-8": b'{"flow": "\xff"}',
    "too deep": b'{"params": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}",
}


async def test_a_body_that_is_no_document_is_refused(http: httpx.AsyncClient) -> None:
    for what, body in BODIES.items():
        answer = await http.post("/tasks", content=body, headers=JSON)
        assert problem(answer) == (400, "invalid_json"), what


async def test_a_body_above_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 1_000

    for content in (b" " * 2_001, chunks()):
        answer = await http.post("/tasks", content=content, headers=JSON)
        assert problem(answer) == (413, "body_too_large")
    announced = {**JSON, "Content-Length": "2001"}  # refused before any of it is read
    answer = await http.post("/tasks", content=b"{}", headers=announced)
    assert problem(answer) == (413, "body_too_large")
    answer = await http.post("/tasks", content=b" " * 1_900 + b"{}", headers=JSON)
    assert problem(answer)[0] == 422


async def test_the_configured_limit_is_the_only_one_of_a_body() -> None:
    async with Cluster() as cluster, serving(cluster.client, max_body_bytes=20_000_000) as client:
        answer = await client.post("/tasks", content=b" " * 19_000_000 + b"{}", headers=JSON)
    assert problem(answer) == (422, "graph_invalid")


async def test_a_body_that_does_not_end_is_refused() -> None:
    async with Cluster() as cluster:
        token = await add_token(cluster.client.store.records, "ann", Role.ADMIN, cluster.clock)
        headers = {**JSON, "Authorization": f"Bearer {token}", "Host": "localhost"}
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/v1/tasks",
            "query_string": b"",
            "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await create_app(cluster.client)(scope, receive, send)
        assert sent[0]["status"] == 400


async def test_a_large_graph_passes() -> None:
    graph = {"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": "x" * 5_000_000}}]}
    async with Cluster() as cluster, serving(cluster.client) as http:
        assert (await http.post("/tasks", json={"graph": graph})).status_code == 201


async def test_a_number_that_is_no_length_is_refused(http: httpx.AsyncClient) -> None:
    for length in ("-1", "1e3", "9" * 5_000):
        answer = await http.post("/tasks", headers={"Content-Length": length})
        assert problem(answer) == (400, "bad_request")


async def test_an_id_of_any_characters_is_encoded_in_the_path(http: httpx.AsyncClient) -> None:
    graph = {"nodes": [{"node_id": "a b/c", "type": "work"}]}
    for task_id in ("a/b", "../x", "ü ?#%", "a%2Fb", "s@2026-01-01T00:00:00Z"):
        made = await http.post("/tasks", json={"graph": graph, "task_id": task_id})
        assert made.json() == {"id": task_id}
        path = f"/tasks/{quote(task_id, safe='')}"
        assert (await http.get(path)).json()["id"] == task_id
        node = await http.get(f"{path}/nodes/{quote('a b/c', safe='')}")
        assert node.json()["node_id"] == "a b/c"


async def test_a_path_that_is_not_utf_8_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.get("/tasks/%ff")
    assert problem(answer) == (422, "invalid_request")
    assert answer.json()["detail"] == "path.task_id: it is not UTF-8, percent-encoded"


async def test_each_of_several_origins_counts(http: httpx.AsyncClient) -> None:
    own, foreign = "http://127.0.0.1:8400", "http://evil.example"
    answer = await http.get("/tasks", headers=[("Origin", own), ("Origin", foreign)])
    assert problem(answer) == (403, "foreign_origin")


async def test_a_query_parameter_that_is_given_twice_is_refused(http: httpx.AsyncClient) -> None:
    for path in ("/tasks?limit=1&limit=2", "/approvals?assignee=a&assignee=b"):
        assert problem(await http.get(path)) == (422, "invalid_request")
    assert (await http.get("/tasks?status=failed&status=queued")).status_code == 200


async def test_an_unknown_query_parameter_is_refused(http: httpx.AsyncClient) -> None:
    for path in ("/tasks?stauts=failed", "/workers?limit=3", "/flows/x?versoin=1"):
        answer = await http.get(path)
        assert problem(answer) == (422, "invalid_request")
        assert path.partition("?")[2].partition("=")[0] in answer.json()["detail"]

"""Access to the routes: tokens, roles, this machine, and limits."""

import logging
from collections.abc import Sequence

import anyio
import pytest

from flowkit import WorkerView
from flowkit.errors import ConfigError
from flowkit.protocols import KeyedRecord, RecordChange, TaskQuery, TaskRecord
from flowkit_testing import Cluster
from flowkit_web import WebConfig, create_app
from flowkit_web._access import FAILURE_BURST, FRESH_SEC, KNOWN_SEC, READ_SEC
from flowkit_web._rate_limits import RateLimit
from flowkit_web._routes import ROOT_ROUTES, ROUTES
from flowkit_web._tokens import KIND, Role, add_token, list_tokens, remove_token
from tests.hooked_store import HookedStore
from tests.web.api import problem, serving, to

IDS = {"task_id": "x", "node_id": "x", "name": "x", "schedule_id": "x", "trigger_id": "x"}


async def tokens_of(cluster: Cluster) -> dict[Role, str]:
    records, clock = cluster.client.store.records, cluster.client.clock
    return {role: await add_token(records, role.value, role, clock) for role in Role}


async def test_each_route_admits_its_role_and_those_above_it_alone() -> None:
    async with Cluster() as cluster:
        tokens = await tokens_of(cluster)
        app = create_app(cluster.client)
        for number, route in enumerate(ROUTES):
            path = route.path.format(**IDS, letter_id="x")
            for role, token in [(None, None), *tokens.items()]:
                async with to(app, token, peer=f"203.0.113.{number}") as http:
                    answer = await http.request(route.method, path)
                refusal = None
                if answer.status_code in (401, 403):
                    refusal = problem(answer)
                expected = None
                if route.role is not None and role is None:
                    expected = (401, "unauthorized")
                elif route.role is not None and role is not None and not role.may(route.role):
                    expected = (403, "forbidden")
                assert refusal == expected, (route, role)


def test_roles_are_as_the_documentation_says() -> None:
    for route in ROUTES:
        place = route.path.split("/")[1]
        if place in ("healthz", "readyz"):
            assert route.role is None
        elif route.method == "GET":
            assert route.role == Role.VIEWER
        else:
            is_definition = place in ("flows", "schedules", "triggers")
            assert route.role == (Role.ADMIN if is_definition else Role.OPERATOR), route
    assert {route.path for route in ROOT_ROUTES} == {"/metrics", "/healthz", "/readyz"}


# ---------------------------------------------------------------- tokens


async def test_the_store_has_the_hash_of_a_token_alone() -> None:
    async with Cluster() as cluster:
        store = cluster.client.store
        secret = await add_token(store.records, "ann", Role.ADMIN, cluster.client.clock)
        (record,) = await store.records.scan("web_token")
        assert record.key == "ann"
        assert secret.encode() not in record.data
        assert secret.removeprefix("fk_").encode() not in record.data


async def test_a_token_needs_a_name_that_can_be_printed() -> None:
    async with Cluster() as cluster:
        for name in ("", "a" * 201, "a\nb"):
            with pytest.raises(ConfigError, match="1 to 200 printable characters"):
                await add_token(
                    cluster.client.store.records, name, Role.VIEWER, cluster.client.clock
                )


async def test_a_name_belongs_to_one_token() -> None:
    async with Cluster() as cluster:
        await tokens_of(cluster)
        with pytest.raises(ConfigError, match="there is a token 'admin'"):
            await add_token(
                cluster.client.store.records, "admin", Role.VIEWER, cluster.client.clock
            )
        with pytest.raises(ConfigError, match="there is no token 'bob'"):
            await remove_token(cluster.client.store.records, "bob")


async def test_a_removed_token_is_refused_after_a_few_seconds() -> None:
    async with Cluster() as cluster, serving(cluster.client) as http:
        assert (await http.get("/tasks")).status_code == 200
        await remove_token(cluster.client.store.records, "ann")
        await cluster.clock.sleep(FRESH_SEC)
        assert problem(await http.get("/tasks")) == (401, "unauthorized")


async def test_what_is_no_token_is_refused() -> None:
    headers = ("", "Bearer", "Bearer ", "Bearer fk_other", "Basic YW5uOmFubg==", "Bearer \xff")
    async with Cluster() as cluster, serving(cluster.client) as http:
        for header in headers:
            sent = {"Authorization": header.encode("latin-1")}
            answer = await http.get("/tasks", headers=sent)
            assert problem(answer) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
            detail = answer.json()["detail"]
            assert "send the header 'Authorization: Bearer TOKEN'" in detail
            assert "flowkit token add NAME --role ROLE" in detail


async def test_a_damaged_token_admits_no_caller_and_keeps_the_api_closed() -> None:
    async with Cluster() as cluster:
        records = cluster.client.store.records
        await add_token(records, "ann", Role.ADMIN, cluster.client.clock)
        (record,) = await records.scan("web_token")
        damaged = KeyedRecord("web_token", "ann", b"{", record.revision)
        assert all(await records.change([RecordChange("damage", put=[damaged])]))
        assert [token.hash for token in await list_tokens(records)] == [""]
        app = create_app(cluster.client, local=True)
        async with to(app, peer="127.0.0.1") as http:
            assert problem(await http.get("/tasks")) == (401, "unauthorized")


# ---------------------------------------------------------------- a store that does not answer


class Silent(HookedStore):
    """Store that does not answer while it is away."""

    def __init__(self) -> None:
        super().__init__()
        self.back = anyio.Event()
        self.back.set()

    async def before_read(self, kind: str) -> None:
        if kind == KIND:
            await self.back.wait()

    async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
        await self.back.wait()
        return await super().list_tasks(query)


async def test_a_request_ends_while_the_store_is_silent_and_known_tokens_stay_valid() -> None:
    store = Silent()
    async with Cluster(store=store) as cluster, serving(cluster.client) as http:
        clock = cluster.clock
        assert (await http.get("/me")).status_code == 200
        store.back = anyio.Event()
        await clock.sleep(FRESH_SEC)
        begun_at = clock.monotonic()
        assert (await http.get("/me")).json()["name"] == "ann"
        assert clock.monotonic() - begun_at < READ_SEC + 0.5
        new = await http.get("/me", headers={"Authorization": "Bearer x"})
        assert problem(new) == (503, "store_unavailable")
        assert (await http.get("/me", headers={"Authorization": ""})).status_code == 401
        assert clock.monotonic() - begun_at < READ_SEC + 0.5
        assert problem(await http.get("/tasks")) == (503, "store_unavailable")
        assert clock.monotonic() - begun_at <= 7
        await clock.sleep(KNOWN_SEC)
        begun_at = clock.monotonic()
        assert problem(await http.get("/me")) == (503, "store_unavailable")
        assert clock.monotonic() - begun_at <= 6
        store.back.set()
        assert (await http.get("/me")).status_code == 200
        assert (await http.get("/me", headers={"Authorization": "Bearer x"})).status_code == 401


async def test_a_token_that_was_removed_while_the_store_was_away_is_refused_when_it_answers() -> (
    None
):
    store = Silent()
    async with Cluster(store=store) as cluster, serving(cluster.client) as http:
        assert (await http.get("/me")).status_code == 200
        store.back = anyio.Event()
        await remove_token(store.records, "ann")
        await cluster.clock.sleep(FRESH_SEC)
        assert (await http.get("/me")).status_code == 200
        store.back.set()
        await cluster.clock.sleep(FRESH_SEC)
        assert problem(await http.get("/me")) == (401, "unauthorized")


async def test_a_slow_request_is_answered_while_the_store_answers_others() -> None:
    async with Cluster() as cluster, serving(cluster.client) as http:
        workers = cluster.client.workers

        async def slow_workers() -> list[WorkerView]:
            await cluster.clock.sleep(60)
            return await workers()

        cluster.client.workers = slow_workers
        assert (await http.get("/workers")).status_code == 200


# ---------------------------------------------------------------- this machine


@pytest.mark.parametrize(
    ("local", "peer", "host", "admitted"),
    [
        (True, "127.0.0.1", "127.0.0.1:8400", True),
        (True, "::1", "[::1]:8400", True),
        (True, "127.0.0.1", "localhost", True),
        (True, "203.0.113.9", "127.0.0.1:8400", False),
        (True, "127.0.0.1", "flow.example.com", False),
        (False, "127.0.0.1", "127.0.0.1:8400", False),
    ],
)
async def test_without_tokens_only_this_machine_is_admitted(
    local: bool, peer: str, host: str, admitted: bool
) -> None:
    async with Cluster() as cluster:
        config = WebConfig(allow_hosts=("flow.example.com",))
        app = create_app(cluster.client, config=config, local=local)
        async with to(app, peer=peer) as http:
            answer = await http.get("/tasks", headers={"Host": host})
        assert answer.status_code == (200 if admitted else 401)


async def test_the_first_token_closes_the_api_for_this_machine() -> None:
    async with Cluster() as cluster:
        app = create_app(cluster.client, local=True)
        async with to(app, peer="127.0.0.1") as http:
            assert (await http.get("/tasks")).status_code == 200
            await tokens_of(cluster)
            await cluster.clock.sleep(FRESH_SEC)
            assert problem(await http.get("/tasks")) == (401, "unauthorized")


# ---------------------------------------------------------------- limits and the log


def test_a_rate_limit_admits_a_burst_and_then_the_rate() -> None:
    limit = RateLimit(per_sec=2, burst=3)
    assert [limit.wait_sec("a", 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.wait_sec("b", 0.0) == 0
    assert limit.wait_sec("a", 0.5) == 0
    assert limit.wait_sec("a", 0.5) == 0.5
    assert [limit.wait_sec("a", 100.0) for _ in range(4)] == [0, 0, 0, 0.5]


def test_a_rate_limit_keeps_a_bounded_number_of_keys() -> None:
    limit = RateLimit(per_sec=1, burst=1, most_keys=10)
    for number in range(100):
        assert limit.wait_sec(str(number), 0.0) == 0
    assert limit.wait_sec("99", 0.0) > 0
    assert limit.wait_sec("0", 0.0) == 0


async def test_too_many_requests_are_refused_until_some_time_has_passed() -> None:
    async with (
        Cluster() as cluster,
        serving(cluster.client, requests_per_sec=0.5, request_burst=2) as http,
    ):
        answers = [await http.get("/workers") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].headers["retry-after"] == "2"
        await cluster.clock.sleep(2)
        assert (await http.get("/workers")).status_code == 200


async def test_guesses_of_tokens_are_limited_and_hinder_no_other_caller() -> None:
    async with Cluster() as cluster, serving(cluster.client) as http:
        wrong = {"Authorization": "Bearer fk_wrong"}
        answers = [await http.get("/workers", headers=wrong) for _ in range(FAILURE_BURST + 1)]
        assert {answer.status_code for answer in answers[:-1]} == {401}
        assert answers[-1].status_code == 429
        assert (await http.get("/workers")).status_code == 200


async def test_checks_without_a_token_are_limited_by_address() -> None:
    async with Cluster() as cluster:
        app = create_app(cluster.client, config=WebConfig(request_burst=2))
        async with to(app) as one, to(app, peer="203.0.113.10") as other:
            answers = [await one.get("/readyz") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert (await other.get("/readyz")).status_code == 200


async def test_the_log_says_who_changed_what_and_has_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "flowkit_web")
    async with Cluster() as cluster, serving(cluster.client) as http:
        secret = http.headers["authorization"].removeprefix("Bearer ")
        body = {"name": "go", "payload": "hidden"}
        await http.get("/tasks/a%2Fb")
        await http.head("/healthz")
        await http.post("/tasks/a%2Fb/signal", json=body)
        await http.get("/tasks", headers={"Authorization": f"Basic {secret}"})
        records, clock = cluster.client.store.records, cluster.client.clock
        viewer = await add_token(records, "bob", Role.VIEWER, clock)
        await cluster.clock.sleep(FRESH_SEC)
        await http.post("/tasks/x/pause", headers={"Authorization": f"Bearer {viewer}"})
    (change,) = [
        record for record in caplog.records if getattr(record, "action", "") == "web_change"
    ]
    assert change.getMessage() == "ann: POST /api/v1/tasks/a%2Fb/signal -> 404"
    fields = vars(change)
    assert (fields["by"], fields["role"], fields["status"]) == ("ann", "admin", 404)
    refused = [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "action", "") == "web_refused"
    ]
    assert refused == [
        "Refused a caller without a valid token from 203.0.113.9: GET /api/v1/tasks",
        "Refused bob (viewer) from 203.0.113.9: POST /api/v1/tasks/x/pause",
    ]
    for record in caplog.records:
        assert secret not in str(vars(record))
        assert "hidden" not in str(vars(record))

"""An installation on a server with TLS, whose processes have only the roles of the how-to."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.config import CommonConfig
from flowkit.errors import StoreError, StoreUnavailable
from flowkit.protocols import CheckResult
from flowkit.worker import RunContext, Worker, handler
from flowkit_mongo import MongoStore
from flowkit_mongo._rights import ROLES, missing, privileges
from flowkit_testing import InMemoryBus
from tests.servers.certificates import Authority
from tests.servers.mongo_fixtures import require_mongo
from tests.servers.mongod import mongod_program
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.processes import ServerProcess
from tests.store_records import task

pytestmark = pytest.mark.services

DATABASE = "secured"
PASSWORD = "tulips"
WORKER_NAME = "CN=worker,OU=worker"
REST = 60.0
LARGE = "x" * 300_000


class SecuredServer:
    """A server that requires TLS and users; clients name the file of its certificate authority."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self._certificate = self.authority.sign("server")
        (self._port,) = free_ports(1)
        data = folder / "data"
        data.mkdir()
        command: list[str | Path] = [
            mongod_program(),
            "--dbpath",
            data,
            "--port",
            str(self._port),
            "--nounixsocket",
            "--bind_ip",
            LOOPBACK,
            "--auth",
            "--wiredTigerCacheSizeGB",
            "0.25",
            "--tlsMode",
            "requireTLS",
            "--tlsCAFile",
            self.authority.path,
            "--tlsCertificateKeyFile",
            self._certificate,
            "--setParameter",
            "authenticationMechanisms=SCRAM-SHA-256,MONGODB-X509",
            "--tlsAllowConnectionsWithoutCertificates",
        ]
        self.process = ServerProcess(command, folder=data, log=folder / "mongod.log")

    def address(self, user: str | None, *, certificate: Path | None = None) -> str:
        who = f"{user}:{PASSWORD}@" if user else ""
        query = f"tls=true&tlsCAFile={quote_plus(str(self.authority.path))}&directConnection=true"
        if user:
            query += "&authSource=admin"
        if certificate is not None:
            query += (
                f"&authMechanism=MONGODB-X509&tlsCertificateKeyFile={quote_plus(str(certificate))}"
            )
        return f"mongodb://{who}{LOOPBACK}:{self._port}/{DATABASE}?{query}"

    def add_users(self) -> None:
        """Create an administrator, which the server allows for the first user, roles and users."""
        with MongoClient[dict[str, Any]](self.address(None)) as first:
            first.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        with MongoClient[dict[str, Any]](self.address("root")) as root:
            for role in ROLES:
                root[DATABASE].command(
                    "createRole", role, privileges=privileges(role, database=DATABASE), roles=[]
                )
            coordinator, worker = [{"role": role, "db": DATABASE} for role in ROLES]
            root.admin.command("createUser", "coordinator", pwd=PASSWORD, roles=[coordinator])
            root.admin.command("createUser", "reader", pwd=PASSWORD, roles=[worker])
            root["$external"].command("createUser", WORKER_NAME, roles=[worker])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServer]:
    require_mongo()
    server = SecuredServer(tmp_path_factory.mktemp("secured"))

    def answers() -> bool:
        try:
            with MongoClient[dict[str, Any]](
                server.address(None), serverSelectionTimeoutMS=500
            ) as client:
                return bool(client.admin.command("ping"))
        except PyMongoError:
            return False

    try:
        server.process.wait_until(answers, timeout=REST)
        server.add_users()
        yield server
    finally:
        server.process.kill()


@handler("produce")
async def produce(item: Any, ctx: RunContext) -> AsyncIterator[Any]:
    for number in range(3):
        yield {"number": number, "text": LARGE}


@handler("consume")
async def consume(item: Any, ctx: RunContext) -> Any:
    if item["number"] == 1:
        raise ValueError("this one is kept as a dead letter")
    return {"size": len(item["text"])}


GRAPH = {
    "nodes": [
        {"node_id": "p", "type": "produce"},
        {
            "node_id": "c",
            "type": "consume",
            "depends_on": ["p"],
            "on_batch_failure": "skip",
            "io": {"input_inline": {"input_adapter": "pull.from_artifacts", "input_args": {}}},
        },
        {
            "node_id": "sum",
            "type": "coordinator_fn",
            "depends_on": ["c"],
            "io": {"fn": "metrics.aggregate", "fn_args": {"node_id": "c"}},
        },
    ]
}


async def test_a_flow_runs_over_tls_with_no_more_rights_than_the_how_to_names(
    server: SecuredServer,
) -> None:
    certificate = server.authority.sign("worker")
    bus = InMemoryBus()
    options = {"mongo": {"retry_for_sec": 1, "blob_threshold_bytes": 100_000}}
    common = {"db": server.address("coordinator"), "options": options}
    for_worker = {"db": server.address(None, certificate=certificate), "options": options}
    async with (
        bus,
        Coordinator(cfg=CoordinatorConfig(**common), bus=bus),
        Worker(cfg=WorkerConfig(**for_worker), bus=bus, handlers=[produce, consume]),
        Client(cfg=CommonConfig(**common), bus=bus) as client,
    ):
        task_id = await client.create_task(graph=GRAPH, params={"text": LARGE}, idempotency_key="k")
        view = await client.wait(task_id, timeout=REST)
        assert view.status == "finished", view
        assert view.nodes["c"].skipped_batches == 1
        assert [event async for event in client.watch(task_id)][-1].status == "finished"
        assert len([artifact async for artifact in client.artifacts(task_id)]) == 5
        (letter,) = (await client.dead_letters()).items
        assert await client.drop_dead_letters([letter.letter_id]) == 1
        assert await client.store.purge(finished_before=view.created_at.timestamp() + 1e6) == 1
        rights, *others = (
            await results(client.store, "mongodb rights"),
            *await results(client.store),
        )
        assert all(result.ok for result in others), others
        assert "user 'coordinator' has the rights of a coordinator" in rights[0].detail


async def results(store: Any, *names: str) -> list[CheckResult]:
    return [result for result in await store.check() if not names or result.name in names]


async def test_the_doctor_names_the_rights_that_are_missing_and_looks_at_the_rest(
    server: SecuredServer,
) -> None:
    async with MongoStore(server.address("coordinator")):
        pass
    async with MongoStore(server.address("reader")) as store:
        (rights,) = await results(store, "mongodb rights")
        assert not rights.ok
        assert "user 'reader' lacks insert on flowkit_tasks" in rights.detail
        assert "flowkitCoordinator" in rights.remedy
        assert await results(store, "mongodb records")
        with pytest.raises(StoreError, match="not authorized") as refused:
            await store.create([task("t")])
        assert not isinstance(refused.value, StoreUnavailable)


def test_each_right_that_is_taken_away_is_named() -> None:
    for role in ROLES:
        granted = privileges(role, database="d", namespace="n")
        assert list(missing(role, granted, database="d", namespace="n")) == []
        for place, one in enumerate(granted):
            for action in one["actions"]:
                less = [*granted]
                less[place] = {
                    **one,
                    "actions": [other for other in one["actions"] if other != action],
                }
                assert list(missing(role, less, database="d", namespace="n")) == [
                    f"{action} on {one['resource']['collection']}"
                ]
    whole = [
        {
            "resource": {"db": "d", "collection": ""},
            "actions": list(ROLES["flowkitCoordinator"]["tasks"]),
        }
    ]
    assert list(missing("flowkitCoordinator", whole, database="d", namespace="n")) == []

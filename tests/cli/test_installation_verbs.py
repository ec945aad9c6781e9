import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from flowkit import Client
from flowkit._records.heartbeats import process_info, process_of
from flowkit._records.worker_sessions import WorkerSession
from flowkit.cli import _checks
from flowkit.cli._embedded import storage
from flowkit.cli._process_checks import check_processes
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.errors import ConfigError, StoreUnavailable
from flowkit.plugins import Plugins
from flowkit.protocols import CheckResult
from flowkit.worker import Worker
from flowkit_testing import InMemoryBus, InMemoryStore, ManualClock
from tests.cli.conftest import Cli
from tests.cli.installations import ONE, Installation
from tests.store_records import put_session


def test_plugins_lists_who_provides_what(cli: Cli):
    result = cli("plugins")
    assert result.exit_code == 0
    assert any(
        line.split("│")[1:4]
        == [" builtin ", " function      ", " vars.set                         "]
        for line in result.stdout.splitlines()
    )
    said = json.loads(cli("plugins", "--json").stdout)
    assert {"plugin": "memory", "kind": "hook", "name": "flowkit_open_store"} in said


def test_plugins_lists_who_answers_which_address(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    said = json.loads(cli("plugins", "--json").stdout)
    assert {"plugin": "memory", "kind": "store", "name": "memory://"} in said
    assert {"plugin": "memory", "kind": "bus", "name": "memory://"} in said


def test_plugins_says_which_of_two_that_answer_one_address_is_used(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
):
    def entry_point(name: str):
        plugin = SimpleNamespace(
            flowkit_open_store=lambda source: (
                InMemoryStore() if source.startswith("twin://") else None
            )
        )
        return SimpleNamespace(name=name, load=lambda: plugin)

    monkeypatch.setattr(
        "importlib.metadata.entry_points",
        lambda *, group: [entry_point("first"), entry_point("second")],
    )
    said = json.loads(
        cli(
            "plugins", "--db", "twin://user:secret@here/name", "--bus", "memory://", "--json"
        ).stdout
    )
    assert [row for row in said if row["kind"] == "store"] == [
        {
            "plugin": "first",
            "kind": "store",
            "name": "twin://here/name (not used: second answers first)",
        },
        {"plugin": "second", "kind": "store", "name": "twin://here/name (used)"},
    ]


def test_doctor_finds_an_installation_well(cli: Cli, installation: Installation):
    installation.finish(ONE)
    result = cli("doctor", "--db", installation.address)
    assert result.exit_code == 0, result.stdout
    for name in ("python:", "clock:", "plugins:", "store:", "tasks:", "workers:", "bus:"):
        assert any(line.startswith(f"ok     {name} ") for line in result.stdout.splitlines())
    assert "ok     package flowkit-core: " in result.stdout


def test_doctor_says_what_is_wrong_and_how_to_fix_it(cli: Cli, installation: Installation):
    result = cli("doctor", "--db", installation.address)
    assert result.exit_code == 1
    assert (
        "FAULT  topic flowkit.events: does not exist\n       fix: start a coordinator, which"
        " makes it\n" in result.stdout
    )


def test_doctor_gives_its_findings_as_json(cli: Cli):
    result = cli("doctor", "--bus", "memory://nowhere", "--json")
    said = json.loads(result.stdout)
    assert (result.exit_code, said["ok"]) == (1, False)
    store = next(item for item in said["checks"] if item["name"] == "store")
    assert (store["ok"], store["detail"]) == (False, "no store is configured")
    assert "--db" in store["remedy"]


def test_the_packages_of_this_repository_have_one_version():
    folders = Path(__file__).parents[2].glob("flowkit-*/pyproject.toml")
    versions = dict.fromkeys((folder.parent.name for folder in folders), "1.9")
    results = _checks.compare_versions(versions | {"flowkit-core": "2.0"})
    assert [item.name for item in results if item.ok] == ["package flowkit-core"]


def test_packages_of_another_version_are_a_fault():
    results = _checks.compare_versions(
        {"flowkit-core": "2.0", "flowkit-mongo": "1.9", "flowkit-of-mine": "0.1"}
    )
    assert [(item.name, item.ok) for item in results] == [
        ("package flowkit-core", True),
        ("package flowkit-mongo", False),
        ("package flowkit-of-mine", True),
    ]
    assert results[1].remedy == "pip install flowkit-mongo==2.0"


def test_an_old_python_and_a_clock_that_was_never_set_are_faults():
    assert not _checks.check_python((3, 10)).ok
    assert _checks.check_clock(time.time()).ok
    assert "NTP" in _checks.check_clock(0.0).remedy


class Unreachable:
    """Plugin of stores with faults, and of a bus that never answers, whose driver logs one line."""

    def flowkit_open_store(self, source):
        stores = {"gone://": Gone, "faulty://": Faulty, "stuck://": Stuck}
        return stores[source]() if source in stores else None

    def flowkit_open_bus(self, address):
        return Silent() if address == "silent://" else None


class Gone(InMemoryStore):
    async def __aenter__(self):
        raise StoreUnavailable("gone: no server")


class Faulty(InMemoryStore):
    async def check(self):
        info = {"hb_interval_sec": "0.01"}
        await put_session(self, WorkerSession("killed", ("work",), 7, 0.0, info))
        return [CheckResult("disk", False, "0.0 MB free", "free space")]


class Stuck(InMemoryStore):
    async def check(self):
        await anyio.sleep_forever()


class Silent(InMemoryBus):
    async def __aenter__(self):
        logging.getLogger("a.driver").warning("connection refused by %s", "port 1")
        await anyio.sleep_forever()


@pytest.fixture
def plugins() -> Plugins:
    return Plugins([Unreachable()])


async def test_an_address_that_no_plugin_opens_is_a_fault_of_the_configuration():
    (found,) = await _checks.check_bus(Plugins(discover=False), CoordinatorConfig())
    assert found.detail.endswith("pip install flowkit-kafka")
    assert found.remedy == "correct the configuration of the bus"


@pytest.mark.parametrize(
    ("db", "package"), [(None, "flowkit-sqlite"), ("memory://", "flowkit-testing")]
)
def test_commands_without_a_server_say_which_package_they_need(db: str | None, package: str):
    with (
        pytest.raises(ConfigError, match=f"pip install {package}"),
        storage(db, Plugins(discover=False)),
    ):
        pass


async def test_a_store_out_of_reach_is_a_finding(plugins: Plugins):
    (found,) = await _checks.check_store(plugins, CoordinatorConfig(db="gone://"))
    assert (found.name, found.ok, found.detail) == ("store", False, "gone: no server")


async def test_the_processes_are_checked_although_the_store_has_a_fault(plugins: Plugins):
    found = await _checks.check_store(plugins, CoordinatorConfig(db="faulty://"))
    assert [(result.name, result.ok) for result in found] == [
        ("disk", False),
        ("tasks", True),
        ("records", True),
        ("coordinators", True),
        ("workers", True),
        ("worker killed", False),
    ]
    assert found[-1].remedy.startswith("fix the faults of the store first; then restart it")


async def test_the_processes_are_checked_although_the_store_does_not_answer_the_checks(
    plugins: Plugins,
):
    found = await _checks.check_store(plugins, CoordinatorConfig(db="stuck://"), patience_sec=0.05)
    assert [(result.name, result.ok) for result in found] == [
        ("store", False),
        ("tasks", True),
        ("records", True),
        ("coordinators", True),
        ("workers", True),
    ]


async def test_a_bus_that_does_not_answer_is_a_finding_with_what_its_driver_said(plugins: Plugins):
    (found,) = await _checks.check_bus(
        plugins, CoordinatorConfig(bus="silent://"), patience_sec=0.05
    )
    assert (found.ok, found.detail) == (
        False,
        "silent:// did not answer within 0.05 s; last warning: connection refused by port 1",
    )


async def _echo(item: object) -> object:
    return item


async def test_doctor_reports_a_worker_whose_session_is_not_renewed(flowkit_clock: ManualClock):
    clock = flowkit_clock
    async with InMemoryStore() as store, InMemoryBus() as bus:
        await put_session(
            store, WorkerSession("killed", ("work",), 7, clock.now(), {"hb_interval_sec": "2"})
        )
        async with Worker(
            bus=bus,
            store=store,
            clock=clock,
            handlers={"work": _echo},
            cfg=WorkerConfig(worker_id="alive"),
        ):
            _, live, silent = await check_processes(store, clock)
    assert (live.ok, live.detail) == (True, "1: alive (work)")
    assert (silent.name, silent.ok, silent.detail) == (
        "worker killed",
        False,
        "no heartbeat for 7 s",
    )
    assert "restart it" in silent.remedy


def session_of_an_ended_process(worker_id: str) -> WorkerSession:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    info = process_info(3) | {"pid": str(process.pid)}
    return WorkerSession(worker_id, ("work", "more"), 7, 0.0, info)


async def test_doctor_tells_a_killed_process_of_this_machine_from_a_fault(
    flowkit_clock: ManualClock,
):
    clock = flowkit_clock
    async with InMemoryStore() as store, InMemoryBus() as bus:
        await put_session(store, session := session_of_an_ended_process("local-1"))
        *_, found = await check_processes(store, clock)
        assert (found.name, found.ok) == ("worker local-1", True)
        assert found.detail == (
            f"{process_of(session)} has ended without ending its session, which coordinators delete"
            " later"
        )
        assert clock.monotonic() == 0
        async with Client(store=store, bus=bus, clock=clock) as client:
            await client.create_task(graph=ONE)
        *_, found = await check_processes(store, clock)
        assert not found.ok
        assert found.detail.endswith(
            "; no live worker serves its role 'work', and tasks have not ended"
        )
        cfg = WorkerConfig(worker_id="w")
        handlers = {"work": _echo, "more": _echo}
        async with Worker(bus=bus, store=store, clock=clock, handlers=handlers, cfg=cfg):
            *_, found = await check_processes(store, clock)
        assert found.ok


async def test_doctor_waits_no_longer_than_the_next_heartbeat_of_each_worker(
    flowkit_clock: ManualClock,
):
    clock = flowkit_clock
    async with InMemoryStore() as store, InMemoryBus() as bus:
        async with Worker(
            bus=bus,
            store=store,
            clock=clock,
            handlers={"work": _echo},
            cfg=WorkerConfig(worker_id="w", hb_interval_sec=3),
        ):
            began = clock.monotonic()
            found = await check_processes(store, clock)
            assert [result.ok for result in found] == [True, True]
            assert clock.monotonic() - began <= 3.5
        found = await check_processes(store, clock)
        assert [result.detail for result in found] == ["0", "0"]

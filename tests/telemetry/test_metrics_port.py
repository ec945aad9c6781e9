"""Metrics and probes of coordinators, workers and the web API."""

import logging
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.errors import ConfigError, PluginError, StoreUnavailable
from flowkit.plugins import Plugins
from flowkit.worker import Worker
from flowkit_testing import InMemoryBus, InMemoryStore
from flowkit_web._tokens import Role
from tests.builders import ONE, plugin, work
from tests.telemetry.probes import get, ports
from tests.web.api import cluster_with_api, serving


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowkit")


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values of a page by name, and by the values of the labels in order of name."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            values = tuple(value for _, value in sorted(one.labels.items()))
            found.setdefault(one.name, {})[values] = one.value
    return found


async def samples_with(port: int, name: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values of a page as soon as it has a metric."""
    while name not in (found := samples((await get(port, "/metrics"))[1])):
        pass
    return found


class Backends:
    """Store and bus that a coordinator and a worker share."""

    def __init__(self) -> None:
        self.store = InMemoryStore()
        self.bus = InMemoryBus()

    def coordinator(self, **fields: Any) -> Coordinator:
        cfg = CoordinatorConfig(metrics_port=0, **fields)
        return Coordinator(cfg=cfg, store=self.store, bus=self.bus)

    def worker(self, **fields: Any) -> Worker:
        cfg = WorkerConfig(metrics_port=0, **fields)
        return Worker(cfg=cfg, store=self.store, bus=self.bus, handlers=[work])


async def test_each_process_shows_what_it_has_measured(caplog: pytest.LogCaptureFixture) -> None:
    both = Backends()
    async with both.store, both.bus, both.coordinator() as coordinator, both.worker():
        await coordinator.wait(await coordinator.create_task(graph=ONE, pipeline="shop"))
        deciding, working = ports(caplog)
        decided = await samples_with(deciding, "flowkit_task_duration_seconds_count")
        worked = await samples_with(working, "flowkit_attempt_duration_seconds_count")
    assert decided["flowkit_task_changes_total"]["shop", "finished"] == 1
    assert decided["flowkit_node_changes_total"]["work", "finished"] == 1
    assert decided["flowkit_task_duration_seconds_count"]["shop", "finished"] == 1
    assert worked["flowkit_attempt_duration_seconds_count"]["succeeded", "work"] == 1
    assert "flowkit_task_changes_total" not in worked
    assert decided["flowkit_workers"] == {("work",): 1}
    assert "flowkit_workers" not in worked


async def test_a_process_is_ready_while_it_works_and_the_store_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = Backends()
    async with both.store, both.bus:
        async with both.coordinator(), both.worker():
            for port in ports(caplog):
                assert await get(port, "/readyz") == (200, "ok")
                assert await get(port, "/healthz") == (200, "ok")
        for port in ports(caplog):
            with pytest.raises(OSError, match="Connect call failed"):
                await get(port, "/readyz")


async def test_a_process_is_alive_and_not_ready_while_the_store_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = Backends()

    async def list_tasks(query: Any) -> Any:
        raise StoreUnavailable("the server is away: mongodb://ann:secret@db1")

    async with both.store, both.bus, both.coordinator(), both.worker():
        both.store.list_tasks = list_tasks
        for port in ports(caplog):
            status, reason = await get(port, "/readyz")
            assert (status, "the server is away" in reason) == (503, True)
            assert "secret" not in reason
            assert await get(port, "/healthz") == (200, "ok")


async def test_a_process_that_waits_for_its_bus_is_alive_and_not_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = Backends()
    seen = []

    async def ensure_topics(topics: Any) -> None:
        port = ports(caplog)[-1]
        seen.append((await get(port, "/readyz"), await get(port, "/healthz")))

    async with both.store, both.bus:
        both.bus.ensure_topics = ensure_topics
        async with both.coordinator(), both.worker():
            pass
    not_ready, alive = zip(*seen, strict=True)
    assert set(alive) == {(200, "ok")}
    assert set(not_ready) == {
        (503, "the coordinator is not started, or stops"),
        (503, "the worker is not started, or stops"),
    }


async def test_a_port_without_a_package_that_has_metrics_is_an_error_that_names_the_package() -> (
    None
):
    bare = Plugins(discover=False)
    advice = "metrics_port: .*pip install flowkit-telemetry"
    cfg = CoordinatorConfig(db="memory://", metrics_port=0)
    with pytest.raises(ConfigError, match=advice):
        await Coordinator(cfg=cfg, plugins=bare).start()
    working = WorkerConfig(db="memory://", metrics_port=0)
    with pytest.raises(ConfigError, match=advice):
        await Worker(cfg=working, handlers=[work], plugins=bare).start()


def test_a_port_that_is_true_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a number, not true"):
        CoordinatorConfig(metrics_port=True)


def test_an_empty_host_which_would_mean_all_addresses_is_refused() -> None:
    with pytest.raises(ValueError, match="metrics_host"):
        CoordinatorConfig(metrics_host="")


def test_a_client_with_the_configuration_of_a_coordinator_imports_no_library() -> None:
    script = (
        "import sys, flowkit; flowkit.Client(db='memory://', cfg=flowkit.CoordinatorConfig("
        "metrics_port=1)); print([name for name in sys.modules if 'prometheus' in name])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# ---------------------------------------------------------------- the web API


async def test_the_web_api_shows_the_figures_of_the_installation_to_viewers() -> None:
    async with (
        cluster_with_api() as (cluster, _),
        serving(cluster.client, role=Role.VIEWER, name="prometheus") as http,
    ):
        for path in ("/metrics", "/api/v1/metrics"):
            answer = await http.get(f"http://127.0.0.1:8400{path}")
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            found = samples(answer.text)
            assert found["flowkit_store_up"] == {(): 1}
            assert found["flowkit_open_tasks"]["queued",] == 0


async def test_the_web_api_without_a_package_that_has_metrics_names_the_package() -> None:
    async with cluster_with_api() as (cluster, _):
        cluster.client.plugins = Plugins(discover=False)
        async with serving(cluster.client, name="prometheus") as http:
            answer = await http.get("/metrics")
    assert answer.status_code == 404
    assert "pip install flowkit-telemetry" in answer.json()["detail"]


# ---------------------------------------------------------------- wrong pages


async def test_a_page_that_is_no_page_is_an_error_with_the_plugins_name() -> None:
    wrong = plugin("wrong", flowkit_open_metrics=lambda client: 5)
    cfg = CoordinatorConfig(db="memory://", metrics_port=0)
    with pytest.raises(PluginError, match="'wrong'.*the page lacks the method 'read'"):
        await Coordinator(cfg=cfg, plugins=Plugins([wrong], discover=False)).start()

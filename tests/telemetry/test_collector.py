"""Traces in a collector."""

from pathlib import Path
from typing import Any

import pytest

from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.cli._checks import check_bus
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins
from flowkit.worker import Worker
from flowkit_telemetry._collector_check import check_collector
from flowkit_telemetry._config import TelemetryConfig
from flowkit_testing import InMemoryBus
from tests.services.support import Installation
from tests.telemetry.collector import check_one_trace, collecting, flaky


async def test_a_trace_reaches_the_collector_whole(tmp_path: Path) -> None:
    with collecting() as collector:
        common: dict[str, Any] = {
            "db": f"sqlite:///{tmp_path / 'flowkit.db'}",
            "options": {"telemetry": collector.options},
        }
        await check_one_trace(
            collector,
            Coordinator(cfg=CoordinatorConfig(**common)),
            Worker(cfg=WorkerConfig(**common), handlers=[flaky]),
            Client(cfg=CommonConfig(**common)),
        )


@pytest.mark.services
async def test_a_trace_over_kafka_and_mongodb_reaches_the_collector_whole(
    kafka_address: str, mongo_address: str
) -> None:
    installation = Installation(kafka=kafka_address, mongo=mongo_address)
    with collecting() as collector:
        installation.common["options"]["telemetry"] = collector.options
        await check_one_trace(
            collector,
            installation.coordinator(),
            installation.worker([flaky]),
            installation.client(),
        )
    await installation.drop()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"traces_endpont": "http://a"}, "did you mean 'traces_endpoint'"),
        ({"traces_endpoint": "collector:4318"}, "options.telemetry.traces_endpoint"),
        ({"traces_endpoint": "http://a", "sample_ratio": 2}, "options.telemetry.sample_ratio"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        Plugins().configured(CommonConfig(options={"telemetry": options}))


async def test_the_doctor_checks_that_the_collector_accepts_spans() -> None:
    with collecting() as collector:
        (good,) = await check_collector(TelemetryConfig(**collector.options))
        wrong = {"traces_endpoint": collector.options["traces_endpoint"] + "s"}
        (bad,) = await check_collector(TelemetryConfig(**wrong))
    assert (good.ok, bad.ok) == (True, False)
    assert "/v1/tracess accepts no spans" in bad.detail


async def test_the_doctor_finds_no_collector_where_none_is_configured() -> None:
    async with InMemoryBus() as bus:
        answers = Plugins().answers("flowkit_check_bus", bus=bus, config=CommonConfig())
        assert [answer.value for answer in answers] == []


def test_a_process_without_an_endpoint_makes_no_spans() -> None:
    plugins = Plugins()
    assert plugins.configured(CommonConfig()) is plugins
    assert plugins.configured(CommonConfig(options={"telemetry": {}})) is plugins
    assert not plugins.surrounds_attempts


def test_a_process_makes_no_spans_if_opentelemetry_is_disabled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"telemetry": {"traces_endpoint": "http://127.0.0.1:1/v1/traces"}}
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    assert not Plugins().configured(CommonConfig(options=options)).surrounds_attempts


async def test_doctor_names_the_plugin_whose_settings_are_wrong_and_not_the_bus() -> None:
    cfg = CoordinatorConfig(
        db="memory://", bus="memory://", options={"telemetry": {"traces_endpoint": "collector"}}
    )
    (wrong,) = [one for one in await check_bus(Plugins(), cfg) if one.name == "plugins"]
    assert not wrong.ok
    assert "plugin 'traces': options.telemetry.traces_endpoint: must match" in wrong.detail
    assert wrong.remedy == "correct the configuration of this plugin"

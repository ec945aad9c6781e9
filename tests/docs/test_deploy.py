"""The files in docs/deploy are valid, and start processes as FlowKit documents them."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.config import ENVIRONMENT_PREFIX
from flowkit_web._config import WebConfig
from tests.docs.pages import ROOT
from tests.docs.test_commands import unknown_words

FOLDER = ROOT / "docs" / "deploy"
UNITS = sorted((FOLDER / "systemd").iterdir())
MANIFESTS = [
    document
    for path in sorted((FOLDER / "kubernetes").iterdir())
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS = [one for one in MANIFESTS if one["kind"] == "Deployment"]
WORKER = WorkerConfig()
ENDS_WITHIN_SEC = {
    "coordinator": 45,
    "worker": WORKER.stop_grace_sec + WORKER.cancel_grace_sec + 35,
    "web": 10,
    "webhooks": 10,
}
"""Time after a signal in which each process has ended, by its verb."""
SERVICE_FIELDS = frozenset(
    "build command depends_on deploy environment healthcheck image init ports profiles restart"
    " stop_grace_period volumes".split()
)
"""Fields of services in the specification of Compose that the file uses."""


def name_of(document: Mapping[str, Any]) -> str:
    return f"{document['kind']}-{document['metadata']['name']}"


def container(deployment: Mapping[str, Any]) -> Mapping[str, Any]:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    found: Mapping[str, Any] = only
    return found


def own_services() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the services of the Compose file that run FlowKit."""
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            yield name, service


def value_of(unit: Path, field: str) -> str:
    (value,) = re.findall(rf"^{field}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
    return str(value)


def processes() -> Iterator[tuple[str, list[str], float]]:
    """Yield each process in the files: its place, its words, and the time that it has to end."""
    for name, service in own_services():
        yield f"compose-{name}", service["command"], float(service["stop_grace_period"].rstrip("s"))
    for deployment in DEPLOYMENTS:
        spec = deployment["spec"]["template"]["spec"]
        grace = float(spec["terminationGracePeriodSeconds"])
        yield name_of(deployment), container(deployment)["args"], grace
    for unit in UNITS:
        _, *words = shlex.split(value_of(unit, "ExecStart"))
        yield unit.name, words, float(value_of(unit, "TimeoutStopSec"))


PROCESSES = {place: (words, grace) for place, words, grace in processes()}


@pytest.mark.parametrize("place", PROCESSES)
def test_each_process_runs_a_verb_with_options_that_exist(place: str) -> None:
    words, _ = PROCESSES[place]
    assert list(unknown_words(shlex.join(["flowkit", *words]))) == []


@pytest.mark.parametrize("place", PROCESSES)
def test_each_process_has_the_time_to_stop_that_it_needs(place: str) -> None:
    words, grace = PROCESSES[place]
    assert grace > ENDS_WITHIN_SEC[words[0]]


def environments() -> Iterator[tuple[str, Mapping[str, str]]]:
    for name, service in own_services():
        yield name, service["environment"]
    configured = next(one["data"] for one in MANIFESTS if one["kind"] == "ConfigMap")
    for deployment in DEPLOYMENTS:
        own = (
            {one["name"]: one.get("value", "pod-1") for one in container(deployment)["env"]}
            if ("env" in container(deployment))
            else {}
        )
        yield name_of(deployment), {**configured, **own}


@pytest.mark.parametrize(("place", "environment"), list(environments()))
def test_the_environment_is_a_configuration_of_all_processes(
    place: str, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        assert name.startswith(ENVIRONMENT_PREFIX)
        monkeypatch.setenv(name, value)
    for kind in (CoordinatorConfig, WorkerConfig):
        cfg = kind.load()
        assert cfg.bus_address() == "kafka://kafka:9092"
        WebConfig.from_options(cfg.options.get("web", {}))


# ---------------------------------------------------------------- Kubernetes


@pytest.mark.parametrize(
    "document", [one for one in MANIFESTS if one["kind"] != "ScaledObject"], ids=name_of
)
def test_a_manifest_fits_the_schema_of_kubernetes(document: Mapping[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name_of)
def test_probes_ask_for_paths_that_are_served_on_a_port_of_the_container(
    deployment: Mapping[str, Any],
) -> None:
    one = container(deployment)
    configured = next(one["data"] for one in MANIFESTS if one["kind"] == "ConfigMap")
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    metrics = int(configured["FLOWKIT_METRICS_PORT"])
    assert set(ports.items()) <= {("metrics", metrics), ("http", 8400)}
    assert one["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert one["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for probe in (one["livenessProbe"], one["readinessProbe"]):
        assert probe["httpGet"]["port"] in ports
        assert probe["timeoutSeconds"] > 2  # the time in which the store answers


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name_of)
def test_kubernetes_sets_no_variables_for_services_in_the_pods(
    deployment: Mapping[str, Any],
) -> None:
    # Those of the service flowkit-web look like fields of the configuration: FLOWKIT_WEB_PORT.
    assert deployment["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_selectors_find_the_pods_of_their_deployments() -> None:
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in DEPLOYMENTS
    }
    for document in MANIFESTS:
        if document["kind"] == "ConfigMap" or document["kind"] == "ScaledObject":
            continue
        selector = document["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        assert wanted.items() <= pods[document["metadata"]["name"]].items()


def test_the_workers_are_scaled_by_the_commands_that_wait_for_them() -> None:
    (scaled,) = (one for one in MANIFESTS if one["kind"] == "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    target = scaled["spec"]["scaleTargetRef"]["name"]
    assert target in {one["metadata"]["name"] for one in DEPLOYMENTS}
    assert trigger["type"] == "kafka"
    assert trigger["metadata"]["consumerGroup"] == WORKER.workers_group
    assert trigger["metadata"]["topic"] == WORKER.command_topic("resize")
    assert all(isinstance(value, str) for value in trigger["metadata"].values())


# ---------------------------------------------------------------- Compose and systemd


def test_the_services_of_the_compose_file_fit_together() -> None:
    services, volumes = COMPOSE["services"], COMPOSE["volumes"]
    assert COMPOSE.keys() == {"x-flowkit", "x-ready", "services", "volumes"}
    for service in services.values():
        assert service.keys() <= SERVICE_FIELDS
        assert ("image" in service) != ("build" in service)
        for name, needed in service.get("depends_on", {}).items():
            assert needed["condition"] == "service_healthy"
            assert "healthcheck" in services[name]
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in volumes
        for value in service.get("environment", {}).values():
            assert isinstance(value, str)


def test_the_program_of_the_health_check_is_python() -> None:
    assert COMPOSE["x-ready"]["test"][:3] == ["CMD", "python", "-c"]
    compile(COMPOSE["x-ready"]["test"][3], "healthcheck", "exec")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_units(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text(encoding="utf-8").replace("/srv/shop/.venv/bin/flowkit", sys.executable)
    copy = tmp_path / unit.name.replace("@", "@1")
    copy.write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------- the page


def test_the_page_names_every_file() -> None:
    page = (ROOT / "docs/how-to/deploy.md").read_text(encoding="utf-8")
    for path in FOLDER.rglob("*"):
        if path.is_file():
            assert f"](../deploy/{path.relative_to(FOLDER).as_posix()})" in page

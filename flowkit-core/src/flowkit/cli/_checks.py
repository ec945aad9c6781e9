"""Checks of ``flowkit doctor``: Python, packages, clock, store and bus."""

import importlib.metadata
import math
import platform
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import anyio

from flowkit._backends import coordinator_topics
from flowkit._text.redaction import redacted
from flowkit.cli._connection import NAME_A_STORE, without_creation
from flowkit.cli._log_output import LastWarning
from flowkit.cli._process_checks import check_processes
from flowkit.cli._record_checks import check_records, check_tasks
from flowkit.cli._trigger_checks import check_triggers
from flowkit.clock import SystemClock
from flowkit.config import CoordinatorConfig
from flowkit.errors import ConfigError, FlowKitError
from flowkit.plugins import Plugins
from flowkit.protocols import CheckResult, utc

OLDEST_PYTHON = (3, 11)
PATIENCE_SEC = 15.0
STORE_FIRST = "fix the faults of the store first; then "
DAY_SEC = 86_400.0
LOCK_SEC = 2.0
"""Time for which the checks wait for the lock of a file."""
TOGETHER = frozenset(
    f"flowkit-{name}"
    for name in ("core", "kafka", "mongo", "sqlite", "telemetry", "testing", "web")
)
"""Packages that are released with one version."""
CHECK_SERVER = "check that the server is running and that the address is correct"
CHECK_FILE = "check that this user may read and write the file and its folder"


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> CheckResult:
    """Check that this Python version is supported."""
    oldest = ".".join(map(str, OLDEST_PYTHON))
    detail = f"{platform.python_version()} ({platform.python_implementation()})"
    return CheckResult(
        "python", version >= OLDEST_PYTHON, detail, f"install Python {oldest} or newer"
    )


def check_packages() -> list[CheckResult]:
    """Check that all FlowKit packages have the same version."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name.startswith("flowkit-"):
            versions.setdefault(name, distribution.version)
    return compare_versions(versions)


def compare_versions(versions: dict[str, str]) -> list[CheckResult]:
    """Return a check for each package.

    Packages that are released together with flowkit-core must have its version.
    """
    core = versions.get("flowkit-core", "")
    return [
        CheckResult(
            f"package {name}",
            name not in TOGETHER or version == core,
            version,
            f"pip install {name}=={core}",
        )
        for name, version in sorted(versions.items())
    ]


def check_clock(now: float | None = None) -> CheckResult:
    """Check that the clock is plausible.

    The checks of the store and the bus report offsets to the clocks of the servers.
    """
    now = time.time() if now is None else now
    installed = Path(__file__).stat().st_mtime
    if now < installed - DAY_SEC:
        return CheckResult(
            "clock",
            False,
            f"{utc(now):%Y-%m-%d %H:%M:%S} UTC, before FlowKit was installed",
            "set the clock, preferably with NTP",
        )
    return CheckResult("clock", True, f"{utc(now):%Y-%m-%d %H:%M:%S} UTC")


async def check_store_and_bus(
    plugins: Plugins, cfg: CoordinatorConfig, *, max_behind: int | None = None
) -> list[CheckResult]:
    """Return the checks of the store, its coordinators and workers, and the bus.

    If the store cannot be opened, a bus in the same file is not checked too. If neither is
    configured, no bus on this host is looked for.
    """
    cfg = without_creation(cfg, busy_timeout_sec=LOCK_SEC)
    results = list(await check_store(plugins, cfg, max_behind=max_behind))
    is_open = all(item.ok for item in results if item.name == "store")
    is_in_store = cfg.bus_address() == cfg.db or not (cfg.db or cfg.bus or cfg.kafka_bootstrap)
    return results if is_in_store and not is_open else [*results, *await check_bus(plugins, cfg)]


async def check_store(
    plugins: Plugins,
    cfg: CoordinatorConfig,
    *,
    max_behind: int | None = None,
    patience_sec: float = PATIENCE_SEC,
) -> Sequence[CheckResult]:
    """Return the checks of the store, its tasks and records, and the processes that use it.

    A fault that the one finds does not prevent the other.
    """
    if not (address := cfg.db):
        return [CheckResult("store", False, "no store is configured", NAME_A_STORE)]

    async def ask(opening: anyio.CancelScope) -> Sequence[CheckResult]:
        async with plugins.open_store(address, cfg) as store:
            opening.deadline = math.inf
            found = await _check_server(
                "store", address, lambda _: store.check(), patience_sec=patience_sec
            )
            tasks = await _check_server(
                "tasks",
                address,
                lambda _: check_tasks(store, plugins, SystemClock()),
                patience_sec=patience_sec,
            )
            records = await _check_server(
                "records",
                address,
                lambda _: check_records(store, plugins, SystemClock()),
                patience_sec=patience_sec,
            )
            processes = await _check_server(
                "processes",
                address,
                lambda _: check_processes(store, SystemClock()),
                patience_sec=patience_sec,
            )
            triggers = await _check_server(
                "triggers",
                address,
                lambda _: check_triggers(store, plugins, cfg, max_behind=max_behind),
                patience_sec=patience_sec,
            )
            is_sound = all(item.ok for item in found)
            others = processes if is_sound else map(_after_the_store, processes)
            return [*found, *tasks, *records, *others, *triggers]

    return await _check_server("store", address, ask, patience_sec=patience_sec)


def _after_the_store(found: CheckResult) -> CheckResult:
    """Return a finding about processes, which may send no heartbeats because of the store."""
    return found if found.ok else replace(found, remedy=f"{STORE_FIRST}{found.remedy}")


async def check_bus(
    plugins: Plugins, cfg: CoordinatorConfig, *, patience_sec: float = PATIENCE_SEC
) -> Sequence[CheckResult]:
    """Return the checks of the bus and of the topics that the installation needs."""

    async def ask(_: anyio.CancelScope) -> Sequence[CheckResult]:
        async with plugins.open_bus(cfg.bus_address(), cfg) as bus:
            found = list(await bus.check(coordinator_topics(cfg)))
            try:
                for answer in plugins.answers("flowkit_check_bus", bus=bus, config=cfg):
                    found += await answer.value
            except ConfigError as error:
                fix = error.remedy or "correct the configuration of this plugin"
                found.append(CheckResult("plugins", False, error.fault, fix))
            return found

    return await _check_server("bus", cfg.bus_address(), ask, patience_sec=patience_sec)


async def _check_server(
    name: str,
    address: str,
    ask: Callable[[anyio.CancelScope], Awaitable[Sequence[CheckResult]]],
    *,
    patience_sec: float,
) -> Sequence[CheckResult]:
    """Return the server's own checks, or one failed check if it does not answer in time.

    ``ask`` gets the scope of the time limit.
    """
    warning = LastWarning()
    remedy = CHECK_FILE if address.startswith("sqlite://") else CHECK_SERVER
    try:
        with warning.attached(), anyio.fail_after(patience_sec) as scope:
            return await ask(scope)
    except TimeoutError:
        last = f"; last warning: {warning.text}" if warning.text else ""
        detail = f"{redacted(address)} did not answer within {patience_sec:g} s{last}"
        return [CheckResult(name, False, detail, remedy)]
    except ConfigError as error:
        remedy = f"correct the configuration of the {name}"
        return [CheckResult(name, False, error.fault, error.remedy or remedy)]
    except FlowKitError as error:
        return [CheckResult(name, False, error.fault, error.remedy or remedy)]

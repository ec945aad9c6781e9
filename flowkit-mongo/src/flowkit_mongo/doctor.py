"""What ``flowkit doctor`` shows of the store."""

import time
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

from flowkit.errors import FlowKitError
from flowkit.protocols import CheckResult
from flowkit_mongo._context import Context
from flowkit_mongo._driver import Kind
from flowkit_mongo.documents import SCHEMA_VERSION
from flowkit_mongo.indexes import missing_indexes

OLDEST_SERVER = (4, 4)
LARGEST_OFFSET_SEC = 5.0
PROBE = "flowkit doctor"


async def diagnose(context: Context) -> list[CheckResult]:
    """Look at the server, its clock, the rights, the indexes and the documents' version. Raises nothing."""
    results = []
    try:
        async for result in _results(context):
            results.append(result)
    except FlowKitError as error:
        remedy = "Is the server running, the address right, the user known and given the rights the how-to names?"
        results.append(CheckResult("mongodb", ok=False, detail=str(error), remedy=remedy))
    return results


async def _results(context: Context) -> AsyncIterator[CheckResult]:
    if context.driver.kind is Kind.MOCK:
        yield CheckResult("mongodb", ok=True, detail="mongomock-motor: data are lost with the process")
        return
    database, calls = context.driver.database, context.calls
    info = await calls.patiently(lambda: database.command("buildInfo"))
    yield _version(info)
    hello = await calls.patiently(lambda: database.command("hello"))
    yield _topology(hello)
    yield _clock_offset(hello, time.time())
    await calls.patiently(lambda: database[context.name("purged")].delete_one({"_id": PROBE}))
    yield CheckResult("mongodb rights", ok=True, detail=f"{context.name('*')} can be written")
    missing = [
        f"{index.collection}.{index.name}" for index in await calls.patiently(lambda: missing_indexes(context.driver, context.namespace))
    ]
    yield CheckResult(
        "mongodb indexes",
        ok=not missing,
        detail=f"missing: {', '.join(missing)}" if missing else "all there",
        remedy="Start a coordinator once with the right to create indexes." if missing else "",
    )
    newer = await context.find("tasks", {"_id": {"$gte": ""}}, {"schema_version": 1}, sort=[("_id", -1)], limit=1)
    yield _schema(newer)


def _version(info: dict[str, Any]) -> CheckResult:
    ok = tuple(info["versionArray"][:2]) >= OLDEST_SERVER
    return CheckResult("mongodb version", ok=ok, detail=info["version"], remedy="" if ok else "MongoDB 4.4 or later is needed.")


def _topology(hello: dict[str, Any]) -> CheckResult:
    if hello.get("msg") == "isdbgrid":
        detail = "sharded cluster"
    elif "setName" in hello:
        detail = f"replica set {hello['setName']} of {len(hello.get('hosts', ()))}"
    else:
        detail = "standalone server, without fail-over"
    return CheckResult("mongodb topology", ok=True, detail=detail)


def _clock_offset(hello: dict[str, Any], now: float) -> CheckResult:
    offset = hello["localTime"].replace(tzinfo=UTC).timestamp() - now
    ok = abs(offset) < LARGEST_OFFSET_SEC
    return CheckResult("mongodb clock", ok=ok, detail=f"{offset:+.3f} s from here", remedy="" if ok else "Let both clocks be set by NTP.")


def _schema(found: list[dict[str, Any]]) -> CheckResult:
    version = max((document.get("schema_version", SCHEMA_VERSION) for document in found), default=SCHEMA_VERSION)
    ok = version <= SCHEMA_VERSION
    return CheckResult("mongodb schema", ok=ok, detail=f"version {version}", remedy="" if ok else "Upgrade: a later FlowKit wrote it.")

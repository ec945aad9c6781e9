"""What ``flowkit doctor`` shows of the store."""

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from typing import Any

from flowkit.errors import FlowKitError
from flowkit.protocols import CheckResult, DamagedRecord
from flowkit_mongo import _rights as rights
from flowkit_mongo._context import Context
from flowkit_mongo._damaged_records import SEARCH_SEC, damaged_records
from flowkit_mongo._document_schemas import SCHEMA_VERSION, TEXT_ID
from flowkit_mongo._driver import Kind
from flowkit_mongo._indexes import missing_indexes

OLDEST_SERVER = (4, 4)
LARGEST_OFFSET_SEC = 5.0
ROLE = "flowkitCoordinator"
MOST_DAMAGED = 100
MOST_SHOWN = 5


async def diagnose(context: Context) -> list[CheckResult]:
    """Look at the server, its clock, the rights, the indexes and the documents' version. Raises
    nothing.
    """
    results = []
    try:
        async for result in _results(context):
            results.append(result)
    except FlowKitError as error:
        remedy = (
            "See that the server runs, the address is right, and the user has the rights which the"
            " how-to on deployment names."
        )
        results.append(CheckResult("mongodb", ok=False, detail=str(error), remedy=remedy))
    return results


async def _results(context: Context) -> AsyncIterator[CheckResult]:
    if context.driver.kind is Kind.MOCK:
        yield CheckResult(
            "mongodb", ok=True, detail="mongomock-motor: data are lost with the process"
        )
        return
    database, calls = context.driver.database, context.calls
    info = await calls.patiently(lambda: database.command("buildInfo"))
    yield _version(info)
    hello = await calls.patiently(lambda: database.command("hello"))
    yield _topology(hello)
    yield _clock_offset(hello, time.time())
    status = await calls.patiently(
        lambda: database.command({"connectionStatus": 1, "showPrivileges": True})
    )
    yield _rights(status["authInfo"], context)
    missing = [
        f"{index.collection}.{index.name}"
        for index in await calls.patiently(
            lambda: missing_indexes(context.driver, context.namespace)
        )
    ]
    yield CheckResult(
        "mongodb indexes",
        ok=not missing,
        detail=f"missing: {', '.join(missing)}" if missing else "all there",
        remedy="Start a coordinator once with the right to create indexes." if missing else "",
    )
    newer = await context.find(
        "tasks", {"_id": TEXT_ID}, {"schema_version": 1}, sort=[("_id", -1)], limit=1
    )
    yield _schema(newer)
    yield _records(*await damaged_records(context, limit=MOST_DAMAGED))


def _version(info: dict[str, Any]) -> CheckResult:
    ok = tuple(info["versionArray"][:2]) >= OLDEST_SERVER
    return CheckResult(
        "mongodb version",
        ok=ok,
        detail=info["version"],
        remedy="" if ok else "MongoDB 4.4 or later is needed.",
    )


def _rights(known: dict[str, Any], context: Context) -> CheckResult:
    if not known["authenticatedUsers"]:
        return CheckResult("mongodb rights", ok=True, detail="no user is authenticated")
    user = known["authenticatedUsers"][0]["user"]
    granted = known["authenticatedUserPrivileges"]
    missing = list(
        rights.missing(
            ROLE, granted, database=context.driver.database.name, namespace=context.namespace
        )
    )
    if not missing:
        return CheckResult(
            "mongodb rights", ok=True, detail=f"user {user!r} has those of a coordinator"
        )
    shown = ", ".join(missing[:MOST_SHOWN]) + (
        f" and {len(missing) - MOST_SHOWN} more" if len(missing) > MOST_SHOWN else ""
    )
    remedy = (
        f"Grant the role {ROLE} of the how-to on deployment. A worker needs less: look with the"
        " user of a coordinator."
    )
    return CheckResult(
        "mongodb rights", ok=False, detail=f"user {user!r} lacks {shown}", remedy=remedy
    )


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
    return CheckResult(
        "mongodb clock",
        ok=ok,
        detail=f"{offset:+.3f} s from here",
        remedy="" if ok else "Let NTP set both clocks. FlowKit uses that of MongoDB.",
    )


def _schema(found: list[dict[str, Any]]) -> CheckResult:
    versions = [document.get("schema_version") for document in found]
    version = max(
        (version for version in versions if isinstance(version, int)), default=SCHEMA_VERSION
    )
    ok = version <= SCHEMA_VERSION
    return CheckResult(
        "mongodb schema",
        ok=ok,
        detail=f"version {version}",
        remedy="" if ok else "Upgrade: a later FlowKit wrote it.",
    )


def _records(found: Sequence[DamagedRecord], complete: bool) -> CheckResult:
    if not found:
        return CheckResult(
            "mongodb records",
            True,
            "none is damaged"
            if complete
            else f"none found damaged in {SEARCH_SEC:g} s, not all seen",
        )
    shown = "; ".join(
        f"{record.place} {record.record_id!r}: {record.fault}" for record in found[:MOST_SHOWN]
    )
    more = f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    remedy = (
        "Restore these documents from a backup, or delete them. `flowkit dlq ls` lists them."
        " Everything else goes on."
    )
    return CheckResult("mongodb records", False, f"{len(found)} damaged: {shown}{more}", remedy)

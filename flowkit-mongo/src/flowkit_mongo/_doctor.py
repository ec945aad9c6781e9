"""Checks of ``flowkit doctor``: the server, the rights, the indexes and the documents."""

import time
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

from flowkit.errors import FlowKitError
from flowkit.protocols import CheckResult
from flowkit_mongo import _rights as rights
from flowkit_mongo._context import Context
from flowkit_mongo._damaged_records import SEARCH_SEC, Search, damaged_records
from flowkit_mongo._document_schemas import SCHEMA_VERSION, TEXT_ID
from flowkit_mongo._indexes import missing_indexes

OLDEST_SERVER = (4, 4)
LARGEST_OFFSET_SEC = 5.0
ROLE = "flowkitCoordinator"
MOST_DAMAGED = 100
MOST_SHOWN = 5


async def diagnose(context: Context) -> list[CheckResult]:
    """Check the server and the database; faults and errors are in the results."""
    results = []
    try:
        async for result in _results(context):
            results.append(result)
    except FlowKitError as error:
        remedy = (
            "Check that the server runs, the address is right, and the user has the rights that the"
            " how-to on deployment lists."
        )
        results.append(CheckResult("mongodb", ok=False, detail=str(error), remedy=remedy))
    return results


async def _results(context: Context) -> AsyncIterator[CheckResult]:
    if not context.database.driver.has_server:
        yield CheckResult(
            "mongodb", ok=True, detail="mongomock-motor: data are lost when the process ends"
        )
        return
    database, calls = context.database.handle, context.calls
    info = await calls.patiently(lambda: database.command("buildInfo"))
    yield _version(info)
    hello = await calls.patiently(lambda: database.command("hello"))
    yield _topology(hello)
    yield _clock_offset(hello, time.time())
    status = await calls.patiently(
        lambda: database.command({"connectionStatus": 1, "showPrivileges": True})
    )
    yield _rights(status["authInfo"], context)
    yield await _indexes(context)
    newest = await context.find(
        "tasks", {"_id": TEXT_ID}, {"schema_version": 1}, sort=[("_id", -1)], limit=1
    )
    yield _schema(newest)
    yield _records(await damaged_records(context, limit=MOST_DAMAGED))


async def _indexes(context: Context) -> CheckResult:
    found = await context.calls.patiently(
        lambda: missing_indexes(context.database, context.namespace)
    )
    missing = [f"{index.collection}.{index.name}" for index in found]
    return CheckResult(
        "mongodb indexes",
        ok=not missing,
        detail=f"missing: {', '.join(missing)}" if missing else "all exist",
        remedy="Start a coordinator once with the right to create indexes." if missing else "",
    )


def _version(info: dict[str, Any]) -> CheckResult:
    ok = tuple(info["versionArray"][:2]) >= OLDEST_SERVER
    return CheckResult(
        "mongodb version",
        ok=ok,
        detail=info["version"],
        remedy="" if ok else "Use MongoDB 4.4 or later.",
    )


def _rights(known: dict[str, Any], context: Context) -> CheckResult:
    if not known["authenticatedUsers"]:
        return CheckResult("mongodb rights", ok=True, detail="no user is authenticated")
    user = known["authenticatedUsers"][0]["user"]
    granted = known["authenticatedUserPrivileges"]
    missing = list(
        rights.missing(
            ROLE, granted, database=context.database.handle.name, namespace=context.namespace
        )
    )
    if not missing:
        return CheckResult(
            "mongodb rights", ok=True, detail=f"user {user!r} has the rights of a coordinator"
        )
    shown = ", ".join(missing[:MOST_SHOWN]) + (
        f" and {len(missing) - MOST_SHOWN} more" if len(missing) > MOST_SHOWN else ""
    )
    remedy = (
        f"Grant the role {ROLE} of the how-to on deployment. A worker needs fewer rights: run this"
        " check with the user of a coordinator."
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
        detail=f"{offset:+.3f} s compared with this machine",
        remedy="" if ok else "Synchronize both clocks by NTP. FlowKit uses the clock of MongoDB.",
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
        remedy="" if ok else "Upgrade FlowKit: a later version wrote these documents.",
    )


def _records(search: Search) -> CheckResult:
    found = search.records
    if not found:
        detail = (
            "none is damaged"
            if search.in_time
            else f"none of those that were read in {SEARCH_SEC:g} s is damaged"
        )
        return CheckResult("mongodb records", True, detail)
    shown = "; ".join(
        f"{record.place} {record.record_id!r}: {record.fault}" for record in found[:MOST_SHOWN]
    )
    more = f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    remedy = (
        "Restore these documents from a backup, or delete them. `flowkit dlq ls` lists them. They"
        " do not affect other records."
    )
    return CheckResult("mongodb records", False, f"{len(found)} damaged: {shown}{more}", remedy)

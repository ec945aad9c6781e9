"""Rights of each kind of process on its collections.

The how-to on deployment and the doctor use this table.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from flowkit_mongo._document_schemas import SHAPES

COLLECTIONS = tuple(SHAPES)
WRITTEN_BY_WORKERS = frozenset(
    {"artifacts", "records", "record_changes", "blobs.files", "blobs.chunks"}
)

READ = ("find", "listIndexes")
WRITE = (*READ, "insert", "update", "remove")
OWN = (*WRITE, "createIndex")

ROLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "flowkitCoordinator": dict.fromkeys(COLLECTIONS, OWN),
    "flowkitWorker": {name: WRITE if name in WRITTEN_BY_WORKERS else READ for name in COLLECTIONS},
}
"""The actions of each role on each collection; clients have the role of a coordinator."""


def privileges(role: str, *, database: str, namespace: str = "flowkit") -> list[dict[str, Any]]:
    """Return the privileges of a role in the form of ``createRole``."""
    return [
        {
            "resource": {"db": database, "collection": f"{namespace}_{name}"},
            "actions": list(actions),
        }
        for name, actions in ROLES[role].items()
    ]


def missing(
    role: str, granted: list[dict[str, Any]], *, database: str, namespace: str
) -> Iterator[str]:
    """Yield the rights of a role that these privileges lack, as ``ACTION on COLLECTION``."""
    for wanted in privileges(role, database=database, namespace=namespace):
        resource = wanted["resource"]
        allowed = {
            action
            for one in granted
            if _covers(one["resource"], resource)
            for action in one["actions"]
        }
        for action in wanted["actions"]:
            if action not in allowed:
                yield f"{action} on {resource['collection']}"


def _covers(granted: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Return whether a granted resource includes this collection; an empty name means all."""
    return bool(granted.get("anyResource")) or all(
        granted.get(name) in ("", value) for name, value in wanted.items()
    )

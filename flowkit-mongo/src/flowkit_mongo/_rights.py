"""The rights that each kind of process needs on its collections: the table in the how-to, the roles
in it, and what the doctor compares.
"""

from collections.abc import Iterator, Mapping
from typing import Any

COLLECTIONS = (
    "tasks",
    "archive",
    "artifacts",
    "workers",
    "dead_letters",
    "purged",
    "blobs.files",
    "blobs.chunks",
)
WRITTEN_BY_WORKERS = frozenset(
    {"artifacts", "workers", "dead_letters", "blobs.files", "blobs.chunks"}
)

READ = ("find", "listIndexes")
WRITE = (*READ, "insert", "update", "remove")
OWN = (*WRITE, "createIndex")

ROLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "flowkitCoordinator": dict.fromkeys(COLLECTIONS, OWN),
    "flowkitWorker": {name: WRITE if name in WRITTEN_BY_WORKERS else READ for name in COLLECTIONS},
}
"""Actions by collection, by role. Clients have the role of a coordinator."""


def privileges(role: str, *, database: str, namespace: str = "flowkit") -> list[dict[str, Any]]:
    """The privileges of a role, as ``createRole`` takes them."""
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
    """What somebody with these privileges lacks of a role: ``ACTION on COLLECTION``."""
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
    """Whether a granted resource is or contains this collection: an empty name stands for all."""
    return bool(granted.get("anyResource")) or all(
        granted.get(name) in ("", value) for name, value in wanted.items()
    )

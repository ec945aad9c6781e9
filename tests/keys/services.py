"""The service of keys without the coordinator around it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from anyio.abc import TaskGroup

from flowkit._engine import Event
from flowkit.coordinator._keys import Keys
from flowkit.task import ClaimKind
from flowkit_testing import Cluster


def keys_of(
    kind: ClaimKind,
    cluster: Cluster,
    group: TaskGroup,
    report: Callable[[Mapping[str, Sequence[Event]]], Awaitable[None]],
) -> Keys:
    """Return the keys of one kind in the store of a cluster, which ``report`` their events."""
    return Keys(
        kind,
        group=group,
        store=cluster.store,
        clock=cluster.clock,
        report=report,
        leaving=lambda: False,
    )

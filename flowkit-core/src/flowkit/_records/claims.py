"""Claims: the worker of an attempt, recorded in the store before the attempt starts.

Claims are records in a stream of their own, separate from the artifacts of the node. The first
claim of a token wins, so an attempt is executed once, however often its command is delivered.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic_core import from_json, to_json

from flowkit._engine import (
    CommandWithdrawn,
    Effect,
    Event,
    SendCancel,
    WithdrawCommand,
    was_stopped,
)
from flowkit.messages import NodeStarted
from flowkit.protocols import ArtifactRecord, ArtifactStore, Stream
from flowkit.task import Task

logger = logging.getLogger(__name__)

CLAIMS_GENERATION = -1
"""The generation of a node's stream of claims. Its artifacts have generations from 0 on."""
PAGE = 100
CANCELLED = "cancelled"
"""Owner of the claims that withdraw the commands of cancelled nodes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Owner and time of a claim. ``mark`` identifies the claim."""

    owner: str
    at: float
    mark: str


def claim_record(task_id: str, node_id: str, token: str, claim: Claim) -> ArtifactRecord:
    """Return the record of a claim. Its ``uid`` is the token of the attempt."""
    return ArtifactRecord(
        stream=Stream(task_id, node_id, CLAIMS_GENERATION),
        uid=token,
        partial=False,
        meta=to_json({"owner": claim.owner, "mark": claim.mark}),
        metrics=b"{}",
        created_at=claim.at,
    )


def is_artifact(record: ArtifactRecord) -> bool:
    """Return whether a record is an artifact of a handler: no claim, no window, and no batch
    without one.
    """
    return record.meta is not None and record.stream.generation >= 0


async def read_claim(store: ArtifactStore, task_id: str, node_id: str, token: str) -> Claim | None:
    """Return the claim of an attempt, or None if there is none."""
    after = 0
    while page := await _page(store, Stream(task_id, node_id, CLAIMS_GENERATION), after):
        for record in page:
            if record.uid == token:
                values = from_json(record.meta or b"{}")
                return Claim(values["owner"], record.created_at, values["mark"])
        after = page[-1].position
    return None


async def _page(store: ArtifactStore, stream: Stream, after: int) -> Sequence[ArtifactRecord]:
    return await store.read(stream, after=after, limit=PAGE, latest=True)


async def withdraw(
    store: ArtifactStore, changes: Iterable[tuple[Task, Sequence[Effect]]], at: float
) -> None:
    """Claim the attempts of cancelled nodes, so that commands without a claim never run. Those that
    :func:`prove_withdrawn` claims are left out.
    """
    cancelled = []
    for task, effects in changes:
        proved = {effect.token for effect in effects if isinstance(effect, WithdrawCommand)}
        cancelled += [
            (task.spec, effect)
            for effect in effects
            if isinstance(effect, SendCancel)
            and effect.token not in proved
            and was_stopped(task, effect.index)
        ]
    if not cancelled:
        return
    claim = Claim(CANCELLED, at, CANCELLED)
    records = [
        claim_record(spec.task_id, spec.plan.ids[effect.index], effect.token, claim)
        for spec, effect in cancelled
    ]
    try:
        await store.put(records)
    except Exception as error:
        logger.warning(
            "%d commands of cancelled nodes were not withdrawn and may start: %s",
            len(records),
            error,
            extra={"action": "withdrawal_failed"},
        )


async def prove_withdrawn(
    store: ArtifactStore, orders: Sequence[tuple[Task, WithdrawCommand]], at: float
) -> dict[str, list[Event]]:
    """Claim attempts that must not start. Return by task which commands are withdrawn, and which
    workers with earlier claims have started the other attempts.
    """
    own = Claim(CANCELLED, at, CANCELLED)
    are_new = await store.put(
        [
            claim_record(task.task_id, task.spec.plan.ids[order.index], order.token, own)
            for task, order in orders
        ]
    )
    events: dict[str, list[Event]] = {}
    for (task, order), is_new in zip(orders, are_new, strict=True):
        first = own
        if not is_new:
            node_id = task.spec.plan.ids[order.index]
            first = await read_claim(store, task.task_id, node_id, order.token) or own
        events.setdefault(task.task_id, []).append(_first_claim(task, order, first))
    return events


def _first_claim(task: Task, order: WithdrawCommand, first: Claim) -> Event:
    """Return that an attempt is withdrawn, or that the worker with the first claim began it."""
    if first.owner == CANCELLED:
        return CommandWithdrawn(order.index, order.attempt, order.token)
    return NodeStarted(
        task_id=task.task_id,
        index=order.index,
        attempt=order.attempt,
        token=order.token,
        worker_id=first.owner,
        at=first.at,
    )

"""Registered flows, as clients store and read them."""

from typing import Any

from flowkit._records.flow_records import FlowPut, read_infos, read_version
from flowkit._tasks.registered_flows import FlowChoice, FlowDescription, read_options
from flowkit._user_code.containment import undo_cancellation
from flowkit.client._session import Session
from flowkit.errors import GraphError
from flowkit.task import FlowInfo, FlowVersion


async def put_flow(session: Session, name: str, graph: Any, description: str) -> FlowVersion:
    """Store a graph as the latest version of a flow, unless it is that already."""
    said = read_options(FlowDescription, name=name, description=description)
    try:
        parsed = await session.checks.checked(graph)
    except GraphError as error:
        error.add_note(f"flow {said.name!r}")
        raise
    finally:
        await undo_cancellation()
    put = FlowPut(said.name, parsed.source, said.description)
    stored = await session.patiently(
        lambda: put.apply(session.store.records, now=session.clock.now())
    )
    return stored.view()


async def get_flow(session: Session, name: str, version: int | None) -> FlowVersion:
    """Return a version of a flow; the latest one without ``version``."""
    choice = read_options(FlowChoice, flow=name, version=version)
    number = choice.version or await session.flows.latest(choice.flow)
    return (await read_version(session.store.records, choice.flow, number)).view()


async def list_flows(session: Session) -> list[FlowInfo]:
    """Return the latest version of each flow, by name."""
    return await read_infos(session.store.records)

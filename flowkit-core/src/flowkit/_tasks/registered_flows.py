"""Registered flows, as tasks use them."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from flowkit._json.limits import addressable
from flowkit._records.flow_records import HEADS, latest_versions, read_version
from flowkit._records.similar_names import similar_name
from flowkit._runtime.concurrency import Gathered
from flowkit._tasks.submission import Name
from flowkit.errors import Fault, FlowNotFound, GraphError
from flowkit.graph._faults import refusal
from flowkit.graph._models import LAST_VERSION
from flowkit.protocols import RecordStore
from flowkit.task import TaskFlow

MAX_VERSIONS = 256
MAX_BYTES = 16 * 1024 * 1024
"""Limit for the graphs of all cached versions together."""


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FlowChoice(_Options):
    """Flow that is asked for by its name."""

    flow: Name
    version: Annotated[int, Field(ge=1, le=LAST_VERSION)] | None = None


class FlowDescription(_Options):
    """Name and description of a flow that is registered."""

    name: Annotated[Name, AfterValidator(addressable)]
    description: Annotated[str, Field(max_length=10_000)]


def read_options(model: type[_Options], **given: Any) -> Any:
    """Return the options of a verb.

    Raises:
        GraphError: an option has a wrong value.
    """
    try:
        return model(**given)
    except ValidationError as error:
        faults = [Fault(None, refusal(item)) for item in error.errors(include_url=False)]
        raise GraphError(faults) from None


class RegisteredFlows:
    """Reader of registered flows, which caches versions: their graphs never change."""

    def __init__(self, records: Callable[[], RecordStore]) -> None:
        """``records`` returns the store of keyed records, or raises an error if it is closed."""
        self._records = records
        self._latest = Gathered(self._latest_of)
        """Return the number of the latest version of a flow; None if there is no such flow."""
        self._graphs: OrderedDict[tuple[str, int], VersionGraph] = OrderedDict()
        self._bytes = 0

    async def chosen(self, flow: Any, version: Any) -> tuple[TaskFlow, Mapping[str, Any]]:
        """Return the flow that a submission asks for, and its graph, which must not be changed.

        Raises:
            GraphError: the name or the version has a wrong value.
            FlowNotFound: there is no such flow, or it has no such version.
            CorruptRecord: its record is damaged.
        """
        choice = read_options(FlowChoice, flow=flow, version=version)
        number = choice.version or await self.latest(choice.flow)
        graph = await self.graph(choice.flow, number)
        return TaskFlow(choice.flow, number, latest=choice.version is None), graph.document

    async def latest(self, name: str) -> int:
        """Return the number of the latest version of a flow.

        Raises:
            FlowNotFound: there is no such flow.
            CorruptRecord: its record is damaged.
        """
        number = await self._latest(name)
        if number is None:
            raise FlowNotFound(name, near=await similar_name(self._records(), HEADS, name))
        return number

    async def _latest_of(self, names: list[str]) -> Sequence[int | None]:
        found = await latest_versions(self._records(), set(names))
        return [found.get(name) for name in names]

    async def graph(self, name: str, number: int) -> "VersionGraph":
        """Return the graph of a version.

        Raises:
            FlowNotFound: there is no such version.
            CorruptRecord: its record is damaged.
        """
        cached = self._graphs.get((name, number))
        if cached is not None:
            self._graphs.move_to_end((name, number))
            return cached
        stored = await read_version(self._records(), name, number)
        graph = VersionGraph(stored.document(), stored.graph)
        self._keep((name, number), graph)
        return graph

    def _keep(self, key: tuple[str, int], new: "VersionGraph") -> None:
        """Cache a graph, and evict the least recently used ones above the limits."""
        replaced = self._graphs.pop(key, None)
        self._graphs[key] = new
        self._bytes += len(new.source) - (0 if replaced is None else len(replaced.source))
        while self._bytes > MAX_BYTES or len(self._graphs) > MAX_VERSIONS:
            self._bytes -= len(self._graphs.popitem(last=False)[1].source)


class VersionGraph(NamedTuple):
    """Graph of a version, which must not be changed."""

    document: Mapping[str, Any]
    source: bytes
    """The same as JSON."""

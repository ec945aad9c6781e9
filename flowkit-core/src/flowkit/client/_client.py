"""The client: its life cycle."""

from collections.abc import Collection
from contextlib import AsyncExitStack
from typing import Any

from flowkit._backends import Backends
from flowkit._runtime.lifecycle import LifeState
from flowkit._tasks.event_processor import EventProcessor
from flowkit.client._hints import HintDispatcher, Hints
from flowkit.client._session import PATIENCE_SEC, Session, engine_settings, new_lifecycle
from flowkit.client._task_verbs import TaskVerbs
from flowkit.config import CommonConfig
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store, TopicSpec


class Client(TaskVerbs):
    """Client of an installation: it submits tasks, follows them and changes them.

    Coordinators and workers run the tasks; a client runs nothing itself. ``db`` is an address
    (``"mongodb://host/name"``, ``"memory://"``) or a database object that a plugin knows; ``bus``
    is an address or a :class:`~flowkit.protocols.Bus`. A change of a task is durable when its verb
    returns.

    If the ``max_in_flight`` or ``cancel_grace_sec`` of the coordinators are not the defaults, use
    their configuration as ``cfg``: the client that submits a task dispatches its first nodes, and
    the client that cancels a task sets its grace.
    """

    def __init__(
        self,
        *,
        db: Any = None,
        bus: Bus | str | None = None,
        cfg: CommonConfig | None = None,
        store: Store | None = None,
        clock: Clock | None = None,
        plugins: Collection[object] | Plugins | None = None,
    ) -> None:
        self.cfg = cfg if cfg is not None else CommonConfig()
        self._backends = Backends.of(
            cfg=self.cfg, db=db, bus=bus, store=store, clock=clock, plugins=plugins
        )
        self.clock = self._backends.clock
        self.plugins = self._backends.plugins
        self._life = new_lifecycle(self)
        self._resources = AsyncExitStack()

    async def start(self) -> None:
        """Connect to the store. The first verb that sends a message connects to the bus.

        Entering the client does the same.
        """
        if self._life.state is LifeState.OPEN:
            return
        async with AsyncExitStack() as stack:
            store, connection = await self._backends.open(
                stack, topics=[TopicSpec(self.cfg.events_topic)]
            )
            hints = Hints(
                connection=connection,
                topic=self.cfg.events_topic,
                control_topic=self.cfg.control_topic,
                clock=self.clock,
            )
            processor = EventProcessor(
                store=store,
                clock=self.clock,
                plugins=self.plugins,
                settings=engine_settings(self.cfg),
                keep_nodes=0,
                keep_settled_sec=0,
                patience_sec=PATIENCE_SEC,
            )
            session = Session(
                cfg=self.cfg,
                clock=self.clock,
                plugins=self.plugins,
                store=store,
                connection=connection,
                processor=processor,
                dispatcher=HintDispatcher(
                    hints, artifacts=store.artifacts, processor=processor, clock=self.clock
                ),
                life=self._life,
            )
            self._life.open(session)
            self._resources = stack.pop_all()

    async def stop(self) -> None:
        """Close the connections that the client opened."""
        if self._life.close() is not None:
            await self._resources.aclose()

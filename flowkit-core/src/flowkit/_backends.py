"""The store and the bus that a client, coordinator or worker works with."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Self

from flowkit._codecs.bus_codec import sealed
from flowkit._codecs.store_codec import encoded
from flowkit._runtime.bus_connection import BusConnection
from flowkit._runtime.probe_server import ProbeServer, WhyNotReady
from flowkit.clock import StoreClock
from flowkit.config import CommonConfig, CoordinatorConfig, ServiceConfig
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store, TopicSpec


@dataclass(frozen=True, slots=True)
class Backends:
    """Store, bus and clock of a client, coordinator or worker, as given to its constructor.

    A store or bus that is given as an object stays open; one that is opened here is also closed
    here.
    """

    cfg: CommonConfig
    db: Any
    bus: Bus | str | None
    store: Store | None
    clock: Clock
    plugins: Plugins

    @classmethod
    def of(
        cls,
        *,
        cfg: CommonConfig,
        db: Any,
        bus: Bus | str | None,
        store: Store | None,
        clock: Clock | None,
        plugins: Collection[object] | Plugins | None,
    ) -> Self:
        """Take the arguments of a constructor, with the defaults for those that are None."""
        return cls(
            cfg=cfg,
            db=db if db is not None else cfg.db,
            bus=bus,
            store=store,
            clock=clock or StoreClock(),
            plugins=(
                plugins if isinstance(plugins, Plugins) else Plugins(plugins or ())
            ).configured(cfg),
        )

    @property
    def effective_config(self) -> CommonConfig:
        """The configuration, in which ``bus`` is the address of the bus that is used. It is None if
        the bus was given as an object.
        """
        bus = self._bus_or_address()
        address = bus if isinstance(bus, str) else None
        return self.cfg.model_copy(update={"bus": address, "kafka_bootstrap": None})

    async def open(
        self, stack: AsyncExitStack, *, topics: Sequence[TopicSpec]
    ) -> tuple[Store, BusConnection]:
        """Open the store, and prepare a connection to the bus with these topics.

        ``stack`` closes both.

        Raises:
            ConfigError: no store is configured.
        """
        store = await self._opened_store(stack)
        if isinstance(self.clock, StoreClock):
            await stack.enter_async_context(self.clock.following(store))
        connection = self._bus_connection(topics)
        stack.push_async_callback(connection.stop)
        return encoded(store, self.plugins), connection

    async def _opened_store(self, stack: AsyncExitStack) -> Store:
        if self.store is not None:
            return self.store
        if self.db is None:
            raise ConfigError(
                "db is missing: give a database object, or an address such as"
                " 'mongodb://localhost/flowkit' or 'memory://'"
            )
        return await stack.enter_async_context(self.plugins.open_store(self.db, self.cfg))

    def _bus_connection(self, topics: Sequence[TopicSpec]) -> BusConnection:
        given = self._bus_or_address()
        bus = self.plugins.open_bus(given, self.cfg) if isinstance(given, str) else given
        return BusConnection(
            bus=bus,
            sealed=sealed(bus, self.cfg, self.plugins),
            enter=isinstance(given, str),
            topics=topics,
            clock=self.clock,
        )

    def _bus_or_address(self) -> Bus | str:
        return self.bus or self.cfg.bus_address(self.db)


def metrics_server(
    cfg: CommonConfig, plugins: Plugins, *, client: Any, why_not_ready: WhyNotReady
) -> AbstractAsyncContextManager[object]:
    """Return a context manager that serves metrics and probes if a port is configured.

    ``client`` is one for the figures of the installation, or None. ``why_not_ready`` returns why
    the process is not ready to work, or None.

    Raises:
        ConfigError: no plugin has metrics; on entering, the port cannot be used.
    """
    if not isinstance(cfg, ServiceConfig) or cfg.metrics_port is None:
        return nullcontext()
    page = plugins.open_metrics(client)
    if page is None:
        raise ConfigError(
            "metrics_port: no installed plugin has metrics; pip install flowkit-telemetry"
        )
    return ProbeServer(
        host=cfg.metrics_host, port=cfg.metrics_port, page=page, why_not_ready=why_not_ready
    )


def coordinator_topics(cfg: CoordinatorConfig) -> list[TopicSpec]:
    """Return the topics of a coordinator."""
    topics = topics_for(cfg, cfg.worker_types)
    return [*topics, TopicSpec(cfg.changes_topic)] if cfg.publish_changes else topics


def topics_for(cfg: CommonConfig, roles: Iterable[str]) -> list[TopicSpec]:
    """Return the topics of a process that sends or takes commands of these roles."""
    return [
        *(TopicSpec(cfg.command_topic(role)) for role in roles),
        TopicSpec(cfg.events_topic),
        TopicSpec(cfg.control_topic, broadcast=True),
        TopicSpec(cfg.dead_letter_topic),
    ]

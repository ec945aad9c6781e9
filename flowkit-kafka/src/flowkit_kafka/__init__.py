"""FlowKit's message bus on Apache Kafka.

``Coordinator(cfg=CoordinatorConfig(bus="kafka://host:9092"), …)`` opens the bus itself; use
:class:`KafkaBus` to open one yourself.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit_kafka._bus import KafkaBus
    from flowkit_kafka._config import KafkaConfig

__all__ = ["KafkaBus", "KafkaConfig"]

_MODULES = {"KafkaBus": "_bus", "KafkaConfig": "_config"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the plugin alone does not import the client."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

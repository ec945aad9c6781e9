"""Plugin of the entry-point group ``flowkit``: buses and sources of triggers at ``kafka://``
addresses, and the coordinator function ``kafka.publish``.

The client library is imported when one of them is used, so that an installed plugin costs nothing.
"""

from collections.abc import Callable
from typing import Any

from flowkit.config import CommonConfig
from flowkit.protocols import Bus, TriggerSource
from flowkit_kafka._address import SCHEME
from flowkit_kafka._publish import publish


def flowkit_open_bus(address: str, config: CommonConfig) -> Bus | None:
    """Return a bus for ``kafka://host:9092,host2:9092``, None for other addresses."""
    if not address.startswith(SCHEME):
        return None
    from flowkit_kafka._bus import KafkaBus

    return KafkaBus(address, config)


def flowkit_register_functions(register: Callable[[str, Any], None]) -> None:
    """Register the coordinator function ``kafka.publish``."""
    register("kafka.publish", publish)


def flowkit_open_trigger(source: str, config: CommonConfig) -> TriggerSource | None:
    """Return the topic ``kafka://host:9092,host2:9092/topic``, None for other addresses."""
    if not source.startswith(SCHEME):
        return None
    from flowkit_kafka._trigger_source import KafkaTriggerSource

    return KafkaTriggerSource(source, config)

"""Plugin of the entry-point group ``flowkit``: buses at ``kafka://`` addresses.

The client library is imported when a bus is opened, so that an installed plugin costs nothing.
"""

from flowkit.config import CommonConfig
from flowkit.protocols import Bus
from flowkit_kafka._address import SCHEME


def flowkit_open_bus(address: str, config: CommonConfig) -> Bus | None:
    """Return a bus for ``kafka://host:9092,host2:9092``, None for other addresses."""
    if not address.startswith(SCHEME):
        return None
    from flowkit_kafka._bus import KafkaBus

    return KafkaBus(address, config)

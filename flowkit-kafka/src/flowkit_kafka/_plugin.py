"""Plugin of the entry-point group ``flowkit``: buses at ``kafka://`` addresses."""

from flowkit import hookimpl
from flowkit.config import CommonConfig
from flowkit.protocols import Bus
from flowkit_kafka._bus import KafkaBus
from flowkit_kafka._config import SCHEME


@hookimpl
def flowkit_open_bus(address: str, config: CommonConfig) -> Bus | None:
    """Return a :class:`KafkaBus` for ``kafka://host:9092,host2:9092``, None for other addresses."""
    return KafkaBus(address, config) if address.startswith(SCHEME) else None

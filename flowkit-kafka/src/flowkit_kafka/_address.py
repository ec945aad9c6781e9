"""Addresses of Kafka: ``kafka://host:9092,host2:9092``."""

from flowkit.adapters import redacted
from flowkit.errors import ConfigError

SCHEME = "kafka://"
DEFAULT_PORT = 9092


def bootstrap_servers(address: str) -> list[str]:
    """Return the hosts of ``kafka://host:9092,host2``, each with its port.

    Raises:
        ConfigError: the address is not of this form.
    """
    rest = address.removeprefix(SCHEME).rstrip("/")
    if "@" in rest:
        raise ConfigError(
            "bus: a Kafka address cannot hold a user and password; set options.kafka.sasl_username"
            " and sasl_password"
        )
    return [_with_port(host.strip(), address) for host in rest.split(",")]


def _with_port(host: str, address: str) -> str:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, str(DEFAULT_PORT)
    if (
        not name
        or any(sign in name for sign in "/? ")
        or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536)
    ):
        raise ConfigError(
            f"bus: {redacted(address)!r} is not a Kafka address; write kafka://host:9092,host2:9092"
        )
    return f"{name}:{port}"

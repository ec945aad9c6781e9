"""Addresses of Kafka: ``kafka://host:9092,host2:9092``."""

from flowkit.adapters import redacted
from flowkit.errors import ConfigError

SCHEME = "kafka://"
DEFAULT_PORT = 9092


def bootstrap_servers(
    address: str, *, field: str = "bus", form: str = "kafka://host:9092,host2:9092"
) -> list[str]:
    """Return the hosts of ``kafka://host:9092,host2``, each with its port. Errors name the
    ``field`` that has the address, and its ``form``.

    Raises:
        ConfigError: the address is not of this form.
    """
    rest = address.removeprefix(SCHEME).rstrip("/")
    if "@" in rest:
        raise ConfigError(
            f"{field}: a Kafka address cannot hold a user and password; set"
            " options.kafka.sasl_username and sasl_password"
        )
    servers = [_with_port(host.strip()) for host in rest.split(",")]
    if None in servers:
        raise ConfigError(f"{field}: {redacted(address)!r} is not a Kafka address; write {form}")
    return [server for server in servers if server is not None]


def _with_port(host: str) -> str | None:
    """Return a host with its port; None if it is no host."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, str(DEFAULT_PORT)
    if (
        not name
        or any(sign in name for sign in "/? ")
        or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536)
    ):
        return None
    return f"{name}:{port}"

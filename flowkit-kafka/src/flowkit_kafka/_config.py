"""Configuration of the Kafka bus: the table ``options.kafka``."""

import ssl
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, Self

from aiokafka.helpers import create_ssl_context
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from flowkit.adapters import read_options
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError
from flowkit_kafka._topic_names import users_topic

SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"]
_REQUIRED_BY_MECHANISM = {
    "PLAIN": ("sasl_username", "sasl_password"),
    "SCRAM-SHA-256": ("sasl_username", "sasl_password"),
    "SCRAM-SHA-512": ("sasl_username", "sasl_password"),
    "OAUTHBEARER": ("sasl_oauth_token_provider",),
}


class KafkaConfig(BaseModel):
    """Settings of the Kafka bus; the defaults suit a small installation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    create_topics: bool = Field(
        True, description="Create topics that do not exist; if false, they must exist."
    )
    partitions: int = Field(
        8,
        ge=1,
        description="Partitions of a new topic: 4 to 12 times the processes that share it.",
    )
    broadcast_partitions: int = Field(1, ge=1, description="Partitions of a new broadcast topic.")
    replication_factor: int | None = Field(
        None,
        ge=1,
        description="Copies of a new topic; by default 3, or one per broker if there are fewer.",
    )
    retention_sec: int = Field(7 * 86_400, ge=60, description="Retention time of a new topic.")
    broadcast_retention_sec: int = Field(
        3_600, ge=60, description="Retention time of a new broadcast topic."
    )
    topic_settings: dict[str, str] = Field(
        default_factory=dict, description="Further settings of new topics, with Kafka's names."
    )

    max_message_bytes: int = Field(900_000, ge=1_000, description="Largest value of a message.")
    linger_ms: int = Field(
        0,
        ge=0,
        description=(
            "Time that a batch waits for further messages; those of one call are always sent"
            " together."
        ),
    )
    compression: Literal["gzip", "snappy", "lz4", "zstd"] | None = Field(
        None, description="Compression of published messages."
    )
    prefetch: int = Field(500, ge=1, description="Messages that a subscription fetches in advance.")

    publish_topics: list[str] = Field(
        default_factory=list,
        description="Topics to which `kafka.publish` may write; by default none.",
    )
    publish_bootstrap: str | None = Field(
        None,
        description=(
            "Brokers of `kafka.publish`, as `host:9092,host2:9092`; by default those of the bus."
        ),
    )

    patience_sec: float = Field(
        30.0,
        gt=0,
        description="Time to wait for an unreachable broker before `BusUnavailable`.",
    )
    close_timeout_sec: float = Field(
        10.0, gt=0, description="Time limit for closing a connection cleanly."
    )
    commit_interval_sec: float = Field(
        0.5, gt=0, description="Longest time between an acknowledgement and its offset commit."
    )
    session_timeout_sec: float = Field(
        10.0, gt=0, description="Time without heartbeats after which a member loses its partitions."
    )
    heartbeat_interval_sec: float = Field(
        1.0, gt=0, description="Interval of a member's heartbeats, which also notice rebalances."
    )
    rebalance_timeout_sec: float = Field(
        20.0,
        gt=0,
        description="Time that the members of a group wait for each other in a rebalance.",
    )
    request_timeout_sec: float = Field(
        40.0, gt=0, description="Time limit for the answer to one request."
    )
    metadata_max_age_sec: float = Field(
        10.0, gt=0, description="Longest time until new topics and partitions are noticed."
    )

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Security protocol of the connections."
    )
    ssl_cafile: str | None = Field(
        None, description="Trusted certificates; the default is the system's."
    )
    ssl_certfile: str | None = Field(None, description="The client's certificate.")
    ssl_keyfile: str | None = Field(
        None, description="The private key of the client's certificate."
    )
    ssl_password: SecretStr | None = Field(None, description="Password of the private key.")
    ssl_check_hostname: bool = Field(
        True, description="Require that the broker's certificate is for its host name."
    )
    sasl_mechanism: SaslMechanism = Field("PLAIN", description="SASL mechanism of the login.")
    sasl_username: str | None = Field(None, description="User for PLAIN and SCRAM.")
    sasl_password: SecretStr | None = Field(None, description="Password for PLAIN and SCRAM.")
    sasl_kerberos_service_name: str = Field("kafka", description="Service name for GSSAPI.")
    sasl_kerberos_domain_name: str | None = Field(None, description="Domain name for GSSAPI.")
    sasl_oauth_token_provider: str | None = Field(
        None, description="`module:name` of a function that returns aiokafka's token provider."
    )

    @field_validator("publish_topics")
    @classmethod
    def _topics_of_users(cls, topics: list[str]) -> list[str]:
        return [users_topic(topic, f"topic {number}") for number, topic in enumerate(topics, 1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # The brokers answer a join when all members have joined or the rebalance timeout is over. A
        # member whose request times out earlier never joins.
        if self.request_timeout_sec <= self.rebalance_timeout_sec:
            raise ValueError("request_timeout_sec must be above rebalance_timeout_sec")
        if self.heartbeat_interval_sec * 3 > self.session_timeout_sec:
            raise ValueError(
                "heartbeat_interval_sec must be at most a third of session_timeout_sec"
            )
        if self.security_protocol.startswith("SASL"):
            missing = [
                name
                for name in _REQUIRED_BY_MECHANISM.get(self.sasl_mechanism, ())
                if getattr(self, name) is None
            ]
            if missing:
                raise ValueError(f"{self.sasl_mechanism} needs {' and '.join(missing)}")
        return self

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Self:
        """Read a table of settings.

        Raises:
            ConfigError: fields are unknown or have the wrong type; the message names them.
        """
        return read_options(cls, options, "kafka")

    @classmethod
    def of(cls, common: CommonConfig) -> Self:
        """Return the table ``options.kafka`` of a configuration.

        Raises:
            ConfigError: as :meth:`parse`, or ``publish_topics`` has a topic of FlowKit.
        """
        found = cls.parse(common.options.get("kafka", {}))
        own = [topic for topic in found.publish_topics if common.owns_topic(topic)]
        if own:
            raise ConfigError(
                f"options.kafka.publish_topics: {own[0]!r} is a topic of this FlowKit"
                " installation, whose messages are its own"
            )
        return found

    def connection(self) -> dict[str, Any]:
        """Return the arguments that configure the connection of every client of the driver.

        Raises:
            ConfigError: a certificate, a key or the token provider cannot be loaded.
        """
        arguments: dict[str, Any] = {
            "security_protocol": self.security_protocol,
            "metadata_max_age_ms": _ms(self.metadata_max_age_sec),
            "retry_backoff_ms": 100,
        }
        if self.security_protocol.endswith("SSL"):
            arguments["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL"):
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": _reveal(self.sasl_password),
                "sasl_kerberos_service_name": self.sasl_kerberos_service_name,
                "sasl_kerberos_domain_name": self.sasl_kerberos_domain_name,
                "sasl_oauth_token_provider": self._token_provider(),
            }
        return arguments

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context: ssl.SSLContext = create_ssl_context(
                cafile=self.ssl_cafile,
                certfile=self.ssl_certfile,
                keyfile=self.ssl_keyfile,
                password=_reveal(self.ssl_password),
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                "options.kafka: the TLS files (ssl_cafile, ssl_certfile, ssl_keyfile) cannot be"
                f" loaded: {error}"
            ) from error
        context.check_hostname = self.ssl_check_hostname
        return context

    def _token_provider(self) -> Any:
        if self.sasl_oauth_token_provider is None:
            return None
        module, _, name = self.sasl_oauth_token_provider.partition(":")
        try:
            return getattr(import_module(module), name)()
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"options.kafka.sasl_oauth_token_provider: {self.sasl_oauth_token_provider!r}:"
                f" {error}"
            ) from error


def _reveal(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))

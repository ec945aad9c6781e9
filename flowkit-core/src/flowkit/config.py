"""Configuration of coordinators, workers and clients, and the sources of its values.

pydantic-settings is not used: its errors do not name the source of a value, and it ignores a
misspelt variable.
"""

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from flowkit._json.documents import (
    SYNTAX_OF_SUFFIX,
    DocumentError,
    off_of_yaml,
    read_document,
    read_file,
)
from flowkit._json.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENT_LEVELS,
    MAX_ID_CHARS,
    PositiveSeconds,
    Seconds,
)
from flowkit._runtime.topic_names import checked_topic, topic_of_role
from flowkit._text.redaction import labelled, redacted_value, shortened
from flowkit._text.validation_errors import errors_in, plain_message_of
from flowkit.errors import MAX_NAMED_FAULTS, ConfigError

ENVIRONMENT_PREFIX = "FLOWKIT_"
TESTS_PREFIX = "FLOWKIT_TEST_"
KAFKA_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
DEFAULT_KAFKA = "localhost:9092"
STORE_AND_BUS = ("memory://", "sqlite://")
"""Schemes whose addresses are a store and a bus."""
SHORTEST_KEY = 16
TOPIC_FORMATS = (
    "topic_cmd_fmt",
    "topic_status_fmt",
    "topic_control_fmt",
    "topic_dlq_fmt",
    "topic_changes_fmt",
)


class GraphLimits(BaseModel):
    """Limits of a graph, which is refused if it is larger, and of its maps and its output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_nodes: int = Field(20_000, ge=1, description="Number of nodes in a graph.")
    max_edges: int = Field(
        100_000,
        ge=1,
        description="Number of edges in a graph; an edge counts each time it is written.",
    )
    max_bytes: int = Field(
        MAX_DOCUMENT_BYTES, ge=1, description="Length of the graph as JSON, in bytes."
    )
    max_depth: int = Field(
        MAX_DOCUMENT_LEVELS,
        ge=1,
        description="Levels of nested values in a graph, without the graphs inside.",
    )
    max_map_items: int = Field(
        100_000, ge=1, description="Number of items of a map. With more, the node fails."
    )
    max_result_bytes: int = Field(
        MAX_DOCUMENT_BYTES,
        ge=1,
        description=(
            "Length of the output of a task, or of the result of a map, as JSON, in bytes."
        ),
    )


class LogConfig(BaseModel):
    """Log lines of handlers that are kept in the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="Lowest level of the lines that are kept."
    )
    max_lines: int = Field(
        1_000,
        ge=0,
        description=(
            "Lines kept of an attempt of a node: the first half, and of the rest the newest. With"
            " 0, no lines are kept."
        ),
    )
    max_bytes: int = Field(
        262_144, ge=1, description="Length of these lines as JSON, in bytes, in the same way."
    )
    loggers: list[str] = Field(
        default_factory=list,
        description=(
            "Loggers of Python's `logging` whose lines are kept besides those of `ctx.log`, with"
            " the loggers below them: `myapp`, or `root` for all."
        ),
    )


class CommonConfig(BaseModel):
    """Configuration that coordinators, workers and clients of one installation share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    db: str | None = Field(
        None,
        description=(
            "Address of the store, such as `mongodb://host/name`, `sqlite:///path` or `memory://`."
        ),
    )
    bus: str | None = Field(
        None,
        description=(
            "Address of the bus, such as `kafka://host:9092,host2:9092`, `sqlite:///path` or"
            " `memory://`. By default that of the store, if it is a bus too, else Kafka on this"
            " host."
        ),
    )
    kafka_bootstrap: str | None = Field(
        None, description="Short form of `bus` for Kafka: `host:9092`."
    )
    namespace: str = Field(
        "flowkit",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$",
        description="Prefix of topics, consumer groups and collections.",
    )
    topic_cmd_fmt: str = Field(
        "{namespace}.cmd.{role}", description="Topic of the commands to a role."
    )
    topic_status_fmt: str = Field(
        "{namespace}.events", description="Topic of the reports of workers and clients."
    )
    topic_control_fmt: str = Field(
        "{namespace}.control", description="Topic that every worker reads."
    )
    topic_dlq_fmt: str = Field("{namespace}.dlq", description="Topic of dead letters.")
    topic_changes_fmt: str = Field(
        "{namespace}.changes", description="Topic of the changes of tasks, for other programs."
    )
    signing_keys: tuple[SecretStr, ...] = Field(
        (),
        description=(
            "Secrets that sign messages, of at least 16 characters. The first signs, any of them"
            " verifies. Without keys, messages are not signed, and unsigned ones are accepted."
        ),
    )
    inline_limit_bytes: int = Field(
        65_536,
        ge=0,
        description=(
            "A larger input of a node is not sent in its command; the worker reads it from the"
            " store."
        ),
    )
    limits: GraphLimits = Field(
        default_factory=GraphLimits, description="Limits on submitted graphs and their outputs."
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Settings of adapters and plugins by name (`kafka`, `mongo`, …).",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation in (
            int,
            float,
            int | None,
        ):
            raise ValueError(f"expected a number, not {str(value).lower()}")
        return value

    @field_validator("signing_keys")
    @classmethod
    def _long_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < SHORTEST_KEY for key in keys):
            raise ValueError(f"a signing key has at least {SHORTEST_KEY} characters")
        return keys

    @model_validator(mode="after")
    def _one_bus(self) -> Self:
        if self.bus and self.kafka_bootstrap:
            raise ValueError("give bus or kafka_bootstrap, not both")
        for name in TOPIC_FORMATS:
            role = {"role": "r", "type": "r"} if name == "topic_cmd_fmt" else {}
            try:
                topic = getattr(self, name).format(namespace=self.namespace, **role)
            except (KeyError, IndexError, ValueError, AttributeError) as error:
                raise ValueError(
                    f"{name}: only {{namespace}} and, in topic_cmd_fmt, {{role}} are allowed"
                ) from error
            checked_topic(topic, name)
        if not any(part in self.topic_cmd_fmt for part in ("{role}", "{type}")):
            raise ValueError("topic_cmd_fmt: {role} is missing")
        return self

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Redact passwords in addresses and in the options."""
        return [
            (name, redacted_value(value, name or "")) for name, value in super().__repr_args__()
        ]

    def bus_address(self, db: object = None) -> str:
        """Return the address of the bus to open.

        This is the configured one, else that of the store if it is ``memory://`` or ``sqlite://``,
        which are a store and a bus, else Kafka on this host.
        """
        if self.bus:
            return self.bus
        if self.kafka_bootstrap:
            return f"kafka://{self.kafka_bootstrap}"
        store = db if isinstance(db, str) else self.db if db is None else None
        if store and store.startswith(STORE_AND_BUS):
            return store
        return f"kafka://{DEFAULT_KAFKA}"

    def command_topic(self, role: str) -> str:
        """Return the topic of the commands to a role.

        Raises:
            ConfigError: the topic's name would be longer than Kafka accepts.
        """
        return topic_of_role(role, self.topic_cmd_fmt, self.namespace)

    @property
    def events_topic(self) -> str:
        return self.topic_status_fmt.format(namespace=self.namespace)

    @property
    def control_topic(self) -> str:
        return self.topic_control_fmt.format(namespace=self.namespace)

    @property
    def dead_letter_topic(self) -> str:
        return self.topic_dlq_fmt.format(namespace=self.namespace)

    @property
    def changes_topic(self) -> str:
        return self.topic_changes_fmt.format(namespace=self.namespace)

    def owns_topic(self, topic: str) -> bool:
        """Return whether this installation uses a topic, or would use it for the commands to a
        role.
        """
        own = (self.events_topic, self.control_topic, self.dead_letter_topic, self.changes_topic)
        if topic in own:
            return True
        mark = "\0"
        commands = self.topic_cmd_fmt.format(namespace=self.namespace, role=mark, type=mark)
        first, *_, last = commands.split(mark)
        return topic.startswith(first) and topic.endswith(last)

    @property
    def coordinators_group(self) -> str:
        """Consumer group in which coordinators share the reports."""
        return f"{self.namespace}.coordinators"

    @property
    def workers_group(self) -> str:
        """Consumer group in which workers share the commands."""
        return f"{self.namespace}.workers"

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        overrides: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a JSON, TOML or YAML file, then the environment, then ``overrides``.

        Later values win.

        Every field can be set as ``FLOWKIT_<FIELD>``: lists with commas or as JSON, objects as
        JSON. Any other variable that begins with ``FLOWKIT_`` is an error, except
        ``FLOWKIT_TEST_*``. ``KAFKA_BOOTSTRAP_SERVERS`` sets ``kafka_bootstrap`` if neither
        ``FLOWKIT_KAFKA_BOOTSTRAP`` nor ``FLOWKIT_BUS`` is set.

        Raises:
            ConfigError: the file cannot be read, or a field is unknown or has a wrong value;
                the message names it.
        """
        return load_layers(cls, path, {"overrides": dict(overrides or {})})


C = TypeVar("C", bound=CommonConfig)


def load_layers(
    kind: type[C], path: str | os.PathLike[str] | None, overrides: Mapping[str, Mapping[str, Any]]
) -> C:
    """Load a configuration as :meth:`CommonConfig.load` does. Errors name the origins of the
    ``overrides``, which are the keys.

    Raises:
        ConfigError: the file cannot be read, or a field is unknown or has a wrong value.
    """
    origin: dict[str, str] = {}
    values: dict[str, Any] = {}
    layers = [(str(path), _read_file(Path(path)))] if path is not None else []
    for name, layer in [*layers, ("environment", _from_environment(kind)), *overrides.items()]:
        if {"bus", "kafka_bootstrap"} & layer.keys():
            values.pop("bus", None)
            values.pop("kafka_bootstrap", None)
        values.update(layer)
        origin.update(dict.fromkeys(map(str, layer), name))
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found = [_complaint(item, origin) for item in errors_in(error, values)]
        more = len(found) - MAX_NAMED_FAULTS
        raise ConfigError(
            "; ".join(found[:MAX_NAMED_FAULTS]) + (f"; and {more} more" if more > 0 else "")
        ) from None


class ServiceConfig(CommonConfig):
    """Configuration that coordinators and workers share. ``flowkit webhooks`` uses it, too."""

    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description=(
            "Port on which the process serves `/metrics`, `/healthz` and `/readyz`. It needs the"
            " package `flowkit-telemetry`. By default it serves none of them."
        ),
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description=(
            "Address of that port: `0.0.0.0` for all of the machine's. It needs no token, so let"
            " only probes and Prometheus reach it."
        ),
    )


class CoordinatorConfig(ServiceConfig):
    """Configuration of a coordinator."""

    worker_types: list[str] = Field(
        default_factory=list, description="Roles whose command topics are created at the start."
    )
    heartbeat_soft_sec: PositiveSeconds = Field(
        10.0, description="A worker is reported as suspect after this time without a heartbeat."
    )
    heartbeat_hard_sec: PositiveSeconds = Field(
        20.0, description="A worker is declared lost after this time without a heartbeat."
    )
    lease_ttl_sec: PositiveSeconds = Field(
        20.0,
        description=(
            "Lease of a first attempt: how long it stays with a worker without heartbeats. It"
            " doubles with each attempt."
        ),
    )
    cancel_grace_sec: Seconds = Field(10.0, description="Time that a cancelled node has to end.")
    scheduler_tick_sec: PositiveSeconds = Field(
        5.0, description="Longest time between two sweeps for forgotten work."
    )
    command_check_sec: PositiveSeconds = Field(
        2.0,
        description=(
            "Time between two checks whether the bus still holds the commands that no worker has"
            " started."
        ),
    )
    publish_changes: bool = Field(
        False,
        description=(
            "Publish every change of a task to the topic of changes. All coordinators of an"
            " installation need the same value."
        ),
    )
    finished_retention_sec: PositiveSeconds | None = Field(
        None,
        description=(
            "Tasks that ended longer ago are deleted with their archives and artifacts. By default"
            " they are never deleted."
        ),
    )
    purge_interval_sec: PositiveSeconds = Field(
        60.0, description="Pause between two deletions of tasks that ended long ago."
    )
    outbox_max_retry: int = Field(
        8,
        ge=0,
        description="Retries of sending commands, before the sweep sends them.",
    )
    outbox_backoff_min_ms: int = Field(50, ge=1, description="First pause before a retry.")
    outbox_backoff_max_ms: int = Field(5_000, ge=1, description="Longest pause before a retry.")
    segments: Annotated[Literal["safe", "eager", "off"], BeforeValidator(off_of_yaml)] = Field(
        "safe",
        description=(
            "How workers run chains of nodes: `safe` begins a node when the bus has acknowledged"
            " the result of the one before, `eager` does not wait for that, `off` sends a command"
            " for each node. A graph may choose for itself."
        ),
    )
    max_in_flight: int = Field(
        512, ge=1, description="Nodes of one task that are dispatched at the same time."
    )
    max_cached_nodes: int = Field(
        1_000_000,
        ge=1,
        description="Nodes of live tasks kept in memory. Tasks above it are loaded when needed.",
    )


class WorkerConfig(ServiceConfig):
    """Configuration of a worker."""

    roles: list[str] = Field(
        default_factory=list, description="Roles to serve. If empty: the roles of the handlers."
    )
    worker_id: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_ID_CHARS,
        pattern=r"^\P{Cc}*$",
        description="Name of the worker. By default it is generated.",
    )
    hb_interval_sec: PositiveSeconds = Field(
        3.0, description="Interval of the heartbeats, which renew the worker's session."
    )
    announce_interval_sec: PositiveSeconds = Field(
        30.0, description="Longest pause between two offers of waiting nodes to idle workers."
    )
    max_concurrency: int = Field(
        32,
        ge=1,
        description=(
            "Nodes that run at the same time. Those that wait for batches of other nodes, or for"
            " their readers, do not count."
        ),
    )
    pull_poll_ms_default: int = Field(
        500,
        ge=1,
        description="Longest pause before a waiting stream is read without a hint.",
    )
    strict_input_adapters: bool = Field(
        False,
        description=(
            "Fail the node if `load_input` proposes an unknown adapter, instead of using"
            " `iter_batches`."
        ),
    )
    stop_grace_sec: Seconds = Field(
        30.0, description="Time that runs have to end when the worker stops."
    )
    cancel_grace_sec: Seconds = Field(
        10.0, description="Time that a cancelled run has to end, before it is interrupted."
    )
    logs: LogConfig = Field(
        default_factory=LogConfig, description="Log lines of handlers that are kept in the store."
    )


def _read_file(path: Path) -> dict[str, Any]:
    syntax = SYNTAX_OF_SUFFIX.get(path.suffix.lower())
    if syntax is None:
        raise ConfigError(
            f"{path}: a configuration is .json, .toml, .yaml or .yml, not"
            f" {path.suffix or 'without a suffix'}"
        )
    try:
        values = read_document(read_file(path), syntax=syntax)
    except DocumentError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: a configuration is a table of fields, not {type(values).__name__}"
        )
    return values


def _from_environment(model: type[CommonConfig]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in os.environ.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name.startswith(TESTS_PREFIX):
            continue
        field = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if field not in model.model_fields:
            _check_known(name, field)
            continue
        kind = model.model_fields[field].annotation
        if kind in (str, str | None):
            values[field] = text
        elif text.lstrip().startswith(("[", "{")):
            try:
                values[field] = read_document(text, syntax="JSON")
            except DocumentError as error:
                raise ConfigError(f"{name}: {error}") from None
        elif get_origin(kind) in (list, tuple):
            values[field] = [part.strip() for part in text.split(",") if part.strip()]
        else:
            values[field] = text
    if os.environ.get(KAFKA_VARIABLE) and not {"bus", "kafka_bootstrap"} & values.keys():
        values["kafka_bootstrap"] = os.environ[KAFKA_VARIABLE]
    return values


def _check_known(name: str, field: str) -> None:
    """Refuse a variable that is a field of no configuration.

    Fields of other configurations pass: coordinators and workers may share one environment.
    """
    known = {*CoordinatorConfig.model_fields, *WorkerConfig.model_fields}
    if field in known:
        return
    near = get_close_matches(field, known, n=1)
    advice = (
        f"; did you mean {ENVIRONMENT_PREFIX}{near[0].upper()}?"
        if near
        else f"; only {TESTS_PREFIX}* is free for other use"
    )
    raise ConfigError(f"{shortened(name)}: there is no such field{advice}")


def _complaint(item: Any, origin: Mapping[str, str]) -> str:
    field = ".".join(shortened(str(part)) for part in item["loc"])
    where = origin.get(str(item["loc"][0])) if item["loc"] else None
    message = shortened(plain_message_of(item), 200)
    if not field:
        return message
    return f"{field} (from {where}): {message}" if where else labelled(field, message)

"""Configuration of the SQLite store and bus: the table ``options.sqlite``."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from flowkit.adapters import read_options


class SqliteConfig(BaseModel):
    """Settings of the file, which the store and the bus share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    create: bool = Field(
        True,
        description=(
            "Create the file if it does not exist. The verbs of the command line that do not run"
            " tasks use `false`, so that a wrong path is an error."
        ),
    )
    synchronous: Literal["full", "normal"] = Field(
        "full",
        description=(
            "`full` writes each confirmed change of the store to the disk. `normal` is faster, but"
            " a power failure may lose the changes of the last seconds. A crash of a process loses"
            " nothing in either case."
        ),
    )
    busy_timeout_sec: float = Field(
        10.0,
        gt=0,
        description="Time that an operation waits for the lock that another process holds.",
    )
    max_record_bytes: int = Field(
        33_554_432, ge=1_024, description="Largest size of a task, part or artifact."
    )
    readers: int = Field(
        4, ge=1, le=64, description="Connections of a process that read at the same time."
    )
    poll_interval_ms: int = Field(
        200,
        ge=1,
        description=(
            "Interval at which a process looks for changes of other processes, in case their"
            " notification was lost."
        ),
    )

    partitions: int = Field(
        16,
        ge=1,
        le=1_000,
        description="Partitions of a new topic; at most so many processes share its messages.",
    )
    retention_sec: float = Field(
        7 * 86_400.0,
        ge=60,
        description="Time after which a message is deleted that a group has not acknowledged.",
    )
    broadcast_kept: int = Field(
        10_000, ge=1, description="Messages that are kept of each partition of a broadcast topic."
    )
    max_message_bytes: int = Field(1_000_000, ge=1_000, description="Largest value of a message.")
    prefetch: int = Field(500, ge=1, description="Messages that a subscription reads in advance.")
    ack_interval_sec: float = Field(
        0.1, gt=0, description="Longest time between an acknowledgement and its storage."
    )
    lease_sec: float = Field(
        10.0,
        gt=0,
        description=(
            "Time after which a member of a group that does not renew its lease loses its messages"
            " to others. A member renews it three times in this time."
        ),
    )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Read the table of settings of a configuration.

        Raises:
            ConfigError: fields are unknown or have the wrong type; the message names them.
        """
        return read_options(cls, options, "sqlite")

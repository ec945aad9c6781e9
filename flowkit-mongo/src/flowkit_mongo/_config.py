"""Configuration of the MongoDB store: the table ``options.mongo``."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from flowkit.adapters import read_options


class MongoConfig(BaseModel):
    """Settings of the MongoDB store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blob_threshold_bytes: int = Field(
        262_144, ge=1_024, le=1_000_000, description="Payloads above this go to GridFS."
    )
    blob_cache_bytes: int = Field(
        33_554_432, ge=0, description="Size of the cache of blobs in memory."
    )
    max_record_bytes: int = Field(
        33_554_432, ge=1_024, description="Largest size of a task, part or artifact."
    )
    retry_for_sec: float = Field(
        15.0,
        ge=0,
        description=(
            "Time for which reads and repeatable writes are retried while MongoDB is unreachable."
        ),
    )
    operation_timeout_sec: float = Field(
        30.0,
        gt=0,
        description="Time limit of a single operation, after which it counts as unconfirmed.",
    )
    write_timeout_ms: int = Field(
        10_000, ge=1, description="Time that a write waits for the majority of a replica set."
    )
    server_selection_timeout_ms: int = Field(
        10_000, ge=1, description="Time that an operation waits for a primary. Used with addresses."
    )
    connect_timeout_ms: int = Field(
        5_000, ge=1, description="Time limit for opening a connection. Used with addresses."
    )
    max_pool_size: int = Field(
        32, ge=1, description="Most connections to a server. Used with addresses."
    )
    change_poll_min_ms: int = Field(
        10, ge=1, description="First interval of queries for changes while tasks are waited for."
    )
    change_poll_max_ms: int = Field(
        250, ge=1, description="Largest interval of these queries, reached while nothing changes."
    )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Read the table of settings of a configuration.

        Raises:
            ConfigError: fields are unknown or have the wrong type; the message names them.
        """
        return read_options(cls, options, "mongo")

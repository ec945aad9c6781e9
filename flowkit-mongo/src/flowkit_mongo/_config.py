"""Settings of the store: ``options["mongo"]`` of a coordinator's, worker's or client's
configuration.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from flowkit.adapters import read_options


class MongoConfig(BaseModel):
    """How FlowKit uses MongoDB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blob_threshold_bytes: int = Field(
        262_144, ge=1_024, le=1_000_000, description="Payloads above this go to GridFS."
    )
    blob_cache_bytes: int = Field(
        33_554_432, ge=0, description="Blobs that were read are kept in memory up to this sum."
    )
    max_record_bytes: int = Field(
        33_554_432, ge=1_024, description="Larger tasks and artifacts are refused."
    )
    retry_for_sec: float = Field(
        15.0,
        ge=0,
        description=(
            "How long reads and repeatable writes are tried again while the server is away."
        ),
    )
    operation_timeout_sec: float = Field(
        30.0, gt=0, description="A single operation that takes longer counts as not confirmed."
    )
    write_timeout_ms: int = Field(
        10_000, ge=1, description="How long a write waits for the majority of a replica set."
    )
    server_selection_timeout_ms: int = Field(
        10_000, ge=1, description="How long an operation waits for a primary. Used with addresses."
    )
    connect_timeout_ms: int = Field(
        5_000, ge=1, description="How long making a connection may take. Used with addresses."
    )
    max_pool_size: int = Field(
        32, ge=1, description="Connections to a server. Used with addresses."
    )
    change_poll_min_ms: int = Field(
        10, ge=1, description="Pause between two looks for changes somebody waits for, at first."
    )
    change_poll_max_ms: int = Field(
        250, ge=1, description="The same, when nothing has changed for a while."
    )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Check the settings as they stand in a configuration.

        Raises:
            ConfigError: a field is unknown or ill-typed; the message names it.
        """
        return read_options(cls, options, "mongo")

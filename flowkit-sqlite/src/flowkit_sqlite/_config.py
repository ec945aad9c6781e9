"""Configuration of the SQLite store and bus: the table ``options.sqlite``."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from flowkit.adapters import read_options


class SqliteConfig(BaseModel):
    """Settings of the file, which the store and the bus share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Read the table of settings of a configuration.

        Raises:
            ConfigError: fields are unknown or have the wrong type; the message names them.
        """
        return read_options(cls, options, "sqlite")

"""Configuration of traces: the table ``options.telemetry``."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from flowkit.adapters import read_options


class TelemetryConfig(BaseModel):
    """Settings of traces. Give all processes the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    traces_endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description=(
            "Address to which spans are sent by OTLP over HTTP, such as"
            " `http://collector:4318/v1/traces`. By default there are no traces."
        ),
    )
    sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description=(
            "Share of the new traces that are recorded. A task that is submitted within a trace"
            " is recorded if that trace is."
        ),
    )
    service_name: str = Field("flowkit", description="The `service.name` of the spans.")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Read the table of settings of a configuration.

        Raises:
            ConfigError: fields are unknown or have the wrong type; the message names them.
        """
        return read_options(cls, options, "telemetry")

"""Configuration of the web API: the table ``options.web``."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from flowkit.adapters import read_options
from flowkit_web._webhook_config import WebhookConfig

WebhookName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]


class WebConfig(BaseModel):
    """Settings of the web API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_hosts: tuple[str, ...] = Field(
        (),
        description=(
            "Names under which browsers and proxies reach the server, such as"
            " `flowkit.example.com`, besides its addresses and `localhost`. They need tokens."
        ),
    )
    max_body_bytes: int = Field(9 * 1024 * 1024, ge=1_024, description="Largest body of a request.")
    requests_per_sec: float = Field(
        100.0,
        gt=0,
        description=(
            "Requests per second that a token may make in the long run, or an address without one."
        ),
    )
    request_burst: int = Field(
        500, ge=1, description="Requests that a token may make at once after a pause."
    )
    max_streams: int = Field(
        1_000, ge=1, description="Clients that follow events at the same time."
    )
    heartbeat_sec: float = Field(
        15.0,
        gt=0,
        description="Interval of comments in a stream of events, which show that it is alive.",
    )

    webhooks: dict[WebhookName, WebhookConfig] = Field(
        default_factory=dict,
        description="Receivers of the changes of tasks, by name.",
    )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Read the table of settings of a configuration.

        Raises:
            ConfigError: fields are unknown or have the wrong type; the message names them.
        """
        return read_options(cls, options, "web")

"""Configuration of webhooks: the table ``options.web.webhooks``."""

import base64
import binascii
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    field_validator,
)

FORM = "whsec_"
"""Beginning of each secret."""
SHORTEST_SECRET, LONGEST_SECRET = 24, 64
"""Bytes of a secret, as Standard Webhooks says."""


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"this is not a URL: {error}") from None
    if parts.scheme != "https" or not parts.hostname or port == 0:
        raise ValueError("a URL of a webhook is https://HOST/PATH")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("a URL of a webhook has neither a login nor a fragment")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a URL of a webhook has only printable ASCII characters and no spaces")
    return url


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret in the form of Standard Webhooks.

    Raises:
        ValueError: it does not have that form.
    """
    try:
        key = base64.b64decode(secret.removeprefix(FORM), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(FORM) or not SHORTEST_SECRET <= len(key) <= LONGEST_SECRET:
        raise ValueError(
            f"a secret is {FORM} and {SHORTEST_SECRET} to {LONGEST_SECRET} bytes in base64"
        )
    return key


class WebhookConfig(BaseModel):
    """A receiver of the changes of tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, AfterValidator(_checked_url)] = Field(
        description="Address to which changes are posted: `https://HOST/PATH`."
    )
    secrets: tuple[SecretStr, ...] = Field(
        min_length=1,
        max_length=4,
        description=(
            "Secrets that sign the requests: `whsec_` and 24 to 64 bytes in base64. Each of them"
            " signs, so that a receiver can change its secret."
        ),
    )
    allow_private: bool = Field(
        False,
        description="Post to addresses of private networks and of this machine, too.",
    )
    ca_file: FilePath | None = Field(
        None,
        description=(
            "Certificates of the authorities that are trusted, instead of those of the system."
        ),
    )
    timeout_sec: float = Field(
        10.0, gt=0, le=300, description="Longest time of a request, from connecting to its answer."
    )
    max_parallel: int = Field(
        8, ge=1, le=256, description="Requests at the same time, each for another task."
    )
    longest_pause_sec: float = Field(
        300.0, gt=0, description="Longest pause before a retry. The first is a second long."
    )
    retry_for_sec: float = Field(
        3 * 86_400.0,
        gt=0,
        description=(
            "Time after which a change that the receiver does not accept becomes a dead letter. A"
            " restart begins it again."
        ),
    )

    @field_validator("secrets")
    @classmethod
    def _known_form(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            key_of(secret.get_secret_value())
        return secrets

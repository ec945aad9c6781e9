"""Signatures of webhooks in the form of Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

FORM = "v1"
"""Version of the signatures: HMAC-SHA-256 with a secret that the receiver knows."""


def webhook_headers(body: bytes, keys: Sequence[bytes], now: float) -> dict[str, str]:
    """Return the headers that identify and sign a request. Equal bodies have the same id, so that a
    receiver recognizes a copy.
    """
    message_id = f"msg_{hashlib.sha256(body).hexdigest()[:32]}"
    timestamp = str(int(now))
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"{FORM},{signature}" for signature in signatures),
    }

"""Payload codec that encrypts with AES-GCM.

Give :class:`Encryption` as a plugin to every client, coordinator and worker.
"""

import os
from collections.abc import Mapping
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"\x00aesgcm1"
NONCE_BYTES = 12


class Encryption:
    """Codec that encrypts with its first key and decrypts with any of its keys.

    Keys have 16, 24 or 32 bytes. Each encrypted payload begins with the name of its key, so keys
    can be replaced: add the new key everywhere, then make it the first everywhere, and remove the
    old key when no payload needs it. Each payload has its own nonce and is bound to its context: it
    cannot be decrypted if it was moved to another task, node or topic.
    """

    def __init__(self, keys: Mapping[str, bytes], *, encrypt_with: str) -> None:
        if not all(0 < len(name.encode()) < 256 for name in keys):
            raise ValueError("a key's name has 1 to 255 bytes")
        self._ciphers = {name.encode(): AESGCM(key) for name, key in keys.items()}
        self._name = encrypt_with.encode()
        self._cipher = self._ciphers[self._name]

    @classmethod
    def from_environment(cls, variable: str = "PAYLOAD_KEYS") -> Self:
        """Read keys from a variable: ``name=hex,name=hex``. The first key encrypts."""
        keys = {
            name: bytes.fromhex(key)
            for name, _, key in (pair.partition("=") for pair in os.environ[variable].split(","))
        }
        return cls(keys, encrypt_with=next(iter(keys)))

    def flowkit_encode_payload(self, data: bytes, context: str) -> bytes:
        head = MAGIC + bytes([len(self._name)]) + self._name
        nonce = os.urandom(NONCE_BYTES)
        return head + nonce + self._cipher.encrypt(nonce, data, head + context.encode())

    def flowkit_decode_payload(self, data: bytes, context: str) -> bytes:
        if not data.startswith(MAGIC):
            raise ValueError("the payload is not encrypted")
        start = len(MAGIC) + 1
        end = start + data[len(MAGIC)] if len(data) >= start else start
        name, nonce, text = (
            data[start:end],
            data[end : end + NONCE_BYTES],
            data[end + NONCE_BYTES :],
        )
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise ValueError(f"there is no key {name.decode(errors='replace')!r}")
        try:
            return cipher.decrypt(nonce, text, data[:end] + context.encode())
        except (InvalidTag, ValueError):
            raise ValueError(
                f"key {name.decode(errors='replace')!r} does not fit, or it was changed or moved"
            ) from None

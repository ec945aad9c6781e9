"""Access tokens. Their hashes are keyed records of the store, under their names."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated

from pydantic import AwareDatetime, Field, TypeAdapter

from flowkit.errors import ConfigError
from flowkit.protocols import Clock, KeyedRecord, RecordChange, RecordDeletion, RecordStore, utc

KIND = "web_token"
PREFIX = "fk_"
LONGEST_NAME = 200
MAX_TOKENS = 1_000


class Role(StrEnum):
    """Role of a token. Each role may do what those before it may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def may(self, needed: "Role") -> bool:
        """Return whether this role may do what needs another one."""
        return _RANKS[self] >= _RANKS[needed]


_RANKS: Mapping[Role, int] = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is stored, without its secret."""

    hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    role: Role
    created_at: AwareDatetime
    name: str = ""


_TOKEN: TypeAdapter[Token] = TypeAdapter(Token)


def hash_of(secret: str) -> str:
    """Return the hash of a secret. It is random and long, so it needs no salt."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


async def add_token(records: RecordStore, name: str, role: Role, clock: Clock) -> str:
    """Store a new token and return its secret.

    Raises:
        ConfigError: the name is not valid or is taken, or there are too many tokens.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ConfigError(
            f"the name of a token has 1 to {LONGEST_NAME} printable characters, and not only spaces"
        )
    if len(await records.scan(KIND, limit=MAX_TOKENS)) == MAX_TOKENS:
        raise ConfigError(f"there are {MAX_TOKENS:,} tokens; remove one")
    secret = PREFIX + secrets.token_urlsafe(32)
    token = Token(hash_of(secret), role, utc(clock.now()))
    data = _TOKEN.dump_json(token, exclude={"name"})
    change = RecordChange(secrets.token_hex(16), put=[KeyedRecord(KIND, name, data)])
    if not all(await records.change([change])):
        raise ConfigError(f"there is a token {name!r}; remove it, or choose another name")
    return secret


async def remove_token(records: RecordStore, name: str) -> None:
    """Remove a token.

    Raises:
        ConfigError: there is no such token.
    """
    change = RecordChange(secrets.token_hex(16), delete=[RecordDeletion(KIND, name)])
    if not all(await records.change([change])):
        raise ConfigError(f"there is no token {name!r}")


async def list_tokens(records: RecordStore) -> Sequence[Token]:
    """Return all tokens, by name. A damaged one admits no one."""
    return [_decoded(record) for record in await records.scan(KIND, limit=MAX_TOKENS)]


def _decoded(record: KeyedRecord) -> Token:
    try:
        token = _TOKEN.validate_json(record.data)
    except ValueError:
        return Token("", Role.VIEWER, _NEVER, record.key)
    return Token(token.hash, token.role, token.created_at, record.key)


_NEVER: datetime = utc(0.0)

"""Access: who makes a request, and whether this caller may make it."""

import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from fastapi import Request

from flowkit import Client
from flowkit.adapters import while_readable, within
from flowkit.errors import StoreUnavailable
from flowkit_web._config import WebConfig
from flowkit_web._hosts import host_of, is_local_name
from flowkit_web._problems import Problem
from flowkit_web._rate_limits import RateLimit
from flowkit_web._tokens import Role, Token, hash_of, list_tokens

logger = logging.getLogger(__name__)

FRESH_SEC = 5.0
"""Time after which the tokens are read again. A removed token has no effect after it, while the
store answers.
"""
READ_SEC = 1.0
"""Time in which the store answers a request that can be checked with known tokens."""
KNOWN_SEC = 300.0
"""Time for which known tokens are used while the store does not answer."""
LOCAL_NAME = "local"
FAILURES_PER_SEC = 5.0
FAILURE_BURST = 50


@dataclass(frozen=True, slots=True)
class Caller:
    """Caller of a route: the name of the token, and its role."""

    name: str
    role: Role


ANYONE = Caller("anyone", Role.VIEWER)
LOCAL = Caller(LOCAL_NAME, Role.ADMIN)
"""Caller on this machine, while there are no tokens."""


class Access:
    """Check of the callers of one application."""

    def __init__(self, client: Client, config: WebConfig, *, local: bool) -> None:
        """With ``local``, callers on this machine need no token while the store has none."""
        self._client = client
        self._local = local
        self._tokens: Mapping[str, Token] = {}
        self._has_tokens = False
        self._read_at = -math.inf
        self._read_again_at = -math.inf
        self._is_silent = False
        """Whether the tokens are those of an earlier time, because the store does not answer."""
        self._requests = RateLimit(per_sec=config.requests_per_sec, burst=config.request_burst)
        self._checks = RateLimit(per_sec=config.requests_per_sec, burst=config.request_burst)
        """Requests without a token, by the address of the caller."""
        self._failures = RateLimit(per_sec=FAILURES_PER_SEC, burst=FAILURE_BURST)

    async def check(self, request: Request, needed: Role | None) -> Caller:
        """Return the caller. Without ``needed``, this is anyone.

        Raises:
            Problem: the caller is unknown, may not do this, or makes too many requests.
            StoreUnavailable: the tokens are not known, and the store does not answer.
        """
        now = self._client.clock.monotonic()
        if needed is None:
            _check_pace(self._checks, _peer(request), now)
            return ANYONE
        caller = await self.caller_of(request)
        if caller is None:
            _check_pace(self._failures, _peer(request), now)
            raise self._unknown(request)
        _check_pace(self._requests, caller.name, now)
        check_role(request, caller, needed)
        return caller

    async def caller_of(self, request: Request) -> Caller | None:
        """Return the caller of a request; None if it is unknown.

        Raises:
            StoreUnavailable: the token is not known, and the store does not answer.
        """
        await self._refresh()
        if not self._has_tokens:
            return LOCAL if self._local and _is_local(request) else None
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        token = self._tokens.get(hash_of(secret.strip())) if scheme.lower() == "bearer" else None
        if token is None and secret and self._is_silent:
            raise StoreUnavailable("the store does not answer, so this token cannot be checked")
        return None if token is None else Caller(token.name, token.role)

    async def _refresh(self) -> None:
        """Read the tokens if they are due.

        Raises:
            StoreUnavailable: the store does not answer, and the tokens are not known.
        """
        client, clock = self._client, self._client.clock
        now = clock.monotonic()
        if now < self._read_again_at:
            return
        if now - self._read_at >= KNOWN_SEC:
            await while_readable(self._read, store=client.store, clock=clock)
            return
        with suppress(StoreUnavailable):
            if await within(READ_SEC, self._read, clock=clock):
                return
        self._read_again_at = clock.monotonic() + FRESH_SEC
        self._is_silent = True

    async def _read(self) -> None:
        now = self._client.clock.monotonic()
        tokens = await list_tokens(self._client.store.records)
        self._tokens = {token.hash: token for token in tokens}
        self._has_tokens = bool(tokens)
        self._read_at, self._read_again_at = now, now + FRESH_SEC
        self._is_silent = False

    def _unknown(self, request: Request) -> Problem:
        _log_refusal(request, "a caller without a valid token")
        detail = (
            "this needs a valid token: send the header 'Authorization: Bearer TOKEN'; a token"
            " comes from: flowkit token add NAME --role ROLE"
            if self._has_tokens
            else "there are no tokens; add one with: flowkit token add NAME --role ROLE, and send"
            " it in the header 'Authorization: Bearer TOKEN'"
        )
        return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def check_role(request: Request, caller: Caller, needed: Role, *, what: str = "this") -> None:
    """Check that the role of a caller permits ``what`` it asks for.

    Raises:
        Problem: it does not.
    """
    if not caller.role.may(needed):
        _log_refusal(request, f"{caller.name} ({caller.role})")
        detail = f"token {caller.name!r} has the role {caller.role}, and {what} needs {needed}"
        raise Problem(403, "forbidden", detail)


def _check_pace(limit: RateLimit, key: str, now: float) -> None:
    if wait_sec := limit.wait_sec(key, now):
        headers = {"Retry-After": str(math.ceil(wait_sec))}
        detail = "too many requests; wait a moment"
        raise Problem(429, "too_many_requests", detail, headers=headers)


def _log_refusal(request: Request, who: str) -> None:
    peer, method, path = _peer(request), request.method, request.url.path
    logger.warning(
        "Refused %s from %s: %s %s",
        who,
        peer,
        method,
        path,
        extra={"action": "web_refused", "peer": peer, "method": method, "path": path},
    )


def _peer(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"


def _is_local(request: Request) -> bool:
    """Return whether a request comes from this machine, and was sent to it by that name."""
    return (
        request.client is not None
        and is_loopback(request.client.host)
        and is_local_name(host_of(request.headers.get("host", "")))
    )


def is_loopback(address: str) -> bool:
    """Return whether an address, or ``localhost``, is one of this machine alone."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False

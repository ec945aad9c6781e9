"""The values that ``block_sensitive`` takes for secrets, and those that it does not."""

import contextlib
import time
from typing import Any

import pytest

from flowkit._engine.vars import VarsOp, check
from flowkit.errors import VarsError

HEADER, PAYLOAD = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0"

SECRETS = {
    "aws key": "AKIA" + "IOSFODNN7EXAMPLE",
    "aws session key": "ASIA" + "IOSFODNN7EXAMPLE",
    "aws key in a sentence": "use AKIA" + "IOSFODNN7EXAMPLE, please",
    "aws secret": "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY",
    "google key": "AIza" + "SyA-1234567890abcdefghijklmnopqrstu",
    "azure connection": (
        "DefaultEndpointsProtocol=https;AccountKey=" + "abcdefghijklmnopqrstuvwxyz0123=="
    ),
    "github token": "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789",
    "github fine-grained token": "github_pat_" + "11ABCDEFG0abcdefghijklm_xyz",
    "gitlab token": "glpat-" + "abcdefghij0123456789",
    "slack token": "xoxb-" + "123456789012-abcdefghijkl",
    "slack app token": "xapp-" + "1-A0123456789-abc",
    "model provider key": "sk-" + "abcdefghijklmnopqrstuvwx",
    "model provider project key": "sk-proj-" + "abcdefghij_klmnop-0123",
    "payment key": "sk_live_" + "abcdefghij0123456789",
    "npm token": "npm_" + "abcdefghijklmnopqrstuvwxyz0123456789",
    "google access token": "ya29." + "abcdefghijklmnopqrstuvwxyz",
    "mail provider key": "SG." + "abcdefghijklmnop" + "." + "abcdefghijklmnopqrstuv",
    "webhook secret": "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2Lab+/=",
    "bearer header": "Authorization: Bearer " + "abcdef0123456789",
    "basic header": "Authorization: Basic " + "dXNlcjpwYXNzd29yZA==",
    "basic header as JSON": '{"Proxy-Authorization": "Basic ' + 'dXNlcjpwYXNzd29yZA"}',
    "cookie header": "Cookie: session=" + "0a1b2c3d4e5f",
    "jwt": f"{HEADER}.{PAYLOAD}.c2lnbmF0dXJl",
    "unsigned jwt": f"{HEADER}.{PAYLOAD}.",
    "jwt with an empty payload": f"{HEADER}.e30.c2lnbmF0dXJl",
    "private key": (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
    ),
    "certificate": "-----BEGIN CERTIFICATE-----\nMIIC",
    "address with a password": "mongodb://app:hunter2@db.example.org/app",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize(
    "kv",
    [
        lambda s: {"note": s},
        lambda s: {"a": {"note": s}},
        lambda s: {"notes": [1, {"x": [s]}]},
        lambda s: {"notes": [{s: 1}]},
    ],
)
def test_what_looks_like_a_secret_is_refused_wherever_it_stands(secret: str, kv: Any):
    for name, argument in (("set", "kv"), ("merge", "data")):
        check(VarsOp(name, {argument: kv(secret)}))  # type: ignore[arg-type]
        with pytest.raises(VarsError, match="looks like") as caught:
            check(VarsOp(name, {argument: kv(secret), "block_sensitive": True}))  # type: ignore[arg-type]
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "kv",
    [
        {"password": "hunter2!"},
        {"db_password": "correct horse battery staple"},
        {"dbPassword": "s3cr3t-value"},
        {"PASSWORD": "s3cr3t-value"},
        {"auth.api_key": "0a1b2c3d4e5f"},
        {"apiKey": "0a1b2c3d4e5f"},
        {"secrets": {"database": "0a1b2c3d4e5f"}},
        {"secrets": [{"database": "0a1b2c3d4e5f"}]},
        {"notes": [{"password": "0a1b2c3d4e5f"}]},
        {"Authorization": "Token 0a1b2c3d4e5f"},
        {"headers": {"X-Api-Key": "0a1b2c3d4e5f"}},
        {"headers": {"Set-Cookie": "0a1b2c3d4e5f"}},
    ],
)
def test_what_is_hard_to_guess_is_refused_under_a_name_that_promises_a_secret(kv: Any):
    with pytest.raises(VarsError, match="looks like a password or token"):
        check(VarsOp("set", {"kv": kv, "block_sensitive": True}))


@pytest.mark.parametrize(
    "kv",
    [
        {"sla": "gold", "n": 3, "ok": True, "none": None},
        {"sentence": "The bearer of this letter may pass; ask-for-a-skeleton-key."},
        {"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
        {"id": "123e4567-e89b-12d3-a456-426614174000"},
        {"url": "https://example.org:8443/path?x=1@home"},
        {"path": "data/reports/2026/quarterly-report-final.parquet"},
        {
            "note": "authorization: granted by the owner",
            "basics": "basic JavaScript knowledge",
            "cookie_count": 12345678,
        },
        {"password": "changeme"},
        {"password": "********"},
        {"password": "short"},
        {"token_count": 1234567890},
        {"token_url": "https://example.org/oauth/token"},
        {"secret_name": "database-credentials"},
        {"monkey": "0a1b2c3d4e5f", "keyboard": "0a1b2c3d4e5f"},
        {"jwt_like": "eyJ.short.parts"},
        {"list": ["gold", 1, [None], {"tier": "silver"}], "empty": {}},
    ],
)
def test_what_is_harmless_is_taken(kv: Any):
    check(VarsOp("set", {"kv": kv, "block_sensitive": True}))


def test_a_key_that_is_a_secret_itself_is_refused_without_being_named():
    for secret in (SECRETS["aws key"], SECRETS["jwt"]):
        with pytest.raises(VarsError, match="a key looks like a secret") as caught:
            check(VarsOp("set", {"kv": {secret: 1}, "block_sensitive": True}))
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "eyJ",
        "eyJaaaaa-",
        "eyJaaaaa.",
        "aa://",
        "a:",
        "bearer ",
        "authorization: ",
        "cookie: a",
        "-----BEGIN A",
        "SG.",
        "aA0",
        "AKIA",
        "_",
    ],
)
def test_a_long_text_is_searched_in_time_proportional_to_it(piece: str):
    text = (piece * (64 * 1024))[: 64 * 1024]

    began = time.process_time()
    with contextlib.suppress(VarsError):
        check(VarsOp("set", {"kv": {"note": text}, "block_sensitive": True}))

    assert time.process_time() - began < 1

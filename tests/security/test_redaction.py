"""Secrets appear in no log, error or table, and user text cannot control the terminal.

User text cannot start a log line of its own either.
"""

import json
import logging
import pprint
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json
from rich.text import Text
from typer.testing import CliRunner

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit._text.redaction import (
    printable,
    printable_json,
    redacted,
    redacted_start,
    redacted_value,
)
from flowkit._text.secret_scanner import kind_of_secret
from flowkit._user_code.containment import loggable
from flowkit.cli import _output
from flowkit.cli._app import app
from flowkit.cli._errors import print_error
from flowkit.cli._log_output import JsonLines, LastWarning, PlainLines
from flowkit.clock import SystemClock
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins
from flowkit_kafka._address import bootstrap_servers
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._errors import translated
from flowkit_mongo._errors import translate
from flowkit_testing import InMemoryStore
from flowkit_web._tokens import Role, add_token

PASSWORD = "hunter2-hunter2"
EVIL = "a\nERROR flowkit: forged\r\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp.exe\u2066\u2028\x00\x7fz"
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "text",
    [
        f"mongodb://user:{PASSWORD}@host:27017/db?w=1",
        f"cannot reach mongodb+srv://user:{PASSWORD}@host/db: time-out",
        f"mongodb://user:{PASSWORD}@one:1,two:2/db",
        f"kafka://user:{PASSWORD}@host:9092",
        f"amqp://user:it's-{PASSWORD}@host",
        f"redis://:{'x' * 5_000}{PASSWORD}@host",
        f"mongodb://user:p@{PASSWORD}@host/db",
        f"sasl_password={PASSWORD}",
        f"sasl_plain_password: {PASSWORD}",
        f"{{'sasl_password': '{PASSWORD}', 'a': 1}}",
        f'{{"password": "{PASSWORD}"}}',
        f"?authSource=admin&password={PASSWORD}&tls=true",
        f"signing_keys=['{PASSWORD}']",
        f"API_KEY={PASSWORD}",
        f"access-token: {PASSWORD}",
        f"Authorization: Bearer {PASSWORD}",
        f"authorization: {PASSWORD}",
        f"Proxy-Authorization: Basic {PASSWORD}",
        f"401 for {{'Authorization': 'Bearer {PASSWORD}', 'Accept': '*'}}",
        f"Headers([(b'authorization', b'Bearer {PASSWORD}'), (b'accept', b'*')])",
        f"curl -H 'Authorization: Bearer {PASSWORD}' http://host",
        f'Authorization: Digest username="u", response="{PASSWORD}"',
        f'curl -H \'Authorization: Digest username="u", response="{PASSWORD}"\' http://host',
        f"Authorization=AWS4-HMAC-SHA256 Credential=x/y, Signature={PASSWORD}",
        f"Cookie: a=1; session={PASSWORD}",
        f"Set-Cookie: session={PASSWORD}; Path=/",
        f"{{'cookies': b'session={PASSWORD}'}}",
        f"X-Api-Key: {PASSWORD}",
        f"the server does not know Bearer {PASSWORD}",
        f"token: Bearer {PASSWORD}",
        f"Settings(password=SecretThing('{PASSWORD}'), a=1)",
        f"Settings(password=SecretThing(value=('a', '{PASSWORD}')), a=1)",
        f"password=SecretThing(value={PASSWORD}",
        f"password=({PASSWORD!r}, 'b')",
        f"{{'credentials': {{'user': 'ann', 'words': ['{PASSWORD}']}}}}",
        f"https://user:{PASSWORD}@host/path",
        f'{{"body": "{{\\"password\\": \\"{PASSWORD}\\"}}"}}',
        f'password="it\'s {PASSWORD}"',
        f"token={'x' * 5000}{PASSWORD}",
        f"token='{'x' * 5000}{PASSWORD}'",
        f'{{"password": "a\\"{PASSWORD}"}}',
        f"password='a\n{PASSWORD}'",
        f"password='a''{PASSWORD}'",
        f"password=a'{PASSWORD}",
        f'password = """\na"b\n{PASSWORD}\n"""',
        f"{{'cookies': {{'session': {{'x': '{PASSWORD}'}}}}, 'n': 1}}",
        f'[["Authorization", "Bearer {PASSWORD}"], ["Cookie", "{PASSWORD}"]]',
        f"GET / HTTP/1.1\nAuthorization: Bearer\n {PASSWORD}\nAccept: *",
        f"GET / HTTP/1.1\nAuthorization: Digest username=u,\n response={PASSWORD}\nAccept: *",
        f'curl -H "Authorization: Bearer \\"{PASSWORD}\\"" http://host',
        f"private_key: MIIEpAIBAAKCAQEA\n  {PASSWORD}\nuser: ann",
        f"credentials:\n- ann\n- {PASSWORD}\nuser: ann",
        f"Authorization:{' ' * 12}Digest {PASSWORD}",
        f"Authorization:{' ' * 12}Bearer {PASSWORD}",
        f"curl -H 'Authorization:{' ' * 12}{PASSWORD}' http://host",
        f"https://ann:{PASSWORD}/x@host/@ann",
        f"https://{PASSWORD}@host/@ann",
        f"https://host/?to=https://ann:{PASSWORD}@host",
        f"tokens=[1, '{PASSWORD}']",
        f'{{"tokens": ["{PASSWORD}"]}}',
        f"api_tokens: [{PASSWORD}]",
        f"tokens=8{PASSWORD}",
        f"tokens={PASSWORD}:1",
        f"password:\n  'a\n{PASSWORD}'",
        f"{{Authorization: Digest a, response: {PASSWORD}}}",
    ],
)
def test_secrets_in_texts_are_hidden(text: str) -> None:
    shown = redacted(text)
    assert PASSWORD not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "token",
    [
        "s3cr3t",
        "0123456789abcdef",
        "abcdefghijklmnop",
        "zxcvbnmasdfghjklqwertyuiop",
        "mF_9.B5f-4.1JqM",
        "AbCdEfGhIjKlMnOp==",
        "abc123:def",
    ],
)
def test_a_token_after_bearer_is_hidden_whole(token: str) -> None:
    assert redacted(f"sent Bearer {token}, again") == "sent Bearer ***, again"
    assert redacted(f'{{"sent": "bearer  {token}"}}') == '{"sent": "bearer  ***"}'
    assert kind_of_secret(f"sent Bearer {token}") == "a bearer token"


@pytest.mark.parametrize("quote", ['"', "'", '\\"', '\\\\\\"'])
def test_a_quoted_token_after_bearer_is_hidden(quote: str) -> None:
    shown = redacted(f"sent Bearer {quote}s3cr3t{quote}, again")
    assert shown == f"sent Bearer {quote}***{quote}, again"
    assert kind_of_secret(f"sent Bearer {quote}s3cr3t{quote}") == "a bearer token"


@pytest.mark.parametrize(
    "text",
    [
        "Bearer of news",
        "the \"bearer\" of 'news'",
        "a bearer\nof news",
        "a bearer authentication, or bearer authorization",
        "bearer 404",
        "the bearer tokens/words",
        "bearers s3cr3t7",
    ],
)
def test_prose_after_bearer_is_shown(text: str) -> None:
    assert redacted(text) == text
    assert kind_of_secret(text) is None


def test_what_follows_a_hidden_call_is_shown() -> None:
    shown = redacted(f"Settings(password=SecretThing('{PASSWORD}'), limit=5) was refused")
    assert shown == "Settings(password=***, limit=5) was refused"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password: |\n  a\n\n  b\nuser: ann", "password: |\n  ***\nuser: ann"),
        ("pwd: !tag\n  a\nuser: ann", "pwd: !tag\n  ***\nuser: ann"),
        ("pwd: &x >- # why\n  a\nuser: ann", "pwd: &x >- # why\n  ***\nuser: ann"),
        ("- secret:\n    a: b\n  user: ann", "- secret:\n    ***\n  user: ann"),
        ("a:\n  token: b c\n    d\n  user: ann", "a:\n  token: ***\n  user: ann"),
        (
            '{\n  "pwd": {\n    "a": ["(", "b"]\n  },\n  "n": 1\n}',
            '{\n  "pwd": ***,\n  "n": 1\n}',
        ),
        (
            "    connect(token=get(\n  File 'x', line 3\nValueError: it's bad",
            "    connect(token=***\n  File 'x', line 3\nValueError: it's bad",
        ),
        (
            "  | E: {'pwd': [\n  |   'a'\n  | ]}\n  +---- next",
            "  | E: {'pwd': ***}\n  +---- next",
        ),
        ("token=(it's optional) and more", "token=*** and more"),
        ("token: ''\nuser: ann", "token: ***\nuser: ann"),
        ("credentials:\n  'user': a\n  'key': b\nn: 1", "credentials:\n  ***\nn: 1"),
        ('passwords:\n  "a":\n    b: c\nn: 1', "passwords:\n  ***\nn: 1"),
        ("token: a b\n", "token: ***\n"),
        ("no credentials:\n  user: a\n  key: b\nn: 1", "no credentials:\n  ***\nn: 1"),
        ("no credentials:\n- user: a\n  key: b\nn: 1", "no credentials:\n- ***\nn: 1"),
        ("  | E: credentials:\n  |   key: b\n  +----", "  | E: credentials:\n  |   ***\n  +----"),
        (
            '{"a": "credentials:\\n  \\"user\\": a\\n  \\"key\\": b\\nn: 1"}',
            '{"a": "credentials:\\n  ***\\nn: 1"}',
        ),
        ("E('no credentials:\\n  key: a\\nn: 1')", "E('no credentials:***\\nn: 1')"),
        ("'  no credentials:\\n- key: a\\nn: 1'", "'  no credentials:***\\nn: 1'"),
        ("'x\\n  no pwd:\\n    key: a\\n  n: 1'", "'x\\n  no pwd:***\\n  n: 1'"),
        ('"- token:\\n  - a\\nn: 1"', '"- token:***\\nn: 1"'),
        ('"- token: |\\n    a\\n  n: 1"', '"- token:***\\n  n: 1"'),
        ("    pwd = [\n  'a',\n  'b'\n] of ann", "    pwd = *** of ann"),
        ("if not token:\n            return 1", "if not token:\n            return 1"),
    ],
)
def test_what_follows_a_value_of_several_lines_is_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"password ={' ' * 12}a b", f"password ={' ' * 12}*** b"),
        ("password => a b", "password => *** b"),
        ('"password" => "a" b', '"password" => *** b'),
        ('password := "a" b', "password := *** b"),
        ("assert password == 'a'", "assert password == ***"),
        ("def f(password: str='a', n=1)", "def f(password: ***, n=1)"),
        ("password: str | None = 'a' b", "password: *** b"),
        ("C(password: dict[str, str] = {'a': 'b'}, n=1)", "C(password: ***, n=1)"),
        ("password: !!str a b", "password: *** b"),
        ("password: &x !y 'a b' c", "password: *** c"),
        ("{user: a, password: b c, n: 1}", "{user: a, password: ***, n: 1}"),
        ("{password: a\n  b}, n", "{password: ***}, n"),
        ("well, password: a b, c", "well, password: *** b, c"),
        ("password=12345, tokens=12345", "password=***, tokens=12345"),
        (f"'Authorization:{' ' * 12}a' b", f"'Authorization:{' ' * 12}***' b"),
    ],
)
def test_values_are_hidden_in_the_forms_of_languages(text: str, shown: str) -> None:
    assert redacted(text) == shown


NAMES = ("password", "db_password", "apiKey", "credentials", "token", "Authorization")
MARK = "Zq7MARK"
FORMS: dict[str, Callable[[Any], str]] = {
    "repr": repr,
    "lines of repr": lambda value: pprint.pformat(value, width=40),
    "repr of repr": lambda value: repr({"a": repr(value)}),
    "JSON": json.dumps,
    "lines of JSON": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    "JSON in JSON in JSON": lambda value: json.dumps([json.dumps([json.dumps(value, indent=2)])]),
    "JSON in repr": lambda value: repr({"body": json.dumps(value)}),
    "YAML": yaml.safe_dump,
    "wide YAML": lambda value: yaml.safe_dump([value], width=1000, allow_unicode=True),
    "YAML in repr": lambda value: repr(yaml.safe_dump(value)),
    "YAML in JSON": lambda value: json.dumps(yaml.safe_dump(value)),
}


def value_with_a_secret(random: Random) -> dict[str, Any]:
    """Return objects and lists within each other, with texts under the name of a secret."""

    def text() -> str:
        signs = [*"\n '\"\\(){}[],:=é\t|-#", "\r\n", "\n\n", "\\n", "- ", "a", "a"]
        return "".join(random.choice(signs) + MARK for _ in range(random.randint(1, 5)))

    def secret(depth: int) -> Any:
        shape = random.randint(0, 2) if depth else 0
        if not shape:
            return text()
        items = [secret(depth - 1) for _ in range(random.randint(1, 3))]
        return items if shape == 1 else {f"k{n}": item for n, item in enumerate(items)}

    def plain() -> Any:
        return random.choice(["x", "it's", "a\nb", 'q"q', 1, None, ["(a"], {"b": "c"}])

    value: Any = {"a": plain(), random.choice(NAMES): secret(random.randint(0, 4)), "z": plain()}
    for _ in range(random.randint(1, 5)):
        value = random.choice([{"a": plain(), "k": value, "z": plain()}, [plain(), value, plain()]])
    return {"k": value}


@pytest.mark.parametrize("form", FORMS)
def test_values_are_hidden_at_any_depth_and_wherever_the_text_is_cut(form: str) -> None:
    for seed in range(100):
        random = Random(seed)
        value = value_with_a_secret(random)
        assert MARK not in repr(redacted_value(value))
        text = FORMS[form](value)
        assert MARK not in redacted(text), text
        assert MARK not in redacted(text[: random.randint(0, len(text))]), text


HEADER, PAYLOAD = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0"
ALNUM = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "secret",
    [
        f"{HEADER}.{PAYLOAD}.c2lnbmF0dXJl",
        f"{HEADER}.{PAYLOAD}.",
        KEY,
        KEY.replace("\n", "\\n"),
        "AKIA" + "IOSFODNN7EXAMPLE",
        f"fk_{ALNUM}",
        f"ghp_{ALNUM[:36]}",
        f"glpat-{ALNUM[:20]}",
        f"xoxb-123456789012-{ALNUM}",
        f"sk-proj-{ALNUM}",
        f"npm_{ALNUM[:36]}",
    ],
)
def test_secrets_of_a_known_form_are_hidden_whole(secret: str) -> None:
    assert redacted(f"it is {secret} here") == "it is *** here"
    assert redacted(f"'{secret}', '{secret}'") == "'***', '***'"
    assert redacted_value({"note": [secret]}) == {"note": ["***"]}


def test_a_private_key_that_was_cut_is_hidden() -> None:
    assert redacted(f"at {KEY[:45]}") == "at ***"


async def test_a_token_of_the_api_is_hidden() -> None:
    token = await add_token(InMemoryStore().records, "ann", Role.VIEWER, SystemClock())
    assert redacted(f"no access with {token}") == "no access with ***"


@pytest.mark.parametrize(
    "text",
    [
        "mongodb://host:27017/db",
        "kafka://a:9092,b:9092",
        "http://@host/x",
        "'http://host' and 'ann@example.org'",
        '{"url":"http://host","by":"ann@example.org"}',
        "node 'a' waits for 'b'",
        "user@example.org wrote",
        "the token is gone",
        "password is too short",
        "authorization is required",
        "authorization failed: the role has no right",
        "a cookie jar",
        "a bearer of news",
        "unknown fields: ['password', 'user']",
        "max_tokens=100",
        "tokens: 5123 used, tokens: 12/4096, tokens=12k",
        '{"usage": {"prompt_tokens": 5, "total_tokens": 12}}',
        "tokens: {'input': 5, 'output': 7}",
        "tokens:\n  input: 5\n  output: 7\n",
        "input_tokens: [101, 2003]",
        "has_password=True, secret=False, password=None",
        '{"token": null, "has_password": true, "secret": false}',
        "unexpected token: '}' in JSON",
        "https://medium.com/@ann/1",
        "http://host/x?by=ann@example.org",
        "eyJ.short.parts",
        "the task-sk-1 of fk_orders and ghp_x",
        "xoxb- is a prefix, as is glpat-",
        "123e4567-e89b-12d3-a456-426614174000",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_other_texts_are_shown_as_they_are(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "a://" * 50_000,
        "password=" * 50_000,
        "x" * 500_000,
        "token='" * 50_000,
        "a://b@" * 50_000,
        "x-" * 100_000,
        "authorization: " * 30_000,
        "('x" * 100_000,
        "bearer " * 50_000,
        "bearer a1" * 50_000,
        "Bearer " + "a" * 400_000,
        "password=(" * 50_000,
        "password=a('" * 50_000,
        "password=" + "([" * 200_000,
        "password=" + "a(" * 200_000,
        "\\" * 200_000,
        "'cookie: " * 50_000,
        "-----BEGIN A-----" * 30_000,
        "-----BEGIN A-----" + "-----END " * 50_000,
        "eyJaaaaa." * 50_000,
        "eyJ" * 100_000,
        "SG." + "a" * 400_000,
        "password='" + "\n" * 200_000,
        "password=''\n" * 50_000,
        "password: |\n x\n" * 50_000,
        "password:\n" * 50_000,
        "'token:x " * 50_000,
        "token=\\n " * 50_000,
        "password: |\\n " * 50_000,
        'password=\\\\\\"' * 50_000,
        "password: &a " * 50_000,
        "password:&" * 50_000,
        "password:#" * 50_000,
        "password:a|" * 50_000,
        "password:a[b" * 50_000,
        "{password: a b " * 30_000,
        "tokens={" + "1," * 100_000,
        "x password:\\n- " * 30_000,
        "x password:\n\n" * 30_000,
    ],
    ids=lambda text: text[:20],
)
def test_hiding_takes_time_in_proportion(text: str) -> None:
    assert redacted(text)


def test_values_are_hidden_by_their_names() -> None:
    value = {
        "kafka": {
            "sasl_username": "u",
            "sasl_password": PASSWORD,
            "hosts": [f"kafka://u:{PASSWORD}@h"],
        },
        "n": 1,
    }
    assert redacted_value(value) == {
        "kafka": {"sasl_username": "u", "sasl_password": "***", "hosts": ["kafka://***@h"]},
        "n": 1,
    }


def test_keys_numbers_and_divided_pem_blocks_are_hidden() -> None:
    lines = [*KEY.split("\n"), "after"]
    assert redacted_value(
        {f"mongodb://u:{PASSWORD}@h": 1, "pwd": {"a": [12345, None]}, "read": lines}
    ) == {"mongodb://***@h": 1, "pwd": {"a": ["***", None]}, "read": ["***"] * 3 + ["after"]}


def test_a_secret_that_the_end_of_a_text_divides_is_hidden() -> None:
    text = f" ghp_{ALNUM[:36]} ".join(("a" * 400, "b" * 1_000))
    for most in range(400, 450):
        assert redacted(text).startswith(redacted_start(text, most))


def test_a_long_text_without_secrets_is_cut_at_its_length() -> None:
    assert redacted_start("a" * 5_000, 4_000) == "a" * 4_000


def test_a_long_traceback_has_no_rest_of_a_secret() -> None:
    for length in (40_000, 2_000_000):
        body = f"{PASSWORD}\n" * (length // len(PASSWORD))
        error = ValueError(f"-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n")
        assert PASSWORD not in str(loggable(error))


def test_headers_are_hidden_by_their_names() -> None:
    value = {
        "headers": {
            "Authorization": f"Bearer {PASSWORD}",
            "Cookie": PASSWORD.encode(),
            "Accept": b"*",
        },
        "usage": {"max_tokens": 100, "tokens": {"in": 5.5, "from": PASSWORD}},
        "sent": [
            ("max_tokens", 100),
            ("authorization", PASSWORD),
            ["X-Api-Key", PASSWORD],
            (b"Proxy-Authorization", PASSWORD.encode()),
        ],
        "cookies": {"session": PASSWORD, "more": [PASSWORD]},
        "url": f"https://u:{PASSWORD}@host",
    }
    assert redacted_value(value) == {
        "headers": {"Authorization": "***", "Cookie": "***", "Accept": "*"},
        "usage": {"max_tokens": 100, "tokens": {"in": 5.5, "from": "***"}},
        "sent": [
            ("max_tokens", 100),
            ("authorization", "***"),
            ("X-Api-Key", "***"),
            (b"Proxy-Authorization", "***"),
        ],
        "cookies": {"session": "***", "more": ["***"]},
        "url": "https://***@host",
    }


def test_what_follows_a_hidden_header_is_shown() -> None:
    assert (
        redacted(f"Authorization: Bearer {PASSWORD} was refused")
        == "Authorization: Bearer *** was refused"
    )
    assert (
        redacted(f"curl -H 'Authorization: Bearer {PASSWORD}' http://host")
        == "curl -H 'Authorization: ***' http://host"
    )
    assert (
        redacted(f"{{'Authorization': 'Bearer {PASSWORD}', 'Accept': 'x'}}")
        == "{'Authorization': ***, 'Accept': 'x'}"
    )


@pytest.mark.parametrize("formatter", [JsonLines(), PlainLines("%(levelname)s: %(message)s")])
def test_headers_are_hidden_in_logs(formatter: logging.Formatter) -> None:
    error = RuntimeError(f"401 for {{'authorization': 'Bearer {PASSWORD}'}}")
    line = formatter.format(
        record(
            "sent %s",
            {"Cookie": PASSWORD},
            error=error,
            headers={"Authorization": f"Basic {PASSWORD}"},
        )
    )
    assert PASSWORD not in line


@pytest.mark.parametrize("model", [CommonConfig, CoordinatorConfig, WorkerConfig])
def test_a_configuration_shows_no_secret(model: type[CommonConfig]) -> None:
    cfg = model(
        db=f"mongodb://u:{PASSWORD}@host/db",
        bus=f"kafka://u:{PASSWORD}@host",
        signing_keys=[PASSWORD * 2],
        options={"kafka": {"sasl_password": PASSWORD}},
    )
    for shown in (repr(cfg), str(cfg), f"{cfg}"):
        assert PASSWORD not in shown
        assert "mongodb://***@host/db" in shown
    assert PASSWORD not in repr(KafkaConfig(sasl_password=PASSWORD))


def test_errors_of_configurations_show_no_secret() -> None:
    for wrong in (
        {"db": f"mongodb://u:{PASSWORD}@h", "unknown": PASSWORD},
        {"namespace": PASSWORD + " "},
        {"signing_keys": PASSWORD},
    ):
        with pytest.raises(ConfigError) as caught:
            CommonConfig.load(overrides=wrong)
        assert PASSWORD not in str(caught.value)
    for address in (f"kafka://u:{PASSWORD}@host", f"kafka://u:{PASSWORD}@host/x y"):
        with pytest.raises(ConfigError) as caught:
            bootstrap_servers(address)
        assert PASSWORD not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        KafkaConfig.parse({"sasl_password": [PASSWORD], "x": PASSWORD})
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("open_", ["open_bus", "open_store"])
def test_an_address_that_no_plugin_knows_is_reported_without_its_password(open_: str) -> None:
    with pytest.raises(ConfigError) as caught:
        getattr(Plugins(discover=False), open_)(f"odd://user:{PASSWORD}@host", CommonConfig())
    assert PASSWORD not in str(caught.value)


def test_errors_of_drivers_are_raised_without_secrets() -> None:
    words = f"could not connect to mongodb://u:{PASSWORD}@host"
    assert PASSWORD not in str(translate(OSError(words)))
    assert PASSWORD not in str(translated(OSError(words), "publishing"))


# ---------------------------------------------------------------- logs


def record(
    message: str, *args: Any, error: BaseException | None = None, **extra: Any
) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("flowkit.x", logging.WARNING, "x.py", 1, message, args, info)
    vars(made).update(extra)
    return made


def test_a_log_record_is_one_line_even_if_its_text_has_line_breaks() -> None:
    line = PlainLines("%(levelname)s: %(message)s").format(record("node %s failed: %s", "a", EVIL))
    assert not STEERING.search(line)
    assert "\n" not in line
    assert line.startswith("WARNING: node a failed: a\\nERROR flowkit: forged\\r\\x1b[2J")


def test_no_line_of_a_traceback_looks_like_one_of_the_log() -> None:
    try:
        raise ValueError(f"{EVIL} mongodb://u:{PASSWORD}@h")
    except ValueError as error:
        text = PlainLines("%(levelname)s: %(message)s").format(record("it broke", error=error))
    assert not STEERING.search(text)
    assert PASSWORD not in text
    first, *others = text.split("\n")
    assert first == "WARNING: it broke"
    assert all(line.startswith("  ") for line in others)


def test_a_traceback_that_another_formatter_has_kept_is_redacted() -> None:
    made = record("it broke", error=ValueError(f"password={PASSWORD}"))
    assert PASSWORD in logging.Formatter().format(made)
    assert PASSWORD not in PlainLines().format(made)
    made.exc_info = None  # as a handler leaves it that sends records to another process
    assert made.exc_text
    assert PASSWORD not in PlainLines().format(made)
    assert "  ValueError: password=***" in PlainLines().format(made)


def test_lines_of_json_are_json_without_secrets_or_steering() -> None:
    try:
        raise ValueError(f"{EVIL} password={PASSWORD}")
    except ValueError as error:
        made = record(
            "at %s: %s",
            f"mongodb://u:{PASSWORD}@h",
            EVIL,
            error=error,
            task_id=EVIL,
            sasl_password=PASSWORD,
            odd=object(),
        )
    line = JsonLines().format(made)
    assert not STEERING.search(line)
    assert "\n" not in line
    assert PASSWORD not in line
    assert json.loads(line)["task_id"] == EVIL


def test_the_last_warning_of_a_driver_is_kept_without_secrets() -> None:
    warning = LastWarning()
    with warning.attached():
        logging.getLogger("driver").warning("no answer from mongodb://u:%s@h\x1b[2J", PASSWORD)
    assert warning.text == "no answer from mongodb://***@h\\x1b[2J"


# ---------------------------------------------------------------- the terminal


@given(st.text())
def test_what_is_printable_steers_nothing(text: str) -> None:
    assert not STEERING.search(printable(text))
    assert "\n" not in printable(text)
    assert not STEERING.search(printable(text, lines=True).replace("\t", ""))
    printable(text).encode()
    assert json.loads(
        printable_json(to_json([text.encode("utf-8", "replace").decode()]).decode())
    ) == [text.encode("utf-8", "replace").decode()]


@pytest.mark.parametrize("text", ["plain", "Grüße, 任務 🌷👩\u200d🌾", "שלום", "a\u00a0b"])
def test_what_people_write_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_tables_and_texts_on_the_console_steer_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    out = StringIO()
    monkeypatch.setattr("sys.stdout", out)
    console = _output.console()
    console.print(_output.table(EVIL, ("a", EVIL), [(EVIL, Text(EVIL)), (1, [EVIL])]))
    console.print(Text(EVIL), soft_wrap=True)
    console.print(EVIL)
    assert not STEERING.search(out.getvalue())
    assert "\\x1b[2J" in out.getvalue()


def test_json_on_the_console_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _output.print_json({"a": EVIL})
    _output.print_json_line({"a": EVIL})
    shown = capsys.readouterr().out
    assert not STEERING.search(shown)
    assert json.loads(shown.splitlines()[-1]) == {"a": EVIL}


def test_an_error_on_the_console_steers_nothing_and_tells_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "flow.json"
    file.write_text(
        json.dumps({"nodes": [{"node_id": "a", "type": "work", "depends_on": ["b\u202e\x9b31m"]}]}),
        encoding="utf-8",
    )
    runner = CliRunner()
    result = runner.invoke(app, ["graph", "check", str(file)])
    assert result.exit_code == 2
    assert not STEERING.search(result.output)
    result = runner.invoke(app, ["ls", "--db", f"odd://user:{PASSWORD}@host"])
    assert result.exit_code == 2
    assert PASSWORD not in result.output


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_doctor_tells_no_secret(as_json: list[str], tmp_path: Path) -> None:
    hasty = tmp_path / "hasty.json"
    hasty.write_text(
        json.dumps(
            {"options": {"mongo": {"retry_for_sec": 2, "server_selection_timeout_ms": 200}}}
        ),
        encoding="utf-8",
    )
    address = f"mongodb://user:{PASSWORD}@127.0.0.1:1/db"
    result = CliRunner().invoke(
        app,
        [
            "doctor",
            "--config",
            str(hasty),
            "--db",
            address,
            "--bus",
            f"kafka://u:{PASSWORD}@127.0.0.1:1",
            *as_json,
        ],
    )
    assert result.exit_code == 1
    assert PASSWORD not in result.output
    assert "127.0.0.1" in result.output


def test_a_complaint_steers_nothing_and_tells_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(f"mongodb://u:{PASSWORD}@h {EVIL}", f"password={PASSWORD} {EVIL}")
    shown = capsys.readouterr().err
    assert PASSWORD not in shown
    assert not STEERING.search(shown)
